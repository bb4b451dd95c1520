/** Breadth first through every state a model can reach, each kept whole: no state is taken for another. */
import type { Invariant, Model } from "./protocol.ts";

export interface Found {
  readonly states: number;
  readonly steps: number;
  /** Every reachable state was seen; else the limit on states or seconds ended the search. */
  readonly complete: boolean;
  readonly depth: number;
  readonly seconds: number;
  readonly broken?: Invariant;
  /** The shortest way to what is broken. */
  readonly trace: readonly string[];
}

export interface Limits {
  readonly states?: number;
  readonly seconds?: number;
}

const CHUNK = 1 << 16;

/** States as words of eight nibbles, with the number of the state each came from, found by an open hash table. */
class Store {
  readonly #words: number;
  readonly #size: number;
  readonly #chunks: Int32Array[] = [];
  #table = new Int32Array(1 << 16);
  readonly #packed: Int32Array;
  count = 0;

  constructor(size: number) {
    this.#size = size;
    this.#words = Math.ceil(size / 8) + 1;
    this.#packed = new Int32Array(this.#words);
  }

  /** True when it is new. */
  add(state: Uint8Array, parent: number): boolean {
    const packed = this.#packed;
    const words = this.#words - 1;
    for (let word = 0, k = 0; word < words; word += 1) {
      let bits = 0;
      for (let n = 0; n < 32 && k < this.#size; n += 4, k += 1) bits |= state[k]! << n;
      packed[word] = bits;
    }
    const mask = this.#table.length - 1;
    let place = hash(packed, 0, words) & mask;
    for (let id = this.#table[place]!; id > 0; place = (place + 1) & mask, id = this.#table[place]!)
      if (this.#equals(id - 1)) return false;
    if (this.count % CHUNK === 0) this.#chunks.push(new Int32Array(CHUNK * this.#words));
    packed[words] = parent;
    this.#chunks[this.#chunks.length - 1]!.set(packed, (this.count % CHUNK) * this.#words);
    this.count += 1;
    this.#table[place] = this.count;
    if (this.count * 2 > this.#table.length) this.#grow();
    return true;
  }

  read(id: number, state: Uint8Array): void {
    const chunk = this.#chunks[Math.floor(id / CHUNK)]!;
    const start = (id % CHUNK) * this.#words;
    for (let k = 0; k < this.#size; k += 1) state[k] = (chunk[start + (k >>> 3)]! >>> ((k & 7) * 4)) & 15;
  }

  parent(id: number): number {
    return this.#chunks[Math.floor(id / CHUNK)]![(id % CHUNK) * this.#words + this.#words - 1]!;
  }

  #equals(id: number): boolean {
    const chunk = this.#chunks[Math.floor(id / CHUNK)]!;
    const start = (id % CHUNK) * this.#words;
    for (let word = 0; word < this.#words - 1; word += 1) if (chunk[start + word] !== this.#packed[word]) return false;
    return true;
  }

  #grow(): void {
    this.#table = new Int32Array(this.#table.length * 2);
    const mask = this.#table.length - 1;
    for (let id = 0; id < this.count; id += 1) {
      const start = (id % CHUNK) * this.#words;
      let place = hash(this.#chunks[Math.floor(id / CHUNK)]!, start, start + this.#words - 1) & mask;
      while (this.#table[place]! > 0) place = (place + 1) & mask;
      this.#table[place] = id + 1;
    }
  }
}

function hash(words: Int32Array, start: number, end: number): number {
  let h = 0x9e3779b9;
  for (let k = start; k < end; k += 1) {
    h = Math.imul(h ^ words[k]!, 0x85ebca6b);
    h ^= h >>> 15;
  }
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

export function search(
  model: Model,
  { states: mostStates = 2 ** 30, seconds: mostSeconds = Number.POSITIVE_INFINITY }: Limits = {},
): Found {
  const startedAt = performance.now();
  const store = new Store(model.size);
  const state = model.initial();
  store.add(state, -1);
  let id = 0;
  let steps = 0;
  let depth = 0;
  let levelEnd = 1;
  let broken: Invariant | undefined;
  let complete = true;
  const emit = (invariant: Invariant | undefined): void => {
    steps += 1;
    if (broken !== undefined) return;
    const isNew = store.add(model.next, id);
    if (invariant === undefined) return;
    broken = invariant;
    // A step can break a rule and lead to a state seen before: the way ends with the step all the same.
    if (!isNew) complete = false;
  };
  for (; id < store.count && broken === undefined; id += 1) {
    if (id === levelEnd) {
      depth += 1;
      levelEnd = store.count;
    }
    if (store.count > mostStates || ((id & 4095) === 0 && performance.now() - startedAt > mostSeconds * 1000)) {
      complete = false;
      break;
    }
    store.read(id, state);
    model.successors(state, emit);
  }
  const found = { states: store.count, steps, depth, seconds: (performance.now() - startedAt) / 1000 };
  if (broken === undefined) return { ...found, complete, trace: [] };
  return { ...found, complete: false, broken, trace: traceTo(model, store, id - 1, broken) };
}

/** The way to the state, and the step from it that breaks the invariant, told from the start with names that stay. */
function traceTo(model: Model, store: Store, last: number, broken: Invariant): string[] {
  const way: Uint8Array[] = [];
  for (let id = last; id > 0; id = store.parent(id)) {
    const state = new Uint8Array(model.size);
    store.read(id, state);
    way.unshift(state);
  }
  const trace: string[] = [];
  let state = model.initial();
  const step = (wanted: (canonical: Uint8Array, invariant: Invariant | undefined) => boolean): void => {
    let taken: Uint8Array | undefined;
    model.telling = true;
    model.successors(state, (invariant) => {
      if (taken !== undefined) return;
      const canonical = model.next.slice();
      model.canonical(canonical);
      if (!wanted(canonical, invariant)) return;
      taken = model.next.slice();
      trace.push(model.label);
    });
    model.telling = false;
    if (taken === undefined) throw new Error("The way cannot be told again: canonical() merges states that differ.");
    state = taken;
  };
  for (const wanted of way) step((canonical, invariant) => invariant === undefined && isEqual(canonical, wanted));
  step((_, invariant) => invariant === broken);
  return trace;
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((nibble, k) => nibble === b[k]);
}
