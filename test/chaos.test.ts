import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, describe, expect, test } from "vitest";
import { createTaskClient } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { createRegistry } from "../lib/registry.ts";
import { runInvocation } from "../lib/worker.ts";
import { type Execution, overlaps, readLogs } from "./chaos/invariants.ts";
import { play } from "./chaos/play.ts";
import { Random } from "./chaos/random.ts";
import { Counts } from "./chaos/report.ts";
import { Scheduler } from "./chaos/scheduler.ts";
import { KINDS } from "./chaos/tasks.ts";
import { createWorld, type World } from "./chaos/world.ts";

describe("under every fault", () => {
  test.each([
    20261124,
    Math.floor(Math.random() * 2 ** 31),
  ])("nothing is lost and no invariant is broken: seed %i", async (seed) => {
    const told: string[] = [];
    const { broken, lost, invariants, faults, kills, states } = await play({
      seed,
      tasks: 1200,
      minutes: 0.25,
      slots: 5,
      everyMs: 2000,
      write: (line) => void told.push(line),
    });
    expect(broken, told.join("\n")).toEqual([]);
    expect(lost).toBe(0);
    expect(Object.values(invariants)).toEqual(Array.from({ length: 13 }, () => 0));
    // A run in which nothing happened proves nothing.
    expect(kills).toBeGreaterThan(5);
    for (const kind of ["kill.", "tick.", "database.", "data_api."])
      expect(Object.keys(faults).some((name) => name.startsWith(kind))).toBe(true);
    expect(states.succeeded).toBeGreaterThan(500);
  }, 300_000);
});

test("nothing is lost while the schema is migrated and two releases work side by side", async () => {
  const told: string[] = [];
  const { broken, lost, faults, states } = await play({
    seed: 20261125,
    tasks: 900,
    minutes: 0.3,
    slots: 5,
    everyMs: 2000,
    upgradeFrom: "0.1.0",
    write: (line) => void told.push(line),
  });
  expect(broken, told.join("\n")).toEqual([]);
  expect(lost).toBe(0);
  expect(faults).toMatchObject({ "upgrade.migrated": 1 });
  const before = (faults as Record<string, number>)["invocations.release_before"]!;
  expect(before).toBeGreaterThan(5);
  expect((faults as Record<string, number>).invocations! - before).toBeGreaterThan(5);
  // Those that only this release knows among them: the run ends when nothing is unfinished.
  expect(states.succeeded).toBeGreaterThan(100);
}, 300_000);

test("all at once and no fault: everything is run, by invocations of which none fails", async () => {
  const told: string[] = [];
  const { broken, lost, faults, states, measured } = await play({
    seed: 20261126,
    tasks: 3000,
    minutes: 0,
    slots: 4,
    everyMs: 4000,
    graceMs: 15_000,
    queuePopSize: 100,
    write: (line) => void told.push(line),
  });
  expect(broken, told.join("\n")).toEqual([]);
  expect(lost).toBe(0);
  expect(states.succeeded).toBeGreaterThan(2000);
  const names = [...Object.keys(faults), ...Object.keys(measured)];
  expect(
    names.filter((name) => /^(kill\.any|freeze|database\.|data_api\.|left\.refused|ended\.code_3)/.test(name)),
  ).toEqual([]);
}, 300_000);

describe("a task that takes its process with it each time", () => {
  const settings = { sleepIntervalMs: 50, graceMs: 3000, queuePopSize: 101, backoffDefaultMs: 0, invocationMs: 9000 };

  test.each([
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
    while (readLogs(world, counts).filter(({ identifier }) => identifier === "chaos.holds").length < 5) await sleep(20);
    await world.dataApi.faults.set({ dropBefore: 1 });
    await until(0, "true");
    const executions = readLogs(world, counts).filter(({ identifier }) => identifier === "chaos.holds");
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
  const settings = { sleepIntervalMs: 50, graceMs: 600, queuePopSize: 5, backoffDefaultMs: 0, invocationMs: 60_000 };
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
        for (const until = performance.now() + 700; performance.now() < until; );
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

describe("the books notice", () => {
  let world: World | undefined;
  afterAll(async () => await world?.close());

  test("two runs that believe at the same moment, of one task or of one serial key", () => {
    const run = (task: string, startedAt: number, believedAt: number, serial?: string): Execution => ({
      file: `process ${startedAt}`,
      task,
      identifier: "chaos.slow",
      attempt: startedAt,
      token: "t",
      serial,
      startedAt,
      believedAt,
      ended: true,
    });
    expect(overlaps([run("1", 0, 10), run("1", 11, 20), run("2", 5, 15)])).toEqual([]);
    expect(overlaps([run("1", 0, 10), run("1", 9, 20)])).toMatchObject([{ invariant: 1, task: "1" }]);
    expect(overlaps([run("1", 0, 30), run("1", 5, 6), run("1", 20, 21)])).toHaveLength(2);
    expect(overlaps([run("1", 0, 10, "s"), run("2", 9, 20, "s")])).toMatchObject([{ invariant: 1, task: "2" }]);
  });

  test("what no rule allows, as it is done in the database", async () => {
    world = await createWorld({ graceMs: 1000 });
    const me = "00000000-0000-4000-8000-000000000001";
    const seen = async (change: string): Promise<number[]> => {
      await world!.sql("DELETE FROM chaos.violation");
      await world!.sql(change);
      const rows = await world!.sql<{ invariant: number }>("SELECT invariant FROM chaos.violation ORDER BY 1");
      return rows.map(({ invariant }) => invariant);
    };
    await world.sql(
      `INSERT INTO heartbeat (invocation_id, slot, epoch, release_id, seq) VALUES ('${me}', 0, 2, 'r', 5)`,
    );
    await world.sql(`INSERT INTO slot (number, epoch, holder) VALUES (0, 3, '${me}')`);
    await world.sql("INSERT INTO task (identifier, max_attempts) VALUES ('a', 1)");
    const claim = (seq: number) =>
      `UPDATE task SET held_by = '${me}', held_since = now(), claim_seq = ${seq}, attempt = attempt + 1`;
    expect(await seen(claim(5))).toEqual([10]);
    expect(await seen("UPDATE task SET held_by = NULL, held_since = NULL, claim_seq = NULL")).toEqual([3]);
    expect(await seen(claim(6))).toEqual([7]);
    expect(await seen("UPDATE slot SET epoch = 1")).toEqual([4]);
    expect(await seen("UPDATE slot SET holder = NULL")).toEqual([4]);
    expect(await seen("UPDATE heartbeat SET expired_at = clock_timestamp()")).toEqual([1]);
    expect(await seen("UPDATE heartbeat SET last_seen_at = clock_timestamp()")).toEqual([3]);
    const run = `INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result)
      VALUES (1, 1, 'a', '${me}', now(), now(), 'SUCCESS')`;
    expect(await seen(run)).toEqual([3, 3]);
  });
});
