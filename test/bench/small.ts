import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { drainGraphile, GRAPHILE } from "./support/graphile.ts";
import { rounded, rounds } from "./support/measure.ts";
import { drainOurs } from "./support/ours.ts";

export const about = `20,000 no-op tasks, queue pop size 10, two workers, over pg; tasks a second. Beside it ${GRAPHILE.plain.text}.`;

export const targets: readonly Target[] = [{ figure: "ratio", atLeast: 2 }];

export const charted = ["ours", "graphile-worker"];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const median = await rounds(
      {
        ours: async (tasks) => (await drainOurs(arena, { tasks, batch: 10, workers: 2, through: "pg" })).tasksPerSecond,
        "graphile-worker": async (tasks) => (await drainGraphile(arena, tasks, "plain")).tasksPerSecond,
      },
      quick ? { tasks: 1_000, warmUp: 0, count: 1 } : { tasks: 20_000, warmUp: 2_000, count: 5 },
    );
    return { ...median, ratio: rounded(median.ours / median["graphile-worker"], 2) };
  });
