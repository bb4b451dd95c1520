/** What one task does to its process, and what becomes of those beside it. */
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { createTaskClient } from "../../lib/index.ts";
import { silentLog } from "../../lib/log.ts";
import { createRegistry } from "../../lib/registry.ts";
import { runInvocation } from "../../lib/worker.ts";
import { overlaps } from "./invariants.ts";
import { readLogs } from "./logs.ts";
import { Random } from "./random.ts";
import { Counts } from "./report.ts";
import { Scheduler } from "./scheduler.ts";
import { KINDS } from "./tasks.ts";
import { createWorld } from "./world.ts";

describe("a task that takes its process with it each time", () => {
  const settings = { sleepIntervalMs: 50, graceMs: 3000, queuePopSize: 101, backoffDefaultMs: 0, invocationMs: 9000 };

  // Each waits for processes that are gone or busy.
  test.concurrent.each([
    "poison",
    "stalls",
  ] as const)("%s fails after its own attempts; of 100 claimed with it, none loses one, and all succeed", async (name) => {
    const world = await createWorld(settings);
    const timing = { slots: 1, residents: 1, everyMs: 2500, limitMs: 9000, settings };
    const scheduler = new Scheduler(world, timing, new Random(1), new Counts());
    const database = world.connect("pg");
    try {
      const client = createTaskClient({ database });
      const batch = (count: number) => Array.from({ length: count }, () => ({ token: "tick" }));
      await client.enqueue(KINDS[name], { token: "tick" }, { priority: "HIGHEST" });
      await client.enqueueMany(KINDS.single, batch(50));
      await client.enqueueMany(KINDS.quick, batch(50));
      scheduler.start();
      const unfinished = "SELECT 1 FROM task WHERE occurrence IS NULL";
      while ((await world.sql(unfinished)).length > 0) await sleep(100);
      const failed = await world.sql(
        "SELECT identifier, outcome, attempt - forgiven AS used, attempt FROM failed_task",
      );
      expect(failed).toEqual([{ identifier: `chaos.${name}`, outcome: "FAILED", used: 2, attempt: 3 }]);
      const runs = `SELECT identifier, CAST(count(DISTINCT task_id) AS integer) AS tasks,
            CAST(count(*) FILTER (WHERE task_outcome = 'SUCCEEDED') AS integer) AS succeeded,
            CAST(count(*) FILTER (WHERE error_details LIKE 'abandoned. %') AS integer) AS abandoned
          FROM task_run WHERE occurrence IS NULL AND identifier <> $1 GROUP BY 1 ORDER BY 1`;
      expect(await world.sql(runs, [`chaos.${name}`])).toEqual([
        { identifier: "chaos.quick", tasks: 50, succeeded: 50, abandoned: 50 },
        { identifier: "chaos.single", tasks: 50, succeeded: 50, abandoned: 50 },
      ]);
      expect(await world.sql("SELECT * FROM chaos.violation")).toEqual([]);
    } finally {
      await scheduler.kill();
      await database.close();
      await world.close();
    }
  }, 120_000);
});

test("cut off from the database, a holder stops before another is given its tasks, whatever its handlers do", async () => {
  const settings = { sleepIntervalMs: 50, graceMs: 2000, queuePopSize: 5, backoffDefaultMs: 0, invocationMs: 60_000 };
  const world = await createWorld(settings);
  const timing = { slots: 2, residents: 2, everyMs: 60_000, limitMs: 60_000, settings };
  const counts = new Counts();
  const scheduler = new Scheduler(world, timing, new Random(1), counts);
  const database = world.connect("pg");
  try {
    const client = createTaskClient({ database });
    scheduler.invoke(0, { target: world.targets["data-api"] });
    const batch = Array.from({ length: 5 }, () => ({ token: "tick" }));
    await client.enqueueMany(KINDS.holds, batch);
    const until = async (count: number, where: string): Promise<void> => {
      while ((await world.sql(`SELECT 1 FROM task WHERE occurrence IS NULL AND ${where}`)).length !== count)
        await sleep(20);
    };
    await until(5, "held_by IS NOT NULL");
    scheduler.invoke(1, { target: world.targets.pg });
    // All of them have started, and been told of again in vain from here on.
    while (readLogs(world, counts).executions.filter(({ identifier }) => identifier === "chaos.holds").length < 5)
      await sleep(20);
    await world.dataApi.faults.set({ dropBefore: 1 });
    await until(0, "true");
    const executions = readLogs(world, counts).executions.filter(({ identifier }) => identifier === "chaos.holds");
    expect(executions.map(({ attempt }) => attempt).sort()).toEqual([1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
    expect(overlaps(executions)).toEqual([]);
    expect(await world.sql("SELECT * FROM chaos.violation")).toEqual([]);
  } finally {
    await scheduler.kill();
    await database.close();
    await world.close();
  }
}, 120_000);

test("when one task blocks the event loop past the lease, those claimed with it are not started after it", async () => {
  const settings = { sleepIntervalMs: 50, graceMs: 6000, queuePopSize: 5, backoffDefaultMs: 0, invocationMs: 60_000 };
  const world = await createWorld(settings);
  const database = world.connect("pg");
  try {
    const client = createTaskClient({ database });
    await client.enqueue(KINDS.blocks, { token: "tick" }, { priority: "HIGHEST" });
    await client.enqueueMany(KINDS.quick, [{ token: "tick" }, { token: "tick" }]);
    const started: string[] = [];
    const handlers = [
      KINDS.blocks.handle(() => {
        started.push("blocks");
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, settings.graceMs);
      }),
      KINDS.quick.handle(() => void started.push("quick")),
    ];
    const registry = createRegistry(handlers, null);
    const report = await runInvocation({
      databases: [database],
      registry,
      slot: 0,
      resident: false,
      settings,
      log: silentLog,
    });
    expect(report.left).toBe("lease_lost");
    expect(started).toEqual(["blocks"]);
  } finally {
    await database.close();
    await world.close();
  }
});
