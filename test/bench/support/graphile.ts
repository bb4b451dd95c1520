/** graphile-worker in its best documented configuration. Clocked from the start of its workers to the end of the last job, as ours is. */
import { Logger, makeWorkerUtils, type Runner, run, type TaskList, type WorkerUtils } from "graphile-worker";
import { type Arena, type FreshDatabase, filled, type Statistics } from "./arena.ts";
import { type Clocked, clocked } from "./clock.ts";
import { Tally } from "./tally.ts";

/** A line a job would cost it more than the job. */
const logger = new Logger(() => () => {});

export const GRAPHILE = {
  batching: {
    text: "graphile-worker 0.18.0: concurrency 24, localQueue 500, completeJobBatchDelay 0",
    worker: {
      concurrentJobs: 24,
      maxPoolSize: 30,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    },
  },
  plain: {
    text: "graphile-worker 0.18.0: concurrency 10, no batching",
    worker: { concurrentJobs: 10, maxPoolSize: 30 },
  },
} as const;

export type GraphileMode = keyof typeof GRAPHILE;

export const inGraphile = <T>(
  arena: Arena,
  work: (graphile: { url: string; utils: WorkerUtils } & Pick<FreshDatabase, "vacuum">) => Promise<T>,
): Promise<T> =>
  arena.inFresh(async ({ url, vacuum }) => {
    const utils = await makeWorkerUtils({ connectionString: url, logger });
    try {
      await utils.migrate();
      return await work({ url, utils, vacuum });
    } finally {
      await utils.release();
    }
  });

export const runGraphile = (url: string, mode: GraphileMode, taskList: TaskList): Promise<Runner> =>
  run({
    preset: { worker: { connectionString: url, logger, ...GRAPHILE[mode].worker } },
    taskList,
    noHandleSignals: true,
  });

export const drainGraphile = (
  arena: Arena,
  tasks: number,
  mode: GraphileMode,
  statistics: Statistics = "of all",
): Promise<Clocked> =>
  inGraphile(arena, async ({ url, utils, vacuum }) => {
    await filled(statistics, { vacuum }, async () => {
      for (let n = 0; n < tasks; n += 1000)
        await utils.addJobs(
          Array.from({ length: Math.min(1000, tasks - n) }, (_, i) => ({
            identifier: "nothing",
            payload: { n: n + i },
          })),
        );
    });
    const tally = new Tally("graphile-worker", tasks);
    const took = await clocked(arena.postmaster, tasks, async () => {
      const runner = await runGraphile(url, mode, { nothing: (payload) => tally.run((payload as { n: number }).n) });
      await tally.finished;
      // Hands in what has run.
      await runner.stop();
    });
    tally.check();
    return took;
  });

/** By statements on the server: `nothing` with payload { n }. */
export async function fillGraphile(utils: WorkerUtils, count: number): Promise<void> {
  const chunk = 10_000;
  await utils.withPgClient(async (client) => {
    for (let from = 0; from < count; from += chunk)
      await client.query(
        `SELECT count(*) FROM graphile_worker.add_jobs((
          SELECT array_agg(CAST(ROW('nothing', json_build_object('n', n), NULL, NULL, NULL, NULL, NULL, NULL) AS graphile_worker.job_spec))
          FROM generate_series(CAST($1 AS integer), CAST($2 AS integer) - 1) AS n))`,
        [from, Math.min(count, from + chunk)],
      );
  });
}
