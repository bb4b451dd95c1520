/** Database requests for 1,000 tasks, as the invocation's report counts them: a count, so noise does not touch it. */
import { drainOurs, inArena } from "./contest.ts";
import { rounded } from "./measure.ts";
import type { BenchOptions, Figures } from "./run.ts";

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const tasks = quick ? 10_000 : 100_000;
    const figures: Record<string, number> = {};
    for (const batch of [500, 1000]) {
      const { requests } = await drainOurs(arena, { tasks, batch, workers: 1, through: "pg" });
      figures[`requests per 1,000 tasks, batch ${batch}`] = rounded((requests * 1000) / tasks, 2);
    }
    return figures;
  });
