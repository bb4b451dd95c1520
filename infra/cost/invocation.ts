/** The simulation's invocation: when lib/drain.ts exchanges, what it takes and when it leaves, event by event. */
import type { Answer, Batch, Beat, Database } from "./database.ts";
import type { Timeline } from "./timeline.ts";
import type { Assumptions, Workload } from "./workload.ts";

/** As lib/tick.ts reads it of an event. */
export interface Seating {
  readonly slot: number;
  readonly resident: boolean;
  readonly onlyFree: boolean;
  readonly mayWake: boolean;
  readonly lingerMs: number;
}

export interface Surroundings {
  readonly workload: Workload;
  readonly assumptions: Assumptions;
  readonly time: Timeline;
  readonly database: Database;
  /** Calls an invocation for a free seat. */
  readonly call: (slot: number) => void;
  readonly onStarted: (batch: Batch) => void;
  /** As of lib/worker.ts: goes on when a dead man's call is under way. */
  readonly beforeWork?: (then: () => void) => void;
}

const LINGER_MS = 100;
const FULL_SCAN_MS = 1000;
/** Of a built-in schedule that is due: advance it, and what its handler asks. Its claim and result are an exchange each. */
const REQUESTS_OF_BUILT_IN = 4;

export class Invocation {
  readonly #around: Surroundings;
  readonly #seating: Seating;
  readonly #onLeft: (seatTaken: boolean) => void;
  readonly #beat: Beat;
  readonly #startedAt: number;
  #lastSentAt = Number.NEGATIVE_INFINITY;
  #fullScanAt = Number.NEGATIVE_INFINITY;
  #floors = false;
  #running = 0;
  #runsSuspect = false;
  #done: Batch[] = [];
  #firstResultAt = 0;
  #hungry = true;
  #wakeMost = 1;
  #leaving = false;
  #answer: Answer | undefined;
  #exchanges = 0;
  #worked = false;
  /** A wait that was cut short is not to happen once more. */
  #waits = 0;
  #waiting = false;
  over = false;

  constructor(around: Surroundings, seating: Seating, onLeft: (seatTaken: boolean) => void) {
    this.#around = around;
    this.#seating = seating;
    this.#onLeft = onLeft;
    this.#beat = around.database.newBeat(seating.slot);
    this.#startedAt = around.time.now;
    this.#step();
  }

  /** Tasks that it was given and of which the database has no result. */
  get holds(): number {
    return [...this.#beat.held].reduce((sum, { count }) => sum + count, 0);
  }

  die(): void {
    this.over = true;
    this.#around.database.die(this.#beat);
  }

  #step(): void {
    this.#decideToLeave();
    const ending = this.#leaving && this.#running === 0;
    const dueInMs = this.#dueInMs();
    if (dueInMs <= 0 || ending) this.#exchange(ending);
    else this.#wait(dueInMs);
  }

