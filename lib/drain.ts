/** What an invocation does with one database: exchange when there is a reason to, start what was claimed, leave in order. */
import { Ahead } from "./ahead.ts";
import type { Database } from "./database/port.ts";
import { Floors } from "./floors.ts";
import { handIn } from "./hand-in.ts";
import { Lease, LeaseOver } from "./lease.ts";
import type { Log } from "./log.ts";
import type { Answer } from "./messages.ts";
import { Pace } from "./pace.ts";
import type { Places } from "./places.ts";
import { Schedules } from "./recurring-scheduler.ts";
import { Runs } from "./runs.ts";
import type { Sample } from "./sample.ts";
import type { Holder, Suspects } from "./suspects.ts";
import { Waking } from "./wake.ts";
import type { InvocationOptions, LeaveReason } from "./worker.ts";

interface DrainOptions extends Omit<InvocationOptions, "databases"> {
  readonly database: Database;
  /** Recurring tasks live in one database only. */
  readonly recurring: boolean;
  readonly places: Places;
  readonly suspects: Suspects;
  readonly pickUps: Sample;
  readonly invocationId: string;
  readonly reserveMs: number;
  readonly log: Log;
}

export class Drain implements Holder {
  readonly #options: DrainOptions;
  readonly #lease: Lease;
  readonly #floors = new Floors();
  readonly #abort = new AbortController();
  readonly #runs: Runs;
  readonly #ahead: Ahead;
  readonly #pace: Pace;
  readonly #waking: Waking;
  readonly #schedules: Schedules;
  #leaving: LeaveReason | undefined;
  #stoppedAt = 0;
  #supersededAt: number | undefined;
  #worked = false;
  /** An exchange is under way that may bring tasks, or hands in results. */
  #exchanging = false;
  answer: Answer | undefined;
  left: LeaveReason = "nothing_due";
  rescued = 0;

