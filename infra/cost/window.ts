/** A stretch of time under simulation: ticks with their jitter, losses and duplicates, tasks, bursts, wakes, deaths. */
import { letArrive } from "./arrivals.ts";
import { type Counts, noCounts } from "./counts.ts";
import { type Batch, Database } from "./database.ts";
import { Deaths, type KillOptions } from "./deaths.ts";
import { Environments } from "./environments.ts";
import { Invocation, type Seating } from "./invocation.ts";
import { Chance, Timeline } from "./timeline.ts";
import type { Assumptions, Workload } from "./workload.ts";

export interface WindowOptions {
  readonly workload: Workload;
  readonly assumptions: Assumptions;
  readonly seed: number;
  /** Nothing of it is counted. */
  readonly warmUpMs: number;
  readonly ms: number;
  /** It ends earlier when so many events have happened after the warm-up. */
  readonly events: number;
  /** Besides those of the assumptions: invocations are killed while they run a task, at times drawn at random. */
  readonly kills?: KillOptions;
}

const WAKE_EVERY_MS = 1000;
const WAKE_LINGER_MS = 1500;
const WAKE_ROUNDS = 3;

interface Living {
  readonly invocation: Invocation;
  readonly since: number;
}

export class Window {
  readonly #options: WindowOptions;
  readonly #time = new Timeline();
  readonly #database: Database;
  readonly #living = new Set<Living>();
  readonly #environments: Environments;
  readonly #ticks: Chance;
  readonly #faults: Chance;
  readonly #deaths: Deaths;
  readonly #counts = noCounts();
  #countedFrom = Number.POSITIVE_INFINITY;
  #wokeAt = Number.NEGATIVE_INFINITY;

  constructor(options: WindowOptions) {
    this.#options = options;
    this.#database = new Database(options.workload, options.assumptions, this.#time);
    this.#environments = new Environments(options.assumptions.environmentIdleMs);
    this.#ticks = new Chance(options.seed, 0);
    this.#faults = new Chance(options.seed, 3);
    this.#deaths = new Deaths(options.kills, { time: this.#time, chance: this.#faults, counts: this.#counts });
  }

