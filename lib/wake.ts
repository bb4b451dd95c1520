/** Calling further invocations when more is due than one can take. What is called sits down only on a free seat, and calls nobody. */
import { codeOf } from "./errors.ts";
import type { Log } from "./log.ts";

export interface Wake {
  /** Seats 0 to slots - 1 may be called for. */
  readonly slots: number;
  /** As many could come if called now. Default: any number. */
  readonly most?: () => number;
  /** Calls an invocation for a free seat and does not wait for what it does. */
  readonly call: (slot: number) => Promise<unknown>;
}

/** How one invocation wakes others of one database: one at first, then twice as many as the last time. */
export class Waking {
  readonly #wake: Wake | undefined;
  readonly #log: Log;
  readonly #calls = new Set<Promise<void>>();
  #most = 1;

  constructor(wake: Wake | undefined, log: Log) {
    this.#wake = wake;
    this.#log = log;
  }

  /** What goes into the next exchange. */
  request(): { wake?: { slots: number; most: number } } {
    const most = Math.min(this.#most, this.#wake?.most?.() ?? Number.POSITIVE_INFINITY);
    return this.#wake === undefined || most < 1 ? {} : { wake: { slots: this.#wake.slots, most } };
  }

  /** A call that fails costs nobody a task: the seat is called for again after the grace period, and ticks come anyway. */
  call(slots: readonly number[]): void {
    if (this.#wake === undefined || slots.length === 0) return;
    this.#most = Math.min(1000, this.#most * 2);
    for (const slot of slots) {
      const call: Promise<void> = this.#wake
        .call(slot)
        .then(
          () => this.#log.info("woke a slot", { woken: slot }),
          (error: unknown) =>
            this.#log.warn("could not wake a slot", { woken: slot, code: codeOf(error), error: String(error) }),
        )
        .finally(() => this.#calls.delete(call));
      this.#calls.add(call);
    }
  }

  /** Nothing may be under way when a function returns: it is frozen. */
  async settled(): Promise<void> {
    await Promise.all(this.#calls);
  }
}
