/** The peers, each in its own best documented configuration. Clocked from the start of its workers to the end of the last job, as ours is. */
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { PgBoss } from "pg-boss";
import { type Arena, exactlyOnce } from "./contest.ts";

export const CONFIGURATIONS = {
  graphile: "graphile-worker 0.18.0: concurrency 24, localQueue 500, completeJobBatchDelay 0",
  graphilePlain: "graphile-worker 0.18.0: concurrency 10, no batching",
  pgBoss: "pg-boss 12.38.0: work batchSize 1000, two workers",
} as const;

/** A line a job would cost it more than the job. */
const logger = new Logger(() => () => {});

/** Jobs a second. */
export function drainGraphile(arena: Arena, tasks: number, batching: boolean): Promise<number> {
  return arena.inFresh(async ({ url }) => {
    const utils = await makeWorkerUtils({ connectionString: url, logger });
    await utils.migrate();
    for (let n = 0; n < tasks; n += 1000)
      await utils.addJobs(
        Array.from({ length: Math.min(1000, tasks - n) }, (_, i) => ({ identifier: "nothing", payload: { n: n + i } })),
      );
    const ran = new Uint8Array(tasks);
    let left = tasks;
    let done = (): void => {};
    const finished = new Promise<void>((resolve) => {
      done = resolve;
    });
    const startedAt = performance.now();
    const runner = await run({
      preset: {
        worker: {
          connectionString: url,
          logger,
          concurrentJobs: batching ? 24 : 10,
          maxPoolSize: 30,
          ...(batching && { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }),
        },
      },
      taskList: {
        nothing: async (payload) => {
          ran[(payload as { n: number }).n]! += 1;
          left -= 1;
          if (left === 0) done();
        },
      },
      noHandleSignals: true,
    });
    await finished;
    await runner.stop();
    const seconds = (performance.now() - startedAt) / 1000;
    await utils.release();
    exactlyOnce("graphile-worker", ran);
    return tasks / seconds;
  });
}

/** Jobs a second. */
export function drainPgBoss(arena: Arena, tasks: number): Promise<number> {
  return arena.inFresh(async ({ url }) => {
    const boss = new PgBoss({ connectionString: url, max: 10 });
    boss.on("error", () => {});
    await boss.start();
    await boss.createQueue("nothing");
    for (let n = 0; n < tasks; n += 1000)
      await boss.insert(
        "nothing",
        Array.from({ length: Math.min(1000, tasks - n) }, (_, i) => ({ data: { n: n + i } })),
      );
    const ran = new Uint8Array(tasks);
    let left = tasks;
    let done = (): void => {};
    const finished = new Promise<void>((resolve) => {
      done = resolve;
    });
    const startedAt = performance.now();
    for (let worker = 0; worker < 2; worker++)
      await boss.work<{ n: number }>("nothing", { batchSize: 1000, pollingIntervalSeconds: 0.5 }, async (jobs) => {
        for (const { data } of jobs) ran[data.n]! += 1;
        left -= jobs.length;
        if (left === 0) done();
      });
    await finished;
    const seconds = (performance.now() - startedAt) / 1000;
    await boss.stop({ graceful: true });
    exactlyOnce("pg-boss", ran);
    return tasks / seconds;
  });
}
