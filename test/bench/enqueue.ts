import { createTaskClient } from "../../lib/enqueue.ts";
import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { inGraphile } from "./support/graphile.ts";
import { interleaved, rounded } from "./support/measure.ts";
import { inOurs, nothing } from "./support/ours.ts";

export const about =
  "One producer that stores tasks in chunks, over pg; tasks a second. Beside it graphile-worker 0.18.0: addJob for one, addJobs for more. Ours carries a token, so that an enqueue repeated after an unknown outcome stores nothing twice.";

const CHUNKS = [1, 100, 1_000, 10_000];

export const targets: readonly Target[] = [
  { figure: "chunks of 1, ratio", atLeast: 1 },
  ...[100, 1_000, 10_000].map((chunk) => ({ figure: `chunks of ${chunk}, ratio`, atLeast: 1.5 })),
];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena((arena) =>
    inOurs(arena, ({ database, client }) =>
      inGraphile(arena, async ({ utils }) => {
        const tasks = createTaskClient({ database });
        const figures: Record<string, number> = {};
        let stored = 0;
        for (const chunk of CHUNKS) {
          const payloads = Array.from({ length: chunk }, (_, n) => ({ n }));
          const jobs = payloads.map((payload) => ({ identifier: "nothing", payload }));
          const how = quick
            ? { rounds: 1, calls: 2, warmUp: 1 }
            : { rounds: 10, calls: Math.max(2, Math.min(100, 10_000 / chunk)), warmUp: Math.min(200, 20_000 / chunk) };
          const { ours, graphile } = await interleaved(
            {
              ours: () => (chunk === 1 ? tasks.enqueue(nothing, payloads[0]!) : tasks.enqueueMany(nothing, payloads)),
              graphile: () => (chunk === 1 ? utils.addJob("nothing", payloads[0]!) : utils.addJobs(jobs)),
            },
            how,
          );
          stored += (how.rounds * how.calls + how.warmUp) * chunk;
          figures[`chunks of ${chunk}, ours`] = Math.round((chunk * 1000) / ours.median);
          figures[`chunks of ${chunk}, graphile-worker`] = Math.round((chunk * 1000) / graphile.median);
          figures[`chunks of ${chunk}, ratio`] = rounded(graphile.median / ours.median, 2);
        }
        const { rows } = await client.query("SELECT CAST(count(*) AS integer) AS count FROM task");
        if (rows[0].count !== stored) throw new Error(`${rows[0].count} of ${stored} tasks are stored.`);
        return figures;
      }),
    ),
  );
