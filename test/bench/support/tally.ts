/** Counts what ran, task by task: results are checked, not believed. */
export class Tally {
  readonly #who: string;
  readonly #ran: Uint8Array;
  readonly #stamps: number[] = [];
  #count = 0;
  #finish = (): void => {};
  /** Resolves when every task has run once. */
  readonly finished = new Promise<void>((resolve) => {
    this.#finish = resolve;
  });

  constructor(who: string, tasks: number) {
    this.#who = who;
    this.#ran = new Uint8Array(tasks);
  }

  get count(): number {
    return this.#count;
  }

  /** Task n, from 0, has run to its end. */
  run(n: number): void {
    this.#ran[n]! += 1;
    this.#count += 1;
    if (this.#count % (this.#ran.length / 10) === 0 || this.#count === 1) this.#stamps.push(performance.now());
    if (this.#count === this.#ran.length) this.#finish();
  }

  /** Tasks a second in each tenth of them. */
  tenths(): number[] {
    return this.#stamps.slice(1).map((at, place) => (this.#ran.length * 100) / (at - this.#stamps[place]!));
  }

  /** @throws Error naming a task that did not run exactly once */
  check(): void {
    const wrong = this.#ran.findIndex((times) => times !== 1);
    if (wrong >= 0)
      throw new Error(`${this.#who}: task ${wrong} of ${this.#ran.length} ran ${this.#ran[wrong]} times.`);
  }
}
