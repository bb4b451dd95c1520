/** The books that look into the database, each shown a breach, forged there. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { allEnded } from "./ended.ts";
import { attemptsAndCounters, occurrences, stillHeld } from "./invariants.ts";
import { Random } from "./random.ts";
import { type Broken, Counts } from "./report.ts";
import { Scheduler } from "./scheduler.ts";
import { probe, Watch } from "./watch.ts";
import { createWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await createWorld({ graceMs: 1000 });
});
afterAll(async () => await world?.close());
beforeEach(async () => {
  await forge(
    "TRUNCATE task, failed_task, task_run, slot, heartbeat, chaos.violation, chaos.stored, chaos.claim, chaos.purged_run",
  );
});

const me = "00000000-0000-4000-8000-000000000001";
const other = "00000000-0000-4000-8000-000000000002";

/** Past the triggers. */
const forge = (change: string): Promise<unknown> =>
  world.sql(`BEGIN; SET LOCAL session_replication_role = replica; ${change}; COMMIT`);
const task = (id: number, more: Readonly<Record<string, string | number>> = {}): Promise<unknown> => {
  const row = { id, identifier: "'a'", max_attempts: 1, ...more };
  return forge(`INSERT INTO task (${Object.keys(row)}) OVERRIDING SYSTEM VALUE VALUES (${Object.values(row)})`);
};
const beat = (id: string, more: Readonly<Record<string, string | number>> = {}): Promise<unknown> => {
  const row = { invocation_id: `'${id}'`, slot: 0, epoch: 2, release_id: "'r'", seq: 5, ...more };
  return forge(`INSERT INTO heartbeat (${Object.keys(row)}) VALUES (${Object.values(row)})`);
};
const held = { held_by: `'${me}'`, held_since: "now()", claim_seq: 3, attempt: 1 };
const numbers = (broken: readonly Broken[]): unknown[] => broken.map(({ invariant }) => invariant);

describe("triggers", () => {
  const seen = async (change: string): Promise<number[]> => {
    await world.sql("DELETE FROM chaos.violation");
    await world.sql(change);
    const rows = await world.sql<{ invariant: number }>("SELECT invariant FROM chaos.violation ORDER BY 1");
    return rows.map(({ invariant }) => invariant);
  };
  const claim = (seq: number) =>
    `UPDATE task SET held_by = '${me}', held_since = now(), claim_seq = ${seq}, attempt = attempt + 1`;
  const unhold = "held_by = NULL, held_since = NULL, claim_seq = NULL";

  test("what no rule allows, as it is done", async () => {
    await beat(me);
    await forge(`INSERT INTO slot (number, epoch, holder) VALUES (0, 3, '${me}')`);
    await task(1);
    expect(await seen(claim(5))).toEqual([10]);
    expect(await seen(`UPDATE task SET ${unhold}`)).toEqual([3]);
    expect(await seen(claim(6))).toEqual([7]);
    expect(await seen(`UPDATE task SET held_by = '${other}'`)).toEqual([1, 3, 7]);
    expect(await seen("UPDATE slot SET epoch = 1")).toEqual([4]);
    expect(await seen("UPDATE slot SET holder = NULL")).toEqual([4]);
    expect(await seen("UPDATE heartbeat SET expired_at = clock_timestamp()")).toEqual([1]);
    expect(await seen("UPDATE heartbeat SET last_seen_at = clock_timestamp()")).toEqual([3]);
    const run = `INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result)
      VALUES (1, 1, 'a', '${me}', now(), now(), 'SUCCESS')`;
    expect(await seen(run)).toEqual([3, 3]);
  });

  test("2: an attempt number that goes back, or stays", async () => {
    await beat(me);
    await task(1, { attempt: 1, max_attempts: 9 });
    expect(await seen("UPDATE task SET attempt = 0")).toEqual([2]);
    expect(await seen(claim(6).replace(", attempt = attempt + 1", ""))).toEqual([2]);
  });

  test("12: a claim after the successor has exchanged twice", async () => {
    await beat(me);
    await beat(other, { epoch: 3, seq: 1 });
    await forge(`INSERT INTO slot (number, epoch, holder) VALUES (0, 3, '${other}')`);
    await task(1, { max_attempts: 9 });
    expect(await seen(claim(6))).toEqual([]);
    await forge(`UPDATE task SET ${unhold}; UPDATE heartbeat SET seq = 2 WHERE invocation_id = '${other}'`);
    expect(await seen(claim(6))).toEqual([12]);
  });

  test("13: a seat that is called for twice", async () => {
    await forge("INSERT INTO slot (number, epoch, woken_at) VALUES (0, 3, now())");
    expect(await seen("UPDATE slot SET woken_at = woken_at + interval '1.1 seconds'")).toEqual([]);
    expect(await seen("UPDATE slot SET woken_at = woken_at + interval '0.9 seconds'")).toEqual([13]);
  });

  test("8: a run that is removed before its task, or before its time", async () => {
    const run = (
      age: string,
    ) => `INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result)
      VALUES (1, 1, 'a', '${me}', now(), now() - interval '${age}', 'SUCCESS')`;
    await forge(run("8 days"));
    expect(await seen("DELETE FROM task_run")).toEqual([]);
    await forge(run("8 hours"));
    expect(await seen("DELETE FROM task_run")).toEqual([8]);
    await forge(run("8 days"));
    await task(1);
    expect(await seen("DELETE FROM task_run")).toEqual([8]);
  });
});

