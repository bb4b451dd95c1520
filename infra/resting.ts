/** Threads of a process that wait for their next look, and can be called earlier. */
import { pause } from "../lib/clock.ts";

export class Resting {
  readonly #called = new Set<(slot: number) => void>();

  get size(): number {
    return this.#called.size;
  }

  /** Resolves after `ms`, when the signal aborts, or with the slot it is called for. */
  async rest(ms: number, signal: AbortSignal): Promise<number | undefined> {
    const over = new AbortController();
    let slot: number | undefined;
    const call = (given: number): void => {
      slot = given;
      over.abort();
    };
    this.#called.add(call);
    await pause(ms, AbortSignal.any([signal, over.signal]));
    this.#called.delete(call);
    return slot;
  }

  /** Calls the one that has waited longest. */
  call(slot: number): void {
    const [call] = this.#called;
    if (call === undefined) throw new Error("No thread is idle.");
    this.#called.delete(call);
    call(slot);
  }
}
