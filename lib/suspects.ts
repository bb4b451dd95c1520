/** A suspect, a task whose holder was lost, runs alone in its process, whatever thread and database it comes from: the next loss counts against it. */

/** What one invocation has to do with one database. */
export interface Holder {
  /** Something runs, or waits for its start. */
  readonly busy: boolean;
  /** In the database's eyes it may hold something: what is busy, what has not been handed in yet, what an exchange under way may bring. */
  readonly holds: boolean;
  /** What it waits for may have come. */
  wake(): void;
}

/** One for a process. */
export class Suspects {
  readonly #holders = new Set<Holder>();
  readonly #starving = new Set<Holder>();
  /** Who got the last suspect: it has nothing else then. */
  #owner: Holder | undefined;

  /** Until what it returns is called. */
  join(holder: Holder): () => void {
    this.#holders.add(holder);
    return () => {
      this.#holders.delete(holder);
      this.starve(holder, false);
      this.changed();
    };
  }

  /** Nobody else in the process holds anything. */
  isAlone(holder: Holder): boolean {
    for (const other of this.#holders) if (other !== holder && other.holds) return false;
    return true;
  }

  /** Not beside a suspect that runs or waits; and while one starves, for those that have seen it alone, as soon as nothing is held in the process. */
  mayClaim(holder: Holder): boolean {
    if (this.#owner?.busy) return false;
    if (this.#starving.size === 0) return true;
    return this.#starving.has(holder) && !holder.busy && this.isAlone(holder);
  }

  /** Says whether this one knows of a suspect that has waited for too long for nothing else to run. */
  starve(holder: Holder, starves: boolean): void {
    if (starves) this.#starving.add(holder);
    else if (this.#starving.delete(holder)) this.#wake();
  }

  /** This one was given a suspect. */
  took(holder: Holder): void {
    this.#owner = holder;
  }

  /** Somebody may hold less than before. Costs nothing while there is no suspect. */
  changed(): void {
    if (this.#owner === undefined && this.#starving.size === 0) return;
    if (!this.#owner?.busy) this.#owner = undefined;
    this.#wake();
  }

  #wake(): void {
    for (const holder of this.#holders) holder.wake();
  }
}
