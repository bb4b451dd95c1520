import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures } from "./support/figures.ts";
import { rounded, rounds } from "./support/measure.ts";
import { drainOurs } from "./support/ours.ts";
import { drainSimply } from "./support/simplest.ts";

export const about =
  "What Postgres itself gives: the same writes to the same tables by the simplest prepared statements, 1,000 tasks each, from two connections that do nothing else and know beforehand which tasks are theirs; tasks a second. Beside it ours as in drain.";

export const charted = ["delete and insert", "claim, delete and insert", "ours, 2 workers"];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const median = await rounds(
      {
        "ours, 2 workers": async (tasks) =>
          (await drainOurs(arena, { tasks, batch: 1000, workers: 2, through: "pg" })).tasksPerSecond,
        "delete and insert": (tasks) => drainSimply(arena, "delete and insert", tasks),
        "claim, delete and insert": (tasks) => drainSimply(arena, "claim, delete and insert", tasks),
      },
      quick ? { tasks: 4_000, warmUp: 0, count: 1 } : { tasks: 100_000, warmUp: 20_000, count: 5 },
    );
    const to = (name: "delete and insert" | "claim, delete and insert") =>
      rounded(median["ours, 2 workers"] / median[name], 2);
    return {
      ...median,
      "ours to delete and insert, ratio": to("delete and insert"),
      "ours to claim, delete and insert, ratio": to("claim, delete and insert"),
    };
  });
