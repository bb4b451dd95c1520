/** What must be in the database after each exchange: a pure model without clocks, locks or SQL. Time is a number that commands move. */
import { GRACE_MS } from "../support/exchange.ts";

export const RELEASES: Readonly<Record<string, readonly string[]>> = { r1: ["a"], r2: ["a", "b"] };

export interface Words {
  readonly seq: number;
  readonly acked: number;
  readonly want: number;
  readonly alone: boolean;
  readonly ending: boolean;
  readonly onlyFree: boolean;
  readonly results: readonly Result[];
}

export interface Result {
  readonly task: number;
  readonly attempt: number;
  readonly outcome: "SUCCESS" | "FAILURE" | "CANCELLED" | "RELEASED";
}

export interface Row {
  slot: number;
  release: string;
  epoch: number;
  seq: number;
  claimedSeq: number;
  holdsSuspect: boolean;
  ranSuspect: boolean;
  seenAt: number;
  seenSince: number;
  ended: boolean;
  expired: boolean;
  claimed: number;
  succeeded: number;
  failed: number;
  rescued: number;
  stale: number;
}

export interface Task {
  readonly id: number;
  readonly identifier: string;
  readonly maxAttempts: number;
  due: number;
  holder: number | undefined;
  claimSeq: number;
  attempt: number;
  forgiven: number;
  suspectSince: number | undefined;
}

export interface Told {
  readonly status: "ok" | "gone" | "old" | "seat_taken";
  readonly newest?: boolean;
  readonly rescued?: number;
  readonly tasks: readonly (readonly [id: number, attempt: number, suspect: boolean])[];
}

const nothing = (status: Told["status"]): Told => ({ status, tasks: [] });

export class World {
  now = 0;
  enqueued = 0;
  readonly rows = new Map<number, Row>();
  readonly seats = new Map<number, { epoch: number; holder: number | undefined }>();
  readonly tasks = new Map<number, Task>();
  readonly outOfAttempts = new Map<number, "FAILED" | "CANCELLED">();
  readonly runs: string[] = [];
  succeeded = 0;

  /** Time that passes between any two events. */
  tick(): void {
    this.now += 0.001;
  }

  enqueue(identifier: string, count: number, maxAttempts: number): void {
    for (let n = 0; n < count; n += 1) {
      this.tick();
      this.enqueued += 1;
      this.tasks.set(this.enqueued, {
        id: this.enqueued,
        identifier,
        maxAttempts,
        due: this.now,
        holder: undefined,
        claimSeq: 0,
        attempt: 0,
        forgiven: 0,
        suspectSince: undefined,
      });
    }
  }

  exchange(me: number, slot: number, release: string, words: Words): Told {
    this.tick();
    const row = this.rows.get(me) ?? this.#sit(me, slot, release, words);
    if (typeof row === "string") return nothing(row);
    if (row.ended || row.expired) return nothing("gone");
    if (words.seq < row.seq) return nothing("old");
    const isNew = words.seq > row.seq;
    const seat = this.seats.get(slot)!;
    const newest = seat.holder === me && seat.epoch === row.epoch;
    if (this.now - row.seenAt > GRACE_MS / 2) row.seenSince = this.now;
    let rescued = 0;
    if (isNew) {
      for (const result of words.results) this.#record(me, row, result);
      if (this.heldBy(me).length === 0) row.holdsSuspect = false;
      if (this.now - row.seenSince >= GRACE_MS / 4) rescued = this.#expire(me);
      row.rescued += rescued;
      if (newest && !words.ending && words.want > 0) this.#claim(me, row, words);
      if (words.ending) this.#end(me, row);
    }
    row.seq = words.seq;
    row.seenAt = this.now;
    const told = this.heldBy(me).filter((task) => task.claimSeq > words.acked);
    return {
      status: "ok",
      newest,
      rescued,
      tasks: told.map((task) => [task.id, task.attempt, task.suspectSince !== undefined] as const),
    };
  }

  heldBy(me: number): Task[] {
    return [...this.tasks.values()].filter((task) => task.holder === me).sort(byDue);
  }

