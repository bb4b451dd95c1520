/** Rings where a producer that notifies has committed: one idle invocation of this process looks at once, before its next poll. */

interface Hearer {
  /** It waits, and has places free. */
  readonly idle: () => boolean;
  readonly hear: () => void;
}

export class Bell {
  readonly #hearers = new Set<Hearer>();

  /** The idle one that has not heard for longest; when all are busy, all: who has a place first looks. */
  ring(): void {
    for (const hearer of this.#hearers) {
      if (!hearer.idle()) continue;
      this.#hearers.delete(hearer);
      this.#hearers.add(hearer);
      hearer.hear();
      return;
    }
    for (const { hear } of this.#hearers) hear();
  }

  /** Until what it returns is called. */
  onRing(hearer: Hearer): () => void {
    this.#hearers.add(hearer);
    return () => {
      this.#hearers.delete(hearer);
    };
  }
}
