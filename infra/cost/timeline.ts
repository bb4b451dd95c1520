/** What the simulation stands on: events in the order of their times, chance that repeats with its seed, and weighted percentiles. */

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly act: () => void;
}

/** Events by time in milliseconds; of one time, in the order in which they were asked for. A binary heap. */
export class Timeline {
  readonly #heap: Entry[] = [];
  #order = 0;
  now = 0;
  /** Events that have happened. */
  happened = 0;

  in(ms: number, act: () => void): void {
    this.#order += 1;
    const entry = { at: this.now + ms, order: this.#order, act };
    const heap = this.#heap;
    let place = heap.length;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (isBefore(heap[parent]!, entry)) break;
      heap[place] = heap[parent]!;
      place = parent;
    }
    heap[place] = entry;
  }

  /** Lets everything happen that is due before `untilMs`, unless it is stopped, and leaves the clock there. */
  run(untilMs: number, stopped: () => boolean = () => false): void {
    while (this.#heap.length > 0 && this.#heap[0]!.at < untilMs && !stopped()) {
      const next = this.#take();
      this.now = next.at;
      this.happened += 1;
      next.act();
    }
    if (!stopped()) this.now = untilMs;
  }

  #take(): Entry {
    const heap = this.#heap;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (isBefore(last, heap[child]!)) break;
      heap[place] = heap[child]!;
      place = child;
    }
    heap[place] = last;
    return first;
  }
}

const isBefore = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

/** mulberry32. A stream for each source of chance, so that one source's draws do not shift another's. */
export class Chance {
  #state: number;

  constructor(seed: number, stream: number) {
    this.#state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b)) >>> 0;
  }

  /** From 0 up to, not including, `below`. */
  next(below = 1): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296) * below;
  }

  /** How long until the next of what comes at random, once in `meanMs`. */
  wait(meanMs: number): number {
    return -Math.log(1 - this.next()) * meanMs;
  }
}

const STEP = Math.log(1.01);

/** Milliseconds by frequency, each kept to a hundredth of itself. */
export class Histogram {
  readonly #counts: number[] = [];
  total = 0;

  add(ms: number, count = 1): void {
    const place = Math.round(Math.log1p(ms) / STEP);
    this.#counts[place] = (this.#counts[place] ?? 0) + count;
    this.total += count;
  }

  merge(other: Histogram): void {
    other.#counts.forEach((count, place) => {
      this.#counts[place] = (this.#counts[place] ?? 0) + count;
    });
    this.total += other.total;
  }

  /** Milliseconds below which the share `q` lies; NaN when nothing was added. */
  quantile(q: number): number {
    let left = q * this.total;
    for (const [place, count = 0] of this.#counts.entries()) {
      left -= count;
      if (count > 0 && left <= 0) return Math.expm1(place * STEP);
    }
    return Number.NaN;
  }
}
