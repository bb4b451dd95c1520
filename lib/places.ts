/** Where attempts run: as many at a time as the queue pop size, shared by all databases. */
export class Places {
  readonly size: number;
  readonly #waiting = new Set<() => void>();
  #taken = 0;
  #reserved = 0;
  #ahead = 0;
  #alone = false;
  #meanRunMs = 0;
  #left = 0;
  #turnedAt = performance.now();
  #turnMs = Number.POSITIVE_INFINITY;

  constructor(size: number) {
    this.size = size;
  }

  /** None while a suspect runs, or is being asked for. */
  get free(): number {
    return this.#alone ? 0 : Math.max(0, this.size - this.#taken - this.#reserved);
  }

  get idle(): boolean {
    return this.#taken === 0 && this.#reserved === 0 && this.#ahead === 0;
  }

  /** Mean run time of late, in milliseconds. */
  get meanRunMs(): number {
    return this.#meanRunMs;
  }

  /** In how many milliseconds all places are left once, as they were of late: as many runs end as there are places. */
  get turnMs(): number {
    return Math.max(this.#turnMs, performance.now() - this.#turnedAt);
  }

  /** How many will be left in so many milliseconds; 0 where it is not for one database to say, or while a suspect runs. */
  leavingWithin(ms: number): number {
    if (this.#waiting.size > 1 || this.#alone || this.#taken === 0) return 0;
    return (this.size * ms) / this.turnMs;
  }

  /** Keeps places for what an exchange in flight may bring, what has no place yet among it; give them back with the answer. */
  reserve(want: number): () => void {
    const places = Math.min(want, this.free);
    this.#reserved += places;
    this.#ahead += want - places;
    return () => {
      this.#reserved -= places;
      this.#ahead -= want - places;
      // Another database may have found none free; what this one's answer brought takes its own first.
      if (places > 0 && this.#waiting.size > 1) queueMicrotask(() => this.#tellFree());
    };
  }

  enter(suspect: boolean): void {
    this.#taken += 1;
    this.#alone ||= suspect;
  }

  leave(runMs: number): void {
    this.#taken -= 1;
    if (this.#taken === 0) this.#alone = false;
    this.#meanRunMs += (runMs - this.#meanRunMs) / 8;
    this.#left += 1;
    if (this.#left === this.size) {
      const now = performance.now();
      this.#turnMs = now - this.#turnedAt;
      this.#turnedAt = now;
      this.#left = 0;
    }
    this.#tellFree();
  }

  #tellFree(): void {
    for (const wake of this.#waiting) wake();
  }

  /** Calls back whenever a place may have become free. */
  onFree(wake: () => void): () => void {
    this.#waiting.add(wake);
    return () => this.#waiting.delete(wake);
  }
}
