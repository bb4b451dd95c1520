/** The simulation's database: what the SQL of an exchange does, on counts instead of rows. Compare lib/sql/migrations/0005_exchange.sql, 0009_wake.sql. */
import type { Timeline } from "./timeline.ts";
import type { Assumptions, Workload } from "./workload.ts";

/** Tasks that came at one time. */
export interface Group {
  readonly dueAt: number;
  count: number;
}

/** What one exchange gave one invocation: it starts together and, of equal length, ends together. */
export interface Batch {
  readonly groups: readonly Group[];
  readonly count: number;
  /** Of one task whose holder died: when that was. */
  readonly lostAt?: number;
}

/** A heartbeat row. */
export interface Beat {
  readonly slot: number;
  lastSeenAt: number;
  seenSince: number;
  over: boolean;
  diedAt: number | undefined;
  readonly held: Set<Batch>;
}

export interface Exchange {
  readonly first: boolean;
  readonly onlyFree: boolean;
  readonly want: number;
  readonly ending: boolean;
  readonly done: readonly Batch[];
  /** How many seats to call for; 0: may not. */
  readonly wakeMost: number;
}

export interface Answer {
  readonly status: "ok" | "seat_taken" | "gone";
  readonly newest: boolean;
  readonly more: boolean;
  readonly silent: boolean;
  readonly batch: Batch | undefined;
  readonly wake: readonly number[];
  /** A built-in schedule is due, and given to the one who hears this. */
  readonly recurring: boolean;
}

/** task_processor.fold_counters: the built-in schedule that comes most often. */
const BUILT_IN_MS = 600_000;
const MOST_DELAY_MS = 900_000;
const NOTHING = { newest: false, more: false, silent: false, batch: undefined, wake: [], recurring: false };

interface Seat {
  holder: Beat | undefined;
  wokenAt: number;
}

export class Database {
  readonly #workload: Workload;
  readonly #assumptions: Assumptions;
  readonly #time: Timeline;
  readonly #seats: Seat[];
  readonly #beats = new Set<Beat>();
  readonly #dead = new Set<Beat>();
  #queue: Group[] = [];
  #head = 0;
  #suspects: (Group & { lostAt: number; since: number })[] = [];
  #arrangedAt = Number.NEGATIVE_INFINITY;
  #builtInAt = BUILT_IN_MS;
  /** Seats are not looked through again before: none was free. */
  #noSeatUntil = 0;
  #awakeFrom = 0;
  #resumedAt = 0;
  #awakeUntil = 0;
  #awakeMs = 0;
  waiting = 0;
  requests = 0;

