/** What an invocation does with one database: exchange when there is a reason to, start what was claimed, leave in order. */
import type { Database } from "./database/port.ts";
import { Floors } from "./floors.ts";
import { handIn } from "./hand-in.ts";
import { Lease, LeaseOver } from "./lease.ts";
import type { Log } from "./log.ts";
import type { Answer } from "./messages.ts";
import type { Places } from "./places.ts";
import { advanceSchedules } from "./recurring-scheduler.ts";
import { Runs } from "./runs.ts";
import type { Sample } from "./sample.ts";
import { Waking } from "./wake.ts";
import type { InvocationOptions, LeaveReason } from "./worker.ts";

interface DrainOptions extends Omit<InvocationOptions, "databases"> {
  readonly database: Database;
  /** Recurring tasks live in one database only. */
  readonly recurring: boolean;
  readonly places: Places;
  readonly pickUps: Sample;
  readonly invocationId: string;
  readonly reserveMs: number;
  readonly log: Log;
}

/** Between two looks because of the bell: what is enqueued task by task comes a few at a time. */
const RUNG_MS = 10;
/** A result waits for company at most so long, and at most a twentieth of a mean run: no place stands empty for more. */
const LINGER_MS = 100;

export class Drain {
  readonly #options: DrainOptions;
  readonly #lease: Lease;
  readonly #floors = new Floors();
  readonly #abort = new AbortController();
  readonly #runs: Runs;
  readonly #waking: Waking;
  #lastSentAt = Number.NEGATIVE_INFINITY;
  #wake = (): void => {};
  #waiting = false;
  #leaving: LeaveReason | undefined;
  #stoppedAt = 0;
  #hungry = true;
  #rung = false;
  #worked = false;
  #startedAt = performance.now();
  answer: Answer | undefined;
  left: LeaveReason = "nothing_due";
  rescued = 0;