  #sit(me: number, slot: number, release: string, { seq, onlyFree }: Words): Row | "gone" | "seat_taken" {
    if (seq !== 1) return "gone";
    const seat = this.seats.get(slot) ?? { epoch: 0, holder: undefined };
    this.seats.set(slot, seat);
    const holder = seat.holder === undefined ? undefined : this.rows.get(seat.holder);
    if (onlyFree && holder !== undefined && !holder.ended && !holder.expired) return "seat_taken";
    seat.epoch += 1;
    seat.holder = me;
    const counts = { claimed: 0, succeeded: 0, failed: 0, rescued: 0, stale: 0 };
    const row = {
      slot,
      release,
      epoch: seat.epoch,
      seq: 0,
      claimedSeq: 0,
      holdsSuspect: false,
      ranSuspect: false,
      ended: false,
      expired: false,
    };
    this.rows.set(me, { ...row, ...counts, seenAt: this.now, seenSince: this.now });
    return this.rows.get(me)!;
  }

  #record(me: number, row: Row, { task: id, attempt, outcome }: Result): void {
    const task = this.tasks.get(id);
    if (task === undefined || task.holder !== me || task.attempt !== attempt) {
      row.stale += 1;
      return;
    }
    if (outcome === "RELEASED") {
      task.forgiven += 1;
      free(task);
      return;
    }
    if (outcome === "SUCCESS") {
      row.succeeded += 1;
      this.succeeded += 1;
      this.tasks.delete(id);
      this.#ran(task, "SUCCESS", "SUCCEEDED");
      return;
    }
    row.failed += 1;
    if (outcome === "CANCELLED" || task.attempt - task.forgiven >= task.maxAttempts) {
      this.#giveUp(task, outcome === "CANCELLED" ? "CANCELLED" : "FAILED");
      return;
    }
    this.#ran(task, "FAILURE");
    task.suspectSince = undefined;
    task.due = this.now;
    free(task);
  }

  #giveUp(task: Task, outcome: "FAILED" | "CANCELLED"): void {
    this.tasks.delete(task.id);
    this.outOfAttempts.set(task.id, outcome);
    this.#ran(task, "FAILURE", outcome);
  }

  #ran(task: Task, result: string, outcome = ""): void {
    this.runs.push(`${task.id} ${task.attempt} ${result} ${outcome}`);
  }

  #expire(me: number): number {
    let rescued = 0;
    for (const [other, row] of this.rows) {
      if (other === me || row.ended || row.expired || this.now - row.seenAt <= GRACE_MS) continue;
      row.expired = true;
      row.holdsSuspect = false;
      const lost = this.heldBy(other);
      for (const task of lost) {
        rescued += 1;
        const forgiven = task.suspectSince === undefined && lost.length > 1 ? 1 : 0;
        if (task.attempt - task.forgiven - forgiven >= task.maxAttempts) {
          this.#giveUp(task, "FAILED");
          continue;
        }
        this.#ran(task, "FAILURE");
        task.forgiven += forgiven;
        task.suspectSince = this.now;
        free(task);
      }
    }
    return rescued;
  }

  #claim(me: number, row: Row, { want, alone, seq, acked }: Words): void {
    const held = this.heldBy(me).length;
    if (held > 0 && row.claimedSeq > acked) return;
    const due = [...this.tasks.values()].filter(
      (task) => task.holder === undefined && RELEASES[row.release]!.includes(task.identifier),
    );
    const starves = (task: Task): boolean => this.now - Math.max(task.due, task.suspectSince!) > GRACE_MS;
    const plain = due.filter((task) => task.suspectSince === undefined).sort(byDue);
    const suspect = due
      .filter((task) => task.suspectSince !== undefined)
      .sort((a, b) => Number(starves(b)) - Number(starves(a)) || byDue(a, b))[0];
    const isNext =
      suspect !== undefined && (starves(suspect) || plain[0] === undefined || byDue(suspect, plain[0]) < 0);
    let taken: Task[] = [];
    if (isNext && held === 0 && alone && !row.ranSuspect) {
      taken = [suspect];
      row.holdsSuspect = true;
      row.ranSuspect = true;
    } else if (!row.holdsSuspect && !(suspect !== undefined && starves(suspect) && held > 0 && !row.ranSuspect)) {
      taken = plain.slice(0, want);
      row.ranSuspect = false;
    }
    for (const task of taken) {
      task.holder = me;
      task.claimSeq = seq;
      task.attempt += 1;
      row.claimed += 1;
      row.claimedSeq = seq;
    }
  }

  #end(me: number, row: Row): void {
    for (const task of this.heldBy(me)) {
      task.forgiven += 1;
      free(task);
    }
    const seat = this.seats.get(row.slot)!;
    if (seat.holder === me && seat.epoch === row.epoch) seat.holder = undefined;
    row.ended = true;
  }
}

function free(task: Task): void {
  task.holder = undefined;
  task.claimSeq = 0;
}

function byDue(a: Task, b: Task): number {
  return a.due - b.due || a.id - b.id;
}