  constructor(workload: Workload, assumptions: Assumptions, time: Timeline) {
    this.#workload = workload;
    this.#assumptions = assumptions;
    this.#time = time;
    this.#seats = Array.from({ length: workload.slots }, () => ({
      holder: undefined,
      wokenAt: Number.NEGATIVE_INFINITY,
    }));
  }

  /** Milliseconds until a request that is sent now is answered by a cluster that is awake. */
  reach(): number {
    const { quiet } = this.#workload;
    const { requestMs, resumeMs, pauseAfterMs } = this.#assumptions;
    const { now } = this.#time;
    this.requests += 1;
    if (!quiet) return requestMs;
    if (now > this.#awakeUntil) {
      this.#awakeMs += this.#awakeUntil - this.#awakeFrom;
      this.#awakeFrom = now;
      this.#resumedAt = now + resumeMs;
    }
    this.#awakeUntil = Math.max(now, this.#resumedAt) + pauseAfterMs;
    return requestMs + Math.max(0, this.#resumedAt - now);
  }

  /** Milliseconds awake so far. */
  get awakeMs(): number {
    const { now } = this.#time;
    return this.#workload.quiet ? this.#awakeMs + Math.min(now, this.#awakeUntil) - this.#awakeFrom : now;
  }

  store(count: number): void {
    this.#queue.push({ dueAt: this.#time.now, count });
    this.waiting += count;
  }

  newBeat(slot: number): Beat {
    return { slot, lastSeenAt: 0, seenSince: 0, over: false, diedAt: undefined, held: new Set() };
  }

  exchange(me: Beat, { first, onlyFree, want, ending, done, wakeMost }: Exchange): Answer {
    const { now } = this.#time;
    const { graceMs } = this.#workload;
    const seat = this.#seats[me.slot]!;
    if (me.over) return { ...NOTHING, status: "gone" };
    if (first) {
      if (onlyFree && seat.holder !== undefined && !seat.holder.over) return { ...NOTHING, status: "seat_taken" };
      seat.holder = me;
      seat.wokenAt = Number.NEGATIVE_INFINITY;
      me.seenSince = now;
      this.#beats.add(me);
    } else if (now - me.lastSeenAt > graceMs / 2) me.seenSince = now;
    const newest = seat.holder === me;
    for (const batch of done) me.held.delete(batch);
    if (now - me.seenSince >= graceMs / 4) this.#expireSilent(me);
    const batch = newest && !ending && want > 0 ? this.#claim(me, want) : undefined;
    if (batch !== undefined) me.held.add(batch);
    const more = newest && !ending && (this.waiting > 0 || this.#suspects.length > 0 || batch?.lostAt !== undefined);
    const wake = more && !first && wakeMost > 0 ? this.#freeSeats(wakeMost) : [];
    const recurring = newest && !ending && now >= this.#builtInAt;
    if (recurring) this.#builtInAt = (Math.floor(now / BUILT_IN_MS) + 1) * BUILT_IN_MS;
    me.lastSeenAt = now;
    if (ending) {
      this.#close(me);
      if (newest) seat.holder = undefined;
    }
    return { status: "ok", newest, more, silent: this.#silent(me).length > 0, batch, wake, recurring };
  }

  /** When somebody must be called next, in milliseconds from now; undefined: nobody, or an earlier call is under way. */
  arrange(beginning: boolean): number | undefined {
    const { now } = this.#time;
    const silentMs = this.#workload.graceMs * 1.25;
    const due = [...this.#beats].map((beat) => beat.lastSeenAt + silentMs);
    if (this.waiting > 0 || this.#suspects.length > 0) due.push(now);
    const next = Math.min(...due);
    if (next === Number.POSITIVE_INFINITY || (beginning && next > now)) return undefined;
    const at = beginning ? now + silentMs : Math.min(Math.max(next, now + 1000), now + MOST_DELAY_MS);
    if (this.#arrangedAt >= now && this.#arrangedAt <= at + 1000) return undefined;
    this.#arrangedAt = at;
    return at - now;
  }

  #claim(me: Beat, want: number): Batch | undefined {
    const { now } = this.#time;
    const suspect = this.#suspects[0];
    if (suspect !== undefined) {
      const starves = now - suspect.since > this.#workload.graceMs;
      if (me.held.size === 0 && (starves || suspect.dueAt <= (this.#queue[this.#head]?.dueAt ?? now))) {
        suspect.count -= 1;
        if (suspect.count === 0) this.#suspects.shift();
        return { groups: [{ dueAt: suspect.dueAt, count: 1 }], count: 1, lostAt: suspect.lostAt };
      }
      // It waits for an invocation that holds nothing: become one.
      if (starves) return undefined;
    }
    const groups: Group[] = [];
    let left = want;
    while (left > 0 && this.#head < this.#queue.length) {
      const group = this.#queue[this.#head]!;
      const count = Math.min(left, group.count);
      groups.push({ dueAt: group.dueAt, count });
      group.count -= count;
      left -= count;
      if (group.count === 0) this.#head += 1;
    }
    if (this.#head > 10_000) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    if (groups.length === 0) return undefined;
    this.waiting -= want - left;
    return { groups, count: want - left };
  }

  #silent(me: Beat): Beat[] {
    const silentSince = this.#time.now - this.#workload.graceMs;
    // Who lives beats at least every quarter of the grace period.
    return [...this.#dead].filter((beat) => beat !== me && beat.lastSeenAt < silentSince);
  }

  /** Nobody hears of it but by its silence. */
  die(beat: Beat): void {
    beat.diedAt = this.#time.now;
    if (this.#beats.has(beat)) this.#dead.add(beat);
  }

  #expireSilent(me: Beat): void {
    for (const beat of this.#silent(me)) {
      for (const { groups } of beat.held)
        for (const { dueAt, count } of groups)
          this.#suspects.push({ dueAt, count, lostAt: beat.diedAt!, since: this.#time.now });
      this.#close(beat);
      beat.held.clear();
    }
  }

  #close(beat: Beat): void {
    beat.over = true;
    this.#beats.delete(beat);
    this.#dead.delete(beat);
    this.#noSeatUntil = 0;
  }

  #freeSeats(most: number): number[] {
    const { now } = this.#time;
    const { graceMs } = this.#workload;
    if (now < this.#noSeatUntil) return [];
    const found: number[] = [];
    let nextAt = Number.POSITIVE_INFINITY;
    for (const [slot, seat] of this.#seats.entries()) {
      if (found.length === most) return found;
      if (seat.holder !== undefined && !seat.holder.over) continue;
      if (seat.wokenAt < now - graceMs) {
        seat.wokenAt = now;
        found.push(slot);
      }
      nextAt = Math.min(nextAt, seat.wokenAt + graceMs);
    }
    this.#noSeatUntil = nextAt;
    return found;
  }
}