  #wait(ms: number): void {
    this.#waiting = true;
    this.#waits += 1;
    const wait = this.#waits;
    this.#around.time.in(ms, () => {
      if (this.#waits === wait) this.#wake();
    });
  }

  #wake(): void {
    if (!this.#waiting || this.over) return;
    this.#waiting = false;
    this.#waits += 1;
    this.#step();
  }

  #decideToLeave(): void {
    const { invocationMs } = this.#around.workload;
    if (this.#leaving || this.#answer === undefined) return;
    const remainingMs = invocationMs - this.#elapsedMs;
    this.#leaving = remainingMs < Math.min(10_000, invocationMs / 10) || !this.#answer.newest || this.#isDone();
  }

  #isDone(): boolean {
    const { silent, more, batch } = this.#answer!;
    if (this.#seating.resident || this.#done.length > 0 || this.#running > 0) return false;
    if (more || batch !== undefined || this.#hungry || this.#lingers) return false;
    return !silent || this.#elapsedMs > this.#around.workload.graceMs / 2;
  }

  get #elapsedMs(): number {
    return this.#around.time.now - this.#startedAt;
  }

  get #lingers(): boolean {
    return this.#lastSentAt - this.#startedAt < this.#seating.lingerMs;
  }

  get #free(): number {
    return this.#runsSuspect ? 0 : this.#around.workload.places - this.#running;
  }

  #dueInMs(): number {
    if (this.#answer === undefined) return 0;
    const { graceMs, taskMs } = this.#around.workload;
    const { now } = this.#around.time;
    const reasons = [this.#lastSentAt + graceMs / 4 - now];
    if (this.#done.length > 0) {
      const lingerMs = this.#running === 0 ? 0 : Math.min(LINGER_MS, taskMs / 20);
      reasons.push(this.#firstResultAt + lingerMs - now);
    }
    if (!this.#leaving && this.#free > 0) reasons.push(this.#hungry ? 0 : this.#lastSentAt + this.#pollMs() - now);
    return Math.min(...reasons);
  }

  #pollMs(): number {
    const { sleepIntervalMs, graceMs } = this.#around.workload;
    if (this.#lingers) return Math.min(sleepIntervalMs, this.#seating.lingerMs / 3);
    return !this.#seating.resident && this.#answer?.silent ? graceMs / 8 : sleepIntervalMs;
  }

  #exchange(ending: boolean): void {
    const { time, database } = this.#around;
    const { onlyFree, mayWake } = this.#seating;
    const want = this.#leaving ? 0 : this.#free;
    const done = this.#done;
    this.#done = [];
    if (time.now - this.#fullScanAt >= FULL_SCAN_MS) this.#floors = false;
    const floors = this.#floors;
    if (!floors) this.#fullScanAt = time.now;
    this.#lastSentAt = time.now;
    this.#exchanges += 1;
    const first = this.#exchanges === 1;
    const wakeMost = mayWake ? this.#wakeMost : 0;
    const answeredInMs = database.reach();
    const { requestMs } = this.#around.assumptions;
    time.in(answeredInMs - requestMs / 2, () => {
      if (this.over) return;
      const answer = database.exchange(this.#beat, { first, onlyFree, want, ending, done, wakeMost });
      time.in(requestMs / 2, () => {
        if (!this.over) this.#guard(answer, () => this.#hear(answer, ending, floors && want > 0));
      });
    });
  }

  #guard({ batch, silent, recurring }: Answer, then: () => void): void {
    const { beforeWork } = this.#around;
    if (this.#worked || beforeWork === undefined || (batch === undefined && !silent && !recurring)) {
      then();
      return;
    }
    this.#worked = true;
    beforeWork(() => {
      if (!this.over) then();
    });
  }

  #hear(answer: Answer, ending: boolean, foundBelowFloors: boolean): void {
    const { batch, wake, recurring } = answer;
    this.#answer = answer;
    if (ending || answer.status !== "ok") {
      this.over = true;
      this.#onLeft(answer.status === "seat_taken");
      return;
    }
    this.#floors = batch !== undefined && batch.lostAt === undefined;
    this.#hungry = batch !== undefined ? answer.more || !this.#seating.resident : foundBelowFloors;
    if (wake.length > 0) this.#wakeMost *= 2;
    for (const slot of wake) this.#around.call(slot);
    if (batch !== undefined) this.#start(batch);
    if (recurring) this.#fire();
    this.#step();
  }

  #fire(): void {
    for (let request = 0; request < REQUESTS_OF_BUILT_IN; request += 1) this.#around.database.reach();
    this.#hungry = true;
  }

  #start(batch: Batch): void {
    const { time, workload, onStarted } = this.#around;
    this.#running += batch.count;
    this.#runsSuspect = batch.lostAt !== undefined;
    onStarted(batch);
    time.in(workload.taskMs, () => {
      if (this.over) return;
      this.#running -= batch.count;
      if (this.#running === 0) this.#runsSuspect = false;
      if (this.#done.length === 0) this.#firstResultAt = time.now;
      this.#done.push(batch);
      this.#wake();
    });
  }
}
