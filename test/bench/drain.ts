import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { drainGraphile, GRAPHILE } from "./support/graphile.ts";
import { rounded, rounds } from "./support/measure.ts";
import { drainOurs } from "./support/ours.ts";
import { drainPgBoss, PG_BOSS } from "./support/pg-boss.ts";

export const about = `100,000 no-op tasks until none is left, ours with its run history, queue pop size 1000, over pg; tasks a second. Beside it ${GRAPHILE.batching.text}; ${PG_BOSS}.`;

export const targets: readonly Target[] = [
  { figure: "2 workers to the best peer, ratio", atLeast: 2 },
  { figure: "1 worker to the best peer, ratio", atLeast: 1.4 },
];

export const charted = ["ours, 2 workers", "ours, 1 worker", "graphile-worker", "pg-boss"];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const ours = (workers: number) => async (tasks: number) =>
      (await drainOurs(arena, { tasks, batch: 1000, workers, through: "pg" })).tasksPerSecond;
    const median = await rounds(
      {
        "ours, 2 workers": ours(2),
        "graphile-worker": (tasks) => drainGraphile(arena, tasks, "batching"),
        "ours, 1 worker": ours(1),
        "pg-boss": (tasks) => drainPgBoss(arena, tasks),
      },
      quick ? { tasks: 2_000, warmUp: 0, count: 1 } : { tasks: 100_000, warmUp: 20_000, count: 5 },
    );
    const best = Math.max(median["graphile-worker"], median["pg-boss"]);
    return {
      ...median,
      "2 workers to the best peer, ratio": rounded(median["ours, 2 workers"] / best, 2),
      "1 worker to the best peer, ratio": rounded(median["ours, 1 worker"] / best, 2),
    };
  });
