/** Batches of 10, two workers, beside graphile-worker without batching. Tasks a second. */
import { drainOurs, inArena, rounds } from "./contest.ts";
import { rounded } from "./measure.ts";
import { drainGraphile } from "./peers.ts";
import type { BenchOptions, Figures } from "./run.ts";

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const tasks = quick ? 2_000 : 20_000;
    const median = await rounds(
      {
        ours: async () => (await drainOurs(arena, { tasks, batch: 10, workers: 2, through: "pg" })).tasksPerSecond,
        "graphile-worker": () => drainGraphile(arena, tasks, false),
      },
      quick ? 1 : 5,
    );
    return { ...median, ratio: rounded(median.ours / median["graphile-worker"], 2) };
  });