  constructor(options: DrainOptions) {
    this.#options = options;
    this.#waking = new Waking(options.wake, options.log);
    this.#schedules = new Schedules(options);
    this.#lease = new Lease({ ...options, onlyFree: options.onlyFree ?? false, graceMs: options.settings.graceMs });
    this.#runs = new Runs({
      ...options,
      lease: this.#lease,
      signal: this.#abort.signal,
      onResult: () => {
        this.#pace.wake();
        options.suspects.changed();
      },
    });
    this.#ahead = new Ahead({ ...options, runs: this.#runs, alone: () => options.suspects.isAlone(this) });
    const free = (): number => (options.suspects.mayClaim(this) ? options.places.free : 0);
    this.#pace = new Pace({ ...options, free, runs: this.#runs, ahead: this.#ahead });
  }

  get requests(): number {
    return this.#lease.requests;
  }

  get busy(): boolean {
    return this.#runs.running > 0 || this.#ahead.waiting > 0;
  }

  get holds(): boolean {
    return this.busy || this.#runs.results > 0 || this.#exchanging;
  }

  wake(): void {
    this.#ahead.start();
    this.#pace.wake();
  }

  async run(): Promise<void> {
    const { places, suspects, signal } = this.#options;
    const wake = (): void => this.#pace.wake();
    const onLost = (): void => {
      this.#abort.abort(this.#lease.lost.reason);
      wake();
    };
    const offFree = places.onFree(() => this.wake());
    const offSuspects = suspects.join(this);
    const offBell = this.#options.bell?.onRing({ idle: () => this.#pace.idle, hear: () => this.#pace.ring() });
    signal?.addEventListener("abort", wake);
    this.#lease.lost.addEventListener("abort", onLost, { once: true });
    try {
      while (!(await this.#step())) {}
    } catch (error) {
      this.#abort.abort(error);
      if (!(error instanceof LeaseOver)) throw error;
      if (error.ending === "ended") this.left = this.#leaving ?? "nothing_due";
      if (error.ending === "lost") this.left = "lease_lost";
      if (error.ending === "seat_taken") this.left = "seat_taken";
    } finally {
      // What still waits when a lease is lost never starts.
      this.#ahead.giveBack("all");
      suspects.starve(this, false);
      await this.#runs.settled();
      offFree();
      offSuspects();
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
    if (!(await this.#exchange(ending))) return false;
    this.left = this.#leaving!;
    return true;
  }

  #decideToLeave(): void {
    const { signal, remainingMs, reserveMs, settings } = this.#options;
    if (this.#leaving === undefined) {
      if (signal?.aborted) this.#leaving = "stopped";
      else if (remainingMs !== undefined && remainingMs() < reserveMs) this.#leaving = "out_of_time";
      else if (this.answer?.newest === false && !this.#watches()) this.#leaving = "superseded";
      else if (this.#isDone()) this.#leaving = "nothing_due";
      if (this.#leaving !== undefined) {
        this.#stoppedAt = performance.now();
        this.#ahead.giveBack("all");
        this.#options.suspects.starve(this, false);
      }
    }
    const outOfTime = remainingMs !== undefined && remainingMs() < reserveMs / 2;
    const stopping = this.#leaving === "stopped" && performance.now() - this.#stoppedAt > settings.graceMs / 2;
    if ((outOfTime || stopping) && this.#runs.running > 0) this.#abort.abort(new Error("The invocation must leave."));
  }

  /** Superseded, it stays while somebody may be dying: its successor is no witness for a quarter of the grace period. */
  #watches(): boolean {
    this.#supersededAt ??= performance.now();
    return this.answer?.fading === true && performance.now() - this.#supersededAt < this.#options.settings.graceMs / 2;
  }

  /** A visitor leaves after an empty full scan; one that saw somebody silent stays until it may call that one silent. */
  #isDone(): boolean {
    const { resident, places, settings } = this.#options;
    if (resident || this.answer === undefined || this.#runs.results > 0 || this.#runs.running > 0 || !places.idle)
      return false;
    if (this.answer.more || this.answer.tasks.length > 0 || this.#pace.hungry || this.#pace.lingers) return false;
    return !this.answer.silent || this.#pace.elapsedMs > settings.graceMs / 2;
  }

  #dueInMs(): number {
    return this.#pace.dueInMs(this.answer, this.#leaving !== undefined);
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
    await this.#pace.sleep(dueInMs);
  }

  /** True where it was the end: what does not fit into one request is handed in before it. */
  async #exchange(leaves: boolean): Promise<boolean> {
    const { places, suspects, remainingMs, reserveMs, signal, log, recurring } = this.#options;
    const barred = !suspects.mayClaim(this);
    const want = this.#leaving !== undefined || barred ? 0 : places.free + this.#ahead.wanted(this.#pace.aheadMs);
    const alone = !this.busy && suspects.isAlone(this);
    const giveBack = places.reserve(want);
    this.#ahead.giveBack("late");
    const results = this.#runs.takeResults();
    const ending = leaves && this.#runs.results === 0;
    const floors = this.#floors.forNext();
    const progress = this.#runs.takeProgress();
    this.#exchanging = want > 0 || results.length > 0;
    this.#pace.sent(want);
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
      this.#pace.heard();
      if (!this.#worked && (answer.tasks.length > 0 || answer.silent)) {
        this.#worked = true;
        await this.#options.beforeWork?.();
      }
    } finally {
      giveBack();
      this.#exchanging = false;
    }
    this.answer = answer;
    if (answer.firstOfLease) log.info("took its slot", { epoch: answer.epoch });
    this.rescued += answer.rescued;
    this.#floors.learn(answer.tasks);
    // Look again at once: after a claim that left more behind or may have, and without the floor when the floor found nothing.
    // Who had no place to ask for knows no more than before.
    this.#pace.hungry =
      answer.tasks.length > 0
        ? answer.more || answer.repeated || !this.#options.resident
        : answer.starves || barred || (want > 0 ? floors.length > 0 || answer.repeated : this.#pace.hungry);
    if (answer.more && answer.tasks.length > 0) this.#options.bell?.ring();
    this.#waking.call(answer.wake ?? []);
    if (answer.tasks.some(({ suspect }) => suspect)) suspects.took(this);
    this.#ahead.take(answer.tasks);
    if (want > 0) suspects.starve(this, answer.starves);
    this.#ahead.cancel(answer.cancelling ?? []);
    this.#runs.cancel(answer.cancelling ?? []);
    suspects.changed();
    if (!ending && recurring && (await this.#schedules.advance(answer)) > 0) this.#pace.hungry = true;
    return ending;
  }
}
