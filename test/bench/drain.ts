import { inArena } from "./support/arena.ts";
import type { Clocked } from "./support/clock.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { drainGraphile, GRAPHILE } from "./support/graphile.ts";
import { quantile, rounded, rounds } from "./support/measure.ts";
import { drainOurs } from "./support/ours.ts";
import { drainPgBoss, PG_BOSS } from "./support/pg-boss.ts";

export const about = `100,000 no-op tasks until none is left, ours with its run history, queue pop size 1000, over pg; a backlog that Postgres has statistics of; tasks a second, and the processor time of both sides. Beside it ${GRAPHILE.batching.text}; ${PG_BOSS}.`;

export const targets: readonly Target[] = [
  { figure: "2 workers to the best peer, ratio", atLeast: 2 },
  { figure: "1 worker to the best peer, ratio", atLeast: 1.4 },
];

export const charted = ["ours, 2 workers", "ours, 1 worker", "graphile-worker", "pg-boss"];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const ours = (workers: number) => (tasks: number) =>
      drainOurs(arena, { tasks, batch: 1000, workers, through: "pg" });
    const contestants: Record<string, (tasks: number) => Promise<Clocked>> = {
      "ours, 2 workers": ours(2),
      "graphile-worker": (tasks) => drainGraphile(arena, tasks, "batching"),
      "ours, 1 worker": ours(1),
      "pg-boss": (tasks) => drainPgBoss(arena, tasks),
    };
    const turns: Record<string, Clocked[]> = {};
    const median = await rounds(
      Object.fromEntries(
        Object.entries(contestants).map(([name, drain]) => [
          name,
          async (tasks: number) => {
            const turn = await drain(tasks);
            turns[name] = [...(turns[name] ?? []), turn];
            return turn.tasksPerSecond;
          },
        ]),
      ),
      quick ? { tasks: 2_000, warmUp: 0, count: 1 } : { tasks: 100_000, warmUp: 20_000, count: 5 },
    );
    const best = Math.max(median["graphile-worker"]!, median["pg-boss"]!);
    return {
      ...median,
      "2 workers to the best peer, ratio": rounded(median["ours, 2 workers"]! / best, 2),
      "1 worker to the best peer, ratio": rounded(median["ours, 1 worker"]! / best, 2),
      ...Object.assign({}, ...Object.entries(turns).map(([name, clocked]) => processorTime(name, clocked))),
    };
  });

const processorTime = (name: string, turns: readonly Clocked[]): Figures => {
  const median = (pick: (turn: Clocked) => number) => rounded(quantile(turns.map(pick), 0.5), 1);
  return {
    [`${name}, client, CPU µs a task`]: median((turn) => turn.clientMicros),
    [`${name}, Postgres, CPU µs a task`]: median((turn) => turn.serverMicros),
  };
};
