/** No-op tasks until none is left: ours with its history, over pg and over the Data API stand-in, beside the peers. Tasks a second. */
import { drainOurs, inArena, rounds } from "./contest.ts";
import { rounded } from "./measure.ts";
import { drainGraphile, drainPgBoss } from "./peers.ts";
import type { BenchOptions, Figures } from "./run.ts";

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const tasks = quick ? 10_000 : 100_000;
    const ours = (workers: number, through: "pg" | "data-api") => async () =>
      (await drainOurs(arena, { tasks, batch: 1000, workers, through })).tasksPerSecond;
    const median = await rounds(
      {
        "ours, 1 worker": ours(1, "pg"),
        "graphile-worker": () => drainGraphile(arena, tasks, true),
        "ours, 2 workers": ours(2, "pg"),
        "pg-boss": () => drainPgBoss(arena, tasks),
        "ours, 2 workers, Data API": ours(2, "data-api"),
      },
      quick ? 1 : 5,
    );
    const best = Math.max(median["graphile-worker"], median["pg-boss"]);
    return {
      ...median,
      "1 worker to the best peer, ratio": rounded(median["ours, 1 worker"] / best, 2),
      "2 workers to the best peer, ratio": rounded(median["ours, 2 workers"] / best, 2),
      "Data API to the best peer over TCP, ratio": rounded(median["ours, 2 workers, Data API"] / best, 2),
    };
  });
