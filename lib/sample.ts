/** A bounded, uniform sample of many numbers (reservoir sampling, Vitter's algorithm R, 1985). */
export class Sample {
  readonly #size: number;
  #seen = 0;
  readonly values: number[] = [];

  /** @param size most values kept */
  constructor(size: number) {
    this.#size = size;
  }

  add(value: number): void {
    this.#seen += 1;
    if (this.values.length < this.#size) this.values.push(value);
    else {
      const place = Math.floor(Math.random() * this.#seen);
      if (place < this.#size) this.values[place] = value;
    }
  }
}