describe("looking on", () => {
  const look = async (times: number): Promise<Watch> => {
    const watch = new Watch(world, 1000, new Counts());
    for (let left = times; left > 0; left -= 1) await watch.look();
    return watch;
  };

  test("5: a silent one that a witness lets be, at two looks", async () => {
    const ago = (seconds: number) => `now() - ${seconds} * interval '1 second'`;
    await beat(me, { last_seen_at: ago(2) });
    // A second and a half after the silent one, whenever it is stored.
    const after = `(SELECT last_seen_at + interval '1.5 seconds' FROM heartbeat WHERE invocation_id = '${me}')`;
    await beat(other, { seen_since: ago(3), last_seen_at: after });
    expect((await look(2)).broken).toEqual([]);
    await forge(`UPDATE heartbeat SET last_seen_at = now() WHERE invocation_id = '${other}'`);
    expect((await look(1)).broken).toEqual([]);
    expect(numbers((await look(2)).broken)).toEqual([5]);
  });

  test("7: a suspect beside others", async () => {
    await beat(me);
    await task(1, { ...held, suspect_since: "now()" });
    expect((await look(1)).broken).toEqual([]);
    await task(2, held);
    expect((await look(1)).broken).toMatchObject([{ invariant: 7, task: "1" }]);
  });

  test("11: what is held by one that was never told, though it has gone on", async () => {
    await beat(me, { seq: 3 });
    await task(1, held);
    expect((await look(1)).untold(new Set())).toEqual([]);
    await forge("UPDATE heartbeat SET seq = 4");
    const watch = await look(1);
    expect(watch.untold(new Set(["1 1"]))).toEqual([]);
    expect(watch.untold(new Set(["1 2"]))).toMatchObject([{ invariant: 11, task: "1" }]);
  });
});

describe("6", () => {
  /** Exchanges of somebody, none of which does anything. */
  const meanwhile = async <T>(change: string, work: () => Promise<T>): Promise<T> => {
    let over = false;
    const forging = (async () => {
      for (; !over; await sleep(10)) await forge(change);
    })();
    const result = await work();
    over = true;
    await forging;
    return result;
  };
  const goOn = "UPDATE heartbeat SET seq = seq + 100";

  test("a queue that does not run empty", async () => {
    await beat(me);
    expect(await allEnded(world, () => {})).toEqual([]);
    await task(1);
    const broken = await meanwhile(goOn, () => allEnded(world, () => {}));
    expect(broken).toMatchObject([{ invariant: 6, task: "1" }]);
  });

  test("a task given to an idle one that is claimed late, or never", async () => {
    await beat(me);
    const claimAt = (seq: number) =>
      `INSERT INTO chaos.claim SELECT id, 1, '${me}', ${seq} FROM task WHERE id NOT IN (SELECT task FROM chaos.claim)`;
    const given = (change: string): Promise<Broken[]> => meanwhile(change, () => probe(world, 100, 1, new Counts()));
    expect(await given(claimAt(17))).toEqual([]);
    expect(numbers(await given(claimAt(18)))).toEqual([6]);
    expect(numbers(await given(goOn))).toEqual([6]);
  });
});

test("2, 7: counters that are not the runs, a task that failed before its attempts were used", async () => {
  await beat(me, { succeeded: 1 });
  expect(numbers(await attemptsAndCounters(world))).toEqual([2]);
  await forge(
    `INSERT INTO chaos.purged_run (task_id, attempt, invocation_id, result) VALUES (1, 1, '${me}', 'SUCCESS')`,
  );
  expect(await attemptsAndCounters(world)).toEqual([]);
  await forge(`INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, attempt, forgiven, max_attempts, failed_at, outcome)
    VALUES (1, 'a', '{}', 50, now(), now(), 2, 1, 2, now(), 'FAILED')`);
  expect(numbers(await attemptsAndCounters(world))).toEqual([7]);
});

test("3: what is still held by one that is gone", async () => {
  await beat(me);
  await task(1, held);
  expect(await stillHeld(world)).toEqual([]);
  await forge("UPDATE heartbeat SET ended_at = now()");
  expect(numbers(await stillHeld(world))).toEqual([3]);
});

test("9: an occurrence that has two tasks, whatever became of them, and a schedule that never fires", async () => {
  const counts = new Counts();
  expect(numbers(await occurrences(world, counts))).toEqual([9]);
  await forge("INSERT INTO chaos.stored VALUES (1, 'tick', '2026-01-01'), (2, 'tick', '2026-01-02'), (3, 'a', NULL)");
  expect(await occurrences(world, counts)).toEqual([]);
  expect(counts.of("occurrences")).toBe(2);
  await forge("INSERT INTO chaos.stored VALUES (4, 'tick', '2026-01-02')");
  expect(numbers(await occurrences(world, counts))).toEqual([9]);
});

test("13: one that was woken and calls another", async () => {
  const invocation = join(world.folder, "calls.mjs");
  writeFileSync(invocation, "process.send({ slot: 1 }); setInterval(() => {}, 1000);");
  const settings = { sleepIntervalMs: 50, graceMs: 1000, queuePopSize: 1, backoffDefaultMs: 0, invocationMs: 9000 };
  const timing = { slots: 2, residents: 1, everyMs: 9000, limitMs: 9000, settings };
  const scheduler = new Scheduler({ ...world, invocation }, timing, new Random(1), new Counts());
  try {
    scheduler.invoke(0);
    // The first was not woken, the one that it calls was.
    while (scheduler.broken.length === 0) await sleep(10);
    expect(scheduler.broken[0]).toMatchObject({ invariant: 13 });
    expect(scheduler.running.size).toBeGreaterThan(1);
  } finally {
    await scheduler.kill();
  }
});
