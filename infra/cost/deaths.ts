import type { Counts } from "./counts.ts";
import type { Chance, Timeline } from "./timeline.ts";

export interface KillOptions {
  readonly meanGapMs: number;
  /** No further one is killed while the tasks of so many wait to run again. */
  readonly atOnce: number;
  /** In all. */
  readonly most: number;
}

interface Around {
  readonly time: Timeline;
  readonly chance: Chance;
  readonly counts: Counts;
}

/** Who is to die, and which tasks of the dead have not started anew. */
export class Deaths {
  readonly #kills: KillOptions | undefined;
  readonly #around: Around;
  #victimWanted = false;
  /** By the moment of each death, how many of its tasks. */
  readonly #lost = new Map<number, number>();

  constructor(kills: KillOptions | undefined, around: Around) {
    this.#kills = kills;
    this.#around = around;
  }

  /** All have died that should, and what they held has started anew. */
  get over(): boolean {
    const kills = this.#kills;
    return kills !== undefined && this.#around.counts.kills >= kills.most && this.#lost.size === 0;
  }

  /** Wants a victim again and again; `provide` is called for each. */
  begin(provide: () => void): void {
    const kills = this.#kills;
    if (kills === undefined) return;
    const { time, chance, counts } = this.#around;
    time.in(chance.wait(kills.meanGapMs), () => {
      if (this.#lost.size < kills.atOnce && !this.#victimWanted && counts.kills < kills.most) {
        this.#victimWanted = true;
        provide();
      }
      this.begin(provide);
    });
  }

  /** Whether the one that asks is to die; asked by whoever starts tasks. */
  takeVictim(): boolean {
    const isWanted = this.#victimWanted;
    this.#victimWanted = false;
    return isWanted;
  }

  /** @param held tasks it held */
  happened(held: number): void {
    this.#around.counts.kills += 1;
    if (held > 0) this.#lost.set(this.#around.time.now, held);
  }

  /** A task of one that died then. */
  startedAnew(lostAt: number): void {
    const { time, counts } = this.#around;
    counts.rescue.add(time.now - lostAt);
    const left = (this.#lost.get(lostAt) ?? 1) - 1;
    if (left > 0) this.#lost.set(lostAt, left);
    else this.#lost.delete(lostAt);
  }
}