  run(): Counts {
    const { workload, assumptions, seed, warmUpMs, ms, events } = this.#options;
    const { quiet, slots } = workload;
    for (let slot = 0; slot < (quiet ? 1 : slots); slot += 1) this.#tick(slot);
    letArrive(workload, assumptions, { time: this.#time, seed }, (count) => this.#store(count));
    this.#time.run(warmUpMs);
    this.#countedFrom = this.#time.now;
    this.#counts.requests = -this.#database.requests;
    this.#counts.awakeMs = -this.#database.awakeMs;
    // A task for the victim, should there be none.
    this.#deaths.begin(() => this.#store(1));
    const mostEvents = this.#time.happened + events;
    this.#time.run(warmUpMs + ms, () => this.#time.happened >= mostEvents || this.#deaths.over);
    return this.#end();
  }

  #end(): Counts {
    for (const living of this.#living) this.#bill(living);
    this.#counts.ms = this.#time.now - this.#countedFrom;
    this.#counts.requests += this.#database.requests;
    this.#counts.awakeMs += this.#database.awakeMs;
    this.#counts.waiting = this.#database.waiting;
    return this.#counts;
  }

  get #counting(): boolean {
    return this.#time.now >= this.#countedFrom;
  }

  #tick(slot: number): void {
    const { workload, assumptions } = this.#options;
    const seating = {
      slot,
      resident: slot < workload.residents,
      onlyFree: false,
      mayWake: true,
      lingerMs: 0,
    };
    const due = (): void => {
      this.#time.in(workload.tickMs, due);
      const copies = this.#ticks.next() < assumptions.doubledTicks ? 2 : 1;
      const lost = this.#ticks.next() < assumptions.lostTicks;
      const lateMs = this.#ticks.next(assumptions.jitterMs);
      if (this.#counting) this.#counts.ticks += 1;
      for (let copy = 0; copy < copies && !lost; copy += 1)
        this.#time.in(lateMs + copy * this.#ticks.next(1000), () => this.#invoke([seating]));
    };
    due();
  }

  /** A producer's insert; with a call afterwards, at most once a second, where nobody polls. */
  #store(count: number): void {
    const { quiet } = this.#options.workload;
    const { requestMs } = this.#options.assumptions;
    if (!quiet) {
      this.#database.store(count);
      return;
    }
    // The insert itself is no request of ours, yet it wakes a paused cluster and waits for it.
    const reachedInMs = this.#database.reach() - requestMs;
    this.#database.requests -= 1;
    this.#time.in(reachedInMs, () => {
      this.#database.store(count);
      if (this.#time.now - this.#wokeAt < WAKE_EVERY_MS) return;
      this.#wokeAt = this.#time.now;
      this.#invoke(this.#anySeat());
    });
  }

  #anySeat(): Seating[] {
    const round = Array.from({ length: this.#options.workload.slots }, (_, slot) => ({
      slot,
      resident: false,
      onlyFree: true,
      mayWake: true,
      lingerMs: WAKE_LINGER_MS,
    }));
    return Array.from({ length: round.length === 1 ? 1 : WAKE_ROUNDS }, () => round).flat();
  }

  /** Lambda is called: a handler runs that takes the first of these seats that it may have. */
  #invoke(seatings: readonly Seating[]): void {
    const { assumptions } = this.#options;
    const cold = !this.#environments.take(this.#time.now);
    this.#time.in(assumptions.startMs + (cold ? assumptions.coldStartMs : 0), () => {
      if (this.#counting) {
        this.#counts.invocations += 1;
        this.#counts.coldStarts += cold ? 1 : 0;
        this.#counts.billedMs += cold ? assumptions.coldStartMs : 0;
      }
      const since = this.#time.now;
      if (this.#options.workload.quiet) this.#arrange(true, () => this.#sit(seatings, 0, since));
      else this.#sit(seatings, 0, since);
    });
  }

  #sit(seatings: readonly Seating[], place: number, since: number): void {
    const { workload, assumptions } = this.#options;
    const leave = (living: Living): void => {
      this.#living.delete(living);
      this.#bill(living);
      this.#environments.giveBack(this.#time.now);
    };
    const onLeft = (seatTaken: boolean): void => {
      const next = place + 1;
      if (seatTaken && next < seatings.length) {
        this.#living.delete(living);
        this.#time.in(next % workload.slots === 0 ? WAKE_EVERY_MS / 2 : 0, () => this.#sit(seatings, next, since));
      } else if (workload.quiet) this.#arrange(false, () => leave(living));
      else leave(living);
    };
    const invocation: Invocation = new Invocation(
      {
        workload,
        assumptions,
        time: this.#time,
        database: this.#database,
        call: (slot) => this.#invoke([{ slot, resident: false, onlyFree: true, mayWake: false, lingerMs: 0 }]),
        onStarted: (batch) => this.#started(batch, living),
        ...(workload.quiet && { beforeWork: (then: () => void) => this.#arrange(false, then) }),
      },
      seatings[place]!,
      onLeft,
    );
    const living: Living = { invocation, since };
    this.#living.add(living);
    const diesInMs = this.#faults.wait(3_600_000 / assumptions.killsAnHour);
    if (diesInMs < workload.invocationMs) this.#time.in(diesInMs, () => this.#kill(living));
  }

  #started({ groups, count, lostAt }: Batch, living: Living): void {
    const { now } = this.#time;
    if (this.#counting) {
      if (lostAt === undefined) {
        this.#counts.tasks += count;
        for (const group of groups) this.#counts.pickUp.add(now - group.dueAt, group.count);
      } else this.#deaths.startedAnew(lostAt);
    }
    if (this.#deaths.takeVictim())
      this.#time.in(this.#faults.next(this.#options.workload.taskMs), () => this.#kill(living));
  }

  #kill(living: Living): void {
    if (!this.#living.delete(living) || living.invocation.over) return;
    this.#bill(living);
    living.invocation.die();
    if (this.#counting) this.#deaths.happened(living.invocation.holds);
  }

  #bill({ since }: Living): void {
    if (this.#counting) this.#counts.billedMs += this.#time.now - Math.max(since, this.#countedFrom);
  }

  /** Asks the database when somebody must look next, and has the queue call then. */
  #arrange(beginning: boolean, then: () => void): void {
    this.#time.in(this.#database.reach(), () => {
      const delayMs = this.#database.arrange(beginning);
      if (delayMs === undefined) {
        then();
        return;
      }
      if (this.#counting) this.#counts.queued += 1;
      this.#time.in(Math.ceil(delayMs / 1000) * 1000, () => this.#invoke(this.#anySeat()));
      this.#time.in(this.#options.assumptions.requestMs, then);
    });
  }
}
