/** Lambda's execution environments that are idle: the one used last is taken first, and one that is idle for long goes. */
export class Environments {
  readonly #idleMs: number;
  /** When each was last used, oldest first. */
  readonly #lastUsed: number[] = [];

  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  /** False when there is none, and one must be made. */
  take(now: number): boolean {
    while (this.#lastUsed.length > 0 && this.#lastUsed[0]! < now - this.#idleMs) this.#lastUsed.shift();
    return this.#lastUsed.pop() !== undefined;
  }

  giveBack(now: number): void {
    this.#lastUsed.push(now);
  }
}
