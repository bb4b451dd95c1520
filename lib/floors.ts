import type { ClaimedTask, Floor } from "./messages.ts";

/** A full scan at least so often: a task whose producer committed late may lie below the floor. */
const FULL_SCAN_MS = 1000;

/**
 * Per identifier and priority the (due time, id) last claimed: spares the next claim the dead index entries before it, which an old
 * snapshot keeps. None once a second and after an empty claim.
 */
export class Floors {
  readonly #floors = new Map<string, Floor>();
  #fullScanAt = Number.NEGATIVE_INFINITY;

  forNext(): Floor[] {
    const now = performance.now();
    if (now - this.#fullScanAt >= FULL_SCAN_MS) this.#floors.clear();
    if (this.#floors.size === 0) this.#fullScanAt = now;
    return [...this.#floors.values()];
  }

  learn(claimed: readonly ClaimedTask[]): void {
    if (claimed.length === 0) this.#floors.clear();
    // In the order priority, due time, id: the last of each pair stays.
    for (const { identifier, priority, scheduledFor: due, id, suspect } of claimed) {
      if (!suspect) this.#floors.set(`${priority} ${identifier}`, { identifier, priority, due, id });
    }
  }
}