  constructor(options: DrainOptions) {
    this.#options = options;
    this.#waking = new Waking(options.wake, options.log);
    this.#lease = new Lease({ ...options, onlyFree: options.onlyFree ?? false, graceMs: options.settings.graceMs });
    this.#runs = new Runs({
      ...options,
      lease: this.#lease,
      signal: this.#abort.signal,
      onResult: () => this.#wake(),
    });
  }

  get requests(): number {
    return this.#lease.requests;
  }

  async run(): Promise<void> {
    const { places, signal } = this.#options;
    const wake = (): void => this.#wake();
    const onLost = (): void => {
      this.#abort.abort(this.#lease.lost.reason);
      wake();
    };
    const offFree = places.onFree(wake);
    const offBell = this.#options.bell?.onRing({
      idle: () => this.#waiting && places.free > 0,
      hear: () => {
        this.#rung = true;
        wake();
      },
    });
    signal?.addEventListener("abort", wake);
    this.#lease.lost.addEventListener("abort", onLost, { once: true });
    try {
      while (!(await this.#step())) {}
    } catch (error) {
      this.#abort.abort(error);
      await this.#runs.settled();
      if (!(error instanceof LeaseOver)) throw error;
      if (error.ending === "ended") this.left = this.#leaving ?? "nothing_due";
      if (error.ending === "lost") this.left = "lease_lost";
      if (error.ending === "seat_taken") this.left = "seat_taken";
    } finally {
      offFree();
      offBell?.();
      signal?.removeEventListener("abort", wake);
      this.#lease.close();
      await this.#waking.settled();
    }
  }

  /** Waits for a reason, exchanges once. True at the end. */
  async #step(): Promise<boolean> {
    this.#decideToLeave();
    await this.#untilDue();
    this.#decideToLeave();
    const ending = this.#leaving !== undefined && this.#runs.running === 0;
    if (this.#dueInMs() > 0 && !ending) return false;
    await this.#exchange(ending);
    if (!ending) return false;
    this.left = this.#leaving!;
    return true;
  }

  #decideToLeave(): void {
    const { signal, remainingMs, reserveMs, settings } = this.#options;
    if (this.#leaving === undefined) {
      if (signal?.aborted) this.#leaving = "stopped";
      else if (remainingMs !== undefined && remainingMs() < reserveMs) this.#leaving = "out_of_time";
      else if (this.answer?.newest === false) this.#leaving = "superseded";
      else if (this.#isDone()) this.#leaving = "nothing_due";
      if (this.#leaving !== undefined) this.#stoppedAt = performance.now();
    }
    const outOfTime = remainingMs !== undefined && remainingMs() < reserveMs / 2;
    const stopping = this.#leaving === "stopped" && performance.now() - this.#stoppedAt > settings.graceMs / 2;
    if ((outOfTime || stopping) && this.#runs.running > 0) this.#abort.abort(new Error("The invocation must leave."));
  }

  /** A visitor leaves after an empty full scan; one that saw somebody silent stays until it may call that one silent. */
  #isDone(): boolean {
    const { resident, places, settings } = this.#options;
    if (resident || this.answer === undefined || this.#runs.results > 0 || this.#runs.running > 0 || !places.idle)
      return false;
    if (this.answer.more || this.answer.tasks.length > 0 || this.#hungry || this.#lingers) return false;
    return !this.answer.silent || performance.now() - this.#startedAt > settings.graceMs / 2;
  }

  get #lingers(): boolean {
    return this.#lastSentAt - this.#startedAt < (this.#options.lingerMs ?? 0);
  }

  /** Milliseconds until the next exchange is due; 0 or less: now. */
  #dueInMs(): number {
    const { places, settings } = this.#options;
    if (this.answer === undefined) return 0;
    const now = performance.now();
    const reasons = [this.#lastSentAt + settings.graceMs / 4 - now];
    if (this.#runs.results > 0) {
      const lingerMs = this.#runs.running === 0 ? 0 : Math.min(LINGER_MS, places.meanRunMs / 20);
      reasons.push(this.#runs.firstResultAt + lingerMs - now);
    }
    if (this.#leaving !== undefined) {
      if (this.#runs.running === 0) reasons.push(0);
    } else if (places.free > 0) {
      const pauseMs = this.#hungry ? 0 : this.#rung ? RUNG_MS : this.#pollMs();
      reasons.push(this.#lastSentAt + pauseMs - now);
    }
    return Math.min(...reasons);
  }

  #pollMs(): number {
    const { resident, settings, lingerMs = 0 } = this.#options;
    if (this.#lingers) return Math.min(settings.sleepIntervalMs, lingerMs / 3);
    // A visitor that stays only as a witness looks again when it may be one.
    return !resident && this.answer?.silent ? settings.graceMs / 8 : settings.sleepIntervalMs;
  }

  async #untilDue(): Promise<void> {
    const { remainingMs, reserveMs } = this.#options;
    let dueInMs = this.#dueInMs();
    if (dueInMs <= 0) return;
    if (remainingMs !== undefined)
      dueInMs = Math.min(
        dueInMs,
        Math.max(10, remainingMs() - (this.#leaving === undefined ? reserveMs : reserveMs / 2)),
      );
    this.#waiting = true;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(dueInMs, 2 ** 31 - 1));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#waiting = false;
    this.#wake = () => {};
  }

  async #exchange(ending: boolean): Promise<void> {
    const { places, remainingMs, reserveMs, signal, database, registry, log, recurring } = this.#options;
    const want = this.#leaving === undefined ? places.free : 0;
    const alone = this.#runs.running === 0 && places.idle;
    const giveBack = places.reserve(want);
    const results = this.#runs.takeResults();
    const floors = this.#floors.forNext();
    const progress = this.#runs.takeProgress();
    if (want > 0) this.#rung = false;
    this.#lastSentAt = performance.now();
    let answer: Answer;
    try {
      const remaining = remainingMs === undefined ? null : remainingMs() - reserveMs;
      answer = await handIn(
        this.#lease,
        {
          want,
          alone,
          ending,
          remainingMs: remaining,
          floors,
          results,
          ...(progress.length > 0 && { progress }),
          ...(results.length > 0 && { metrics: this.#runs.counters.toJSON() }),
          ...this.#waking.request(),
        },
        signal,
      );
      if (!this.#worked && (answer.tasks.length > 0 || answer.silent)) {
        this.#worked = true;
        await this.#options.beforeWork?.();
      }
    } finally {
      giveBack();
    }
    this.answer = answer;
    if (answer.firstOfLease) this.#options.log.info("took its slot", { epoch: answer.epoch });
    this.rescued += answer.rescued;
    this.#floors.learn(answer.tasks);
    // Look again at once: after a claim that left more behind, and without the floor when the floor found nothing.
    this.#hungry = answer.tasks.length > 0 ? answer.more || !this.#options.resident : floors.length > 0 && want > 0;
    if (answer.more && answer.tasks.length > 0) this.#options.bell?.ring();
    this.#waking.call(answer.wake ?? []);
    for (const task of answer.tasks) this.#runs.start(task);
    this.#runs.cancel(answer.cancelling ?? []);
    if (!ending && recurring && (await advanceSchedules(database, registry, answer, log)) > 0) this.#hungry = true;
  }
}
