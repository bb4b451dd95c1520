import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { drainGraphile, GRAPHILE } from "./support/graphile.ts";
import { rounded, rounds } from "./support/measure.ts";
import { drainOurs } from "./support/ours.ts";
import { drainPgBoss, PG_BOSS } from "./support/pg-boss.ts";

export const about = `As drain and drain-data-api, where the statistics that Postgres plans by are of the empty table: 100,000 tasks at once into a queue that keeps up otherwise. Tasks a second. ${GRAPHILE.batching.text}; ${PG_BOSS}.`;

export const targets: readonly Target[] = [
  { figure: "2 workers to the best peer, ratio", atLeast: 2 },
  { figure: "1 worker to the best peer, ratio", atLeast: 1.4 },
  { figure: "2 workers, Data API, to the best peer, ratio", atLeast: 1.7 },
];

export const charted = ["ours, 2 workers", "ours, 1 worker", "graphile-worker", "pg-boss"];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const statistics = "of none";
    const ours = (workers: number, through: "pg" | "data-api") => async (tasks: number) =>
      (await drainOurs(arena, { tasks, batch: 1000, workers, through, statistics })).tasksPerSecond;
    const median = await rounds(
      {
        "ours, 2 workers": ours(2, "pg"),
        "graphile-worker": async (tasks) => (await drainGraphile(arena, tasks, "batching", statistics)).tasksPerSecond,
        "ours, 1 worker": ours(1, "pg"),
        "pg-boss": async (tasks) => (await drainPgBoss(arena, tasks, statistics)).tasksPerSecond,
        "ours, 2 workers, Data API": ours(2, "data-api"),
      },
      quick ? { tasks: 2_000, warmUp: 0, count: 1 } : { tasks: 100_000, warmUp: 20_000, count: 5 },
    );
    const best = Math.max(median["graphile-worker"], median["pg-boss"]);
    return {
      ...median,
      "2 workers to the best peer, ratio": rounded(median["ours, 2 workers"] / best, 2),
      "1 worker to the best peer, ratio": rounded(median["ours, 1 worker"] / best, 2),
      "2 workers, Data API, to the best peer, ratio": rounded(median["ours, 2 workers, Data API"] / best, 2),
    };
  });
