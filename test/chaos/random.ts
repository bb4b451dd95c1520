export interface Deal<K extends string> {
  next(): K;
  /** That have not come yet. */
  readonly left: number;
}

/** A seeded source of choices (mulberry32). The choices repeat with the seed; the machine's timing does not. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to, not including, 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  between(least: number, most: number): number {
    return least + this.next() * (most - least);
  }

  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  pick<T>(of: readonly T[]): T {
    return of[this.below(of.length)]!;
  }

  /** One by weight. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const entries = Object.entries<number>(weights) as [K, number][];
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [key, weight] of entries) {
      left -= weight;
      if (left < 0) return key;
    }
    return entries.at(-1)![0];
  }

  /** Each that has a weight once, in any order, and then by weight: a short run has what is rare, too. */
  deal<K extends string>(weights: Readonly<Record<K, number>>): Deal<K> {
    const first = (Object.keys(weights) as K[]).filter((key) => weights[key] > 0);
    return {
      next: () => (first.length > 0 ? first.splice(this.below(first.length), 1)[0]! : this.weighted(weights)),
      get left() {
        return first.length;
      },
    };
  }

  /** A source of its own for a part of the run, so that one part's number of choices does not shift another's. */
  fork(): Random {
    return new Random(Math.floor(this.next() * 4294967296));
  }
}
