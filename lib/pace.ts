/** When an invocation's next exchange with one database is due, and the wait until then. */
import type { Ahead } from "./ahead.ts";
import type { Answer } from "./messages.ts";
import type { Places } from "./places.ts";
import type { Runs } from "./runs.ts";
import type { WorkerSettings } from "./worker.ts";

/** Between two looks because of the bell: what is enqueued task by task comes a few at a time. */
const RUNG_MS = 10;
/** A result waits for company at most so long, and at most a twentieth of a mean run. */
const LINGER_MS = 100;

interface PaceOptions {
  readonly places: Places;
  /** The places that this database may claim for. */
  readonly free: () => number;
  readonly runs: Runs;
  readonly ahead: Ahead;
  readonly settings: WorkerSettings;
  readonly resident: boolean;
  /** A visitor looks again until so long after its start, in milliseconds. */
  readonly lingerMs?: number;
}

export class Pace {
  readonly #options: PaceOptions;
  readonly #startedAt = performance.now();
  #lastSentAt = Number.NEGATIVE_INFINITY;
  #exchangeMs = 0;
  #asleep = false;
  #wake = (): void => {};
  #rung = false;
  /** Looks again as soon as a place is free. */
  hungry = true;

  constructor(options: PaceOptions) {
    this.#options = options;
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedAt;
  }

  get lingers(): boolean {
    return this.#lastSentAt - this.#startedAt < (this.#options.lingerMs ?? 0);
  }

  /** It waits, and could take something. */
  get idle(): boolean {
    return this.#asleep && this.#options.free() > 0;
  }

  /** Milliseconds from a sending to the answer after next: what is claimed now must fill the places until then. */
  get aheadMs(): number {
    return 2 * this.#exchangeMs + this.#companyMs;
  }

  ring(): void {
    this.#rung = true;
    this.wake();
  }

  sent(want: number): void {
    if (want > 0) this.#rung = false;
    this.#lastSentAt = performance.now();
  }

  heard(): void {
    this.#exchangeMs += (performance.now() - this.#lastSentAt - this.#exchangeMs) / 8;
  }

  /** Milliseconds until the next exchange is due; 0 or less: now. */
  dueInMs(answer: Answer | undefined, leaving: boolean): number {
    if (answer === undefined) return 0;
    const { free, runs, ahead, settings } = this.#options;
    const now = performance.now();
    const reasons = [this.#lastSentAt + settings.graceMs / 4 - now, ahead.lateInMs];
    if (runs.results > 0) reasons.push(runs.firstResultAt + (runs.running === 0 ? 0 : this.#companyMs) - now);
    if (leaving) {
      if (runs.running === 0) reasons.push(0);
    } else if (free() > 0) {
      const pauseMs = this.hungry ? 0 : this.#rung ? RUNG_MS : this.#pollMs(answer);
      reasons.push(this.#lastSentAt + pauseMs - now);
    }
    return Math.min(...reasons);
  }

  get #companyMs(): number {
    return Math.min(LINGER_MS, this.#options.places.meanRunMs / 20);
  }

  #pollMs(answer: Answer): number {
    const { resident, settings, lingerMs = 0 } = this.#options;
    if (this.lingers) return Math.min(settings.sleepIntervalMs, lingerMs / 3);
    // A visitor that stays only as a witness looks again when it may be one.
    return !resident && answer.silent ? settings.graceMs / 8 : settings.sleepIntervalMs;
  }

  /** Until something wakes it, at most so long. */
  async sleep(ms: number): Promise<void> {
    this.#asleep = true;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#asleep = false;
    this.#wake = () => {};
  }

  wake(): void {
    this.#wake();
  }
}
