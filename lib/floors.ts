import type { ClaimedTask, Floor } from "./messages.ts";

/** A full scan at least so often, while it costs little: a task whose producer committed late may lie below the floor. */
const FULL_SCAN_MS = 1000;
/** Dear ones, past the dead entries that an old snapshot keeps, take at most a twentieth of the time, and come so often all the same. */
const SHARE = 20;
const RAREST_SCAN_MS = 15_000;

/**
 * Per identifier and priority the (due time, id) last claimed: spares the next claim the dead index entries before it, which an old
 * snapshot keeps. None once a second, less often where that costs much, and after an empty claim.
 */
export class Floors {
  readonly #floors = new Map<string, Floor>();
  #fullScanAt = Number.NEGATIVE_INFINITY;
  #everyMs = FULL_SCAN_MS;
  #sentAt = 0;
  #isFull = true;
  /** Of an exchange with floors, of late. */
  #meanMs: number | undefined;

  forNext(): Floor[] {
    this.#sentAt = performance.now();
    if (this.#sentAt - this.#fullScanAt >= this.#everyMs) this.#floors.clear();
    this.#isFull = this.#floors.size === 0;
    if (this.#isFull) this.#fullScanAt = this.#sentAt;
    return [...this.#floors.values()];
  }

  /** What the exchange claimed for which forNext gave the floors. */
  learn(claimed: readonly ClaimedTask[]): void {
    this.#time(performance.now() - this.#sentAt);
    if (claimed.length === 0) this.#floors.clear();
    // In the order priority, due time, id: the last of each pair stays.
    for (const { identifier, priority, scheduledFor: due, id, suspect } of claimed) {
      if (!suspect) this.#floors.set(`${priority} ${identifier}`, { identifier, priority, due, id });
    }
  }

  #time(tookMs: number): void {
    if (!this.#isFull) this.#meanMs = (this.#meanMs ?? tookMs) + (tookMs - (this.#meanMs ?? tookMs)) / 8;
    else if (this.#meanMs !== undefined)
      this.#everyMs = Math.min(RAREST_SCAN_MS, Math.max(FULL_SCAN_MS, SHARE * (tookMs - this.#meanMs)));
  }
}
