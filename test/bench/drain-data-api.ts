import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { drainGraphile, GRAPHILE } from "./support/graphile.ts";
import { rounded, rounds } from "./support/measure.ts";
import { drainOurs } from "./support/ours.ts";
import { drainPgBoss, PG_BOSS } from "./support/pg-boss.ts";

export const about = `As drain, ours through the AWS SDK and the Data API stand-in (a process of its own on the same two cores), the peers over their own connections; tasks a second. ${GRAPHILE.batching.text}; ${PG_BOSS}.`;

export const targets: readonly Target[] = [{ figure: "to the best peer, ratio", atLeast: 1.7 }];

export const charted = ["ours, 2 workers, Data API", "graphile-worker", "pg-boss"];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const median = await rounds(
      {
        "ours, 2 workers, Data API": async (tasks) =>
          (await drainOurs(arena, { tasks, batch: 1000, workers: 2, through: "data-api" })).tasksPerSecond,
        "graphile-worker": async (tasks) => (await drainGraphile(arena, tasks, "batching")).tasksPerSecond,
        "pg-boss": async (tasks) => (await drainPgBoss(arena, tasks)).tasksPerSecond,
      },
      quick ? { tasks: 2_000, warmUp: 0, count: 1 } : { tasks: 100_000, warmUp: 20_000, count: 5 },
    );
    const best = Math.max(median["graphile-worker"], median["pg-boss"]);
    return { ...median, "to the best peer, ratio": rounded(median["ours, 2 workers, Data API"] / best, 2) };
  });
