/** Where attempts run: as many at a time as the queue pop size, shared by all databases. */
export class Places {
  readonly #size: number;
  readonly #waiting = new Set<() => void>();
  #taken = 0;
  #reserved = 0;
  #alone = false;
  #meanRunMs = 0;

  constructor(size: number) {
    this.#size = size;
  }

  /** None while a suspect runs, or is being asked for. */
  get free(): number {
    return this.#alone ? 0 : Math.max(0, this.#size - this.#taken - this.#reserved);
  }

  get idle(): boolean {
    return this.#taken === 0 && this.#reserved === 0;
  }

  /** Mean run time of late, in milliseconds. */
  get meanRunMs(): number {
    return this.#meanRunMs;
  }

  /** Keeps places for what an exchange in flight may bring; give them back with the answer. */
  reserve(count: number): () => void {
    this.#reserved += count;
    return () => {
      this.#reserved -= count;
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
    for (const wake of this.#waiting) wake();
  }

  /** Calls back whenever a place becomes free. */
  onFree(wake: () => void): () => void {
    this.#waiting.add(wake);
    return () => this.#waiting.delete(wake);
  }
}
