/** pg-boss in its best documented configuration. Clocked from the start of its workers to the end of the last job, as ours is. */
import { PgBoss } from "pg-boss";
import { type Arena, type FreshDatabase, filled, type Statistics } from "./arena.ts";
import { type Clocked, clocked } from "./clock.ts";
import { Tally } from "./tally.ts";

export const PG_BOSS = "pg-boss 12.38.0: work batchSize 1000, burstWhenBatchFull, two workers";

export const BATCHES = { batchSize: 1000, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 } as const;

export const inPgBoss = <T>(arena: Arena, work: (boss: PgBoss, database: FreshDatabase) => Promise<T>): Promise<T> =>
  arena.inFresh(async (fresh) => {
    const boss = new PgBoss({ connectionString: fresh.url, max: 10 });
    boss.on("error", () => {});
    await boss.start();
    try {
      return await work(boss, fresh);
    } finally {
      await boss.stop({ graceful: true });
    }
  });

export const drainPgBoss = (arena: Arena, tasks: number, statistics: Statistics = "of all"): Promise<Clocked> =>
  inPgBoss(arena, async (boss, { vacuum }) => {
    await boss.createQueue("nothing");
    await filled(statistics, { vacuum }, async () => {
      for (let n = 0; n < tasks; n += 1000)
        await boss.insert(
          "nothing",
          Array.from({ length: Math.min(1000, tasks - n) }, (_, i) => ({ data: { n: n + i } })),
        );
    });
    const tally = new Tally("pg-boss", tasks);
    const took = await clocked(arena.postmaster, tasks, async () => {
      await boss.work<{ n: number }>("nothing", { ...BATCHES, localConcurrency: 2 }, async (jobs) => {
        for (const { data } of jobs) tally.run(data.n);
      });
      await tally.finished;
    });
    tally.check();
    return took;
  });
