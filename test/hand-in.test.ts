/** Results that the database refuses: the others are recorded, what cannot be stored becomes a failure, and nothing is lost. */
import { beforeEach, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { pause } from "../lib/clock.ts";
import type { Database } from "../lib/database/port.ts";
import { createTaskClient, defineTask, TaskBackoffError } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { createRegistry } from "../lib/registry.ts";
import type { TaskHandler } from "../lib/task.ts";
import type { Wake } from "../lib/wake.ts";
import { runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";

/** What has failed is not due again before the test is over. */
const backoff = { kind: "fixed", delayMs: 3_600_000 } as const;
const work = defineTask({ identifier: "work", payload: z.object({ n: z.number() }), backoff });
const payloads = (count: number) => Array.from({ length: count }, (_, n) => ({ n }));
/** Valid in JavaScript and beyond what Postgres reads: microseconds taken for milliseconds come to such a year. */
const FAR = new Date("+200000-01-01");
/** JSON within 4 KiB, and deeper than the least max_stack_depth allows. */
const deep = () => JSON.parse(`${"[".repeat(2000)}${"]".repeat(2000)}`);

describe.each(ADAPTERS)("what the database refuses over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const tasks = createTaskClient({ database: db.database });
  const settings = { sleepIntervalMs: 50, graceMs: 20_000, queuePopSize: 50, backoffDefaultMs: 0, invocationMs: null };
  beforeEach(async () => {
    await reset(db);
    await limitDepth("2MB");
  });

  /** For the connections that follow. */
  async function limitDepth(depth: string): Promise<void> {
    const name = new URL(db.url).pathname.slice(1);
    await db.sql(`ALTER DATABASE "${name}" SET max_stack_depth = '${depth}'`);
    await db.sql(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
      [name],
    );
  }

  const run = (
    handlers: readonly TaskHandler[],
    database: Database = db.database,
    { queuePopSize = settings.queuePopSize, wake }: { queuePopSize?: number; wake?: Wake } = {},
  ) =>
    runInvocation({
      databases: [database],
      registry: createRegistry(handlers, null),
      slot: 0,
      resident: false,
      settings: { ...settings, queuePopSize },
      log: silentLog,
      ...(wake && { wake }),
    });

  const runs = () =>
    db.sql<{ n: number; result: string; error: string | null; value: unknown }>(
      `SELECT attempt AS n, result, error_details AS error, result_value AS value FROM task_run ORDER BY task_id, attempt`,
    );

  test("a moment that Postgres cannot read: that task fails and is tried again, the others are recorded as they are", async () => {
    await tasks.enqueueMany(work, payloads(12));
    const { database, sent } = noting(db.database);
    const handler = work.handle(({ n }) => {
      if (n === 4) throw new TaskBackoffError({ delayUntil: FAR, message: "much later" });
      if (n === 5) throw new TaskBackoffError({ delayUntil: new Date("2999-01-01") });
      if (n === 6) throw new Error("six");
      return { n };
    });
    const report = await run([handler], database);
    expect(report).toMatchObject({ claimed: 12, succeeded: 9, failed: 3, staleCompletions: 0, left: "nothing_due" });
    const ended = await runs();
    expect(ended.map(({ result }, n) => (result === "SUCCESS" ? "" : n)).filter((n) => n !== "")).toEqual([4, 5, 6]);
    expect(ended[0]).toMatchObject({ value: { n: 0 } });
    expect(ended[4]!.error).toMatch(/^The result was refused \(22009\): .*200000-01-01/);
    expect(ended[4]!.error).toContain("much later");
    expect(ended[5]!.error).not.toContain("refused");
    expect(
      await db.sql(
        `SELECT attempt, held_by, suspect_since, extract(year FROM scheduled_for)::int = 2999 AS far, scheduled_for > clock_timestamp() AS later
         FROM task WHERE attempt - forgiven < max_attempts ORDER BY id`,
      ),
    ).toEqual([
      { attempt: 1, held_by: null, suspect_since: null, far: false, later: true },
      { attempt: 1, held_by: null, suspect_since: null, far: true, later: true },
      { attempt: 1, held_by: null, suspect_since: null, far: false, later: true },
    ]);
    // Each under a number of its own, none skipped: a refused one was rolled back.
    const numbers = sent.map(({ seq }) => seq);
    expect([...new Set(numbers)]).toEqual(Array.from({ length: numbers.at(-1)! }, (_, place) => place + 1));
  });

  test("among hundreds of results a refused one costs some requests, not hundreds", async () => {
    await tasks.enqueueMany(work, payloads(40));
    const { database, sent } = noting(db.database);
    let waiting = 0;
    let go = (): void => {};
    const all = new Promise<void>((resolve) => {
      go = resolve;
    });
    const handler = work.handle(async ({ n }) => {
      waiting += 1;
      if (waiting === 40) go();
      await all;
      if (n === 17) throw new TaskBackoffError({ delayUntil: FAR });
    });
    expect(await run([handler], database)).toMatchObject({ succeeded: 39, failed: 1 });
    expect(sent.some(({ results }) => results === 40)).toBe(true);
    expect(sent.length).toBeLessThan(25);
  });

  test("several refused ones, and each result refused: none is lost, none is recorded twice", async () => {
    await tasks.enqueueMany(work, payloads(9));
    const handler = work.handle(() => {
      throw new TaskBackoffError({ delayUntil: FAR });
    });
    expect(await run([handler])).toMatchObject({ claimed: 9, succeeded: 0, failed: 9, staleCompletions: 0 });
    expect((await runs()).map(({ n, result }) => [n, result])).toEqual(Array(9).fill([1, "FAILURE"]));
    expect(await db.sql("SELECT 1 FROM task WHERE held_by IS NULL")).toHaveLength(9);
  });

  test("out of attempts by a refused result, it is kept with the failed ones", async () => {
    const once = defineTask({ identifier: "once", payload: z.object({}), maxAttempts: 1 });
    await tasks.enqueue(once, {});
    const handler = once.handle(() => {
      throw new TaskBackoffError({ delayUntil: FAR });
    });
    expect(await run([handler])).toMatchObject({ failed: 1 });
    expect(await db.sql("SELECT outcome FROM failed_task")).toEqual([{ outcome: "FAILED" }]);
    expect((await runs())[0]!.error).toContain("The result was refused");
  });

  test("a value that is too much for the database: its task has succeeded all the same, without it", async () => {
    await limitDepth("100kB");
    await tasks.enqueueMany(work, payloads(6));
    const handler = work.handle(({ n }) => (n === 3 ? deep() : n));
    expect(await run([handler])).toMatchObject({ succeeded: 6, failed: 0, staleCompletions: 0 });
    expect((await runs()).map(({ value }) => value)).toEqual([0, 1, 2, null, 4, 5]);
  });

  test("progress that the database refuses costs nobody his result, nor the invocation its lease", async () => {
    await limitDepth("100kB");
    await tasks.enqueueMany(work, payloads(4));
    const handler = work.handle(async ({ n }, { progress }) => {
      if (n === 0) {
        progress(deep());
        while ((await db.sql("SELECT 1 FROM task_run")).length < 3) await pause(20);
      }
      if (n === 1) throw new TaskBackoffError({ delayUntil: new Date("2999-01-01") });
      return n;
    });
    expect(await run([handler])).toMatchObject({ succeeded: 3, failed: 1, left: "nothing_due" });
    expect((await runs()).map(({ error }) => error?.includes("refused") ?? false)).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });

  test("whom an exchange is to wake is called, though some of its results were refused", async () => {
    await tasks.enqueueMany(work, payloads(30));
    const called: number[] = [];
    const handler = work.handle(({ n }) => {
      if (n < 2) throw new TaskBackoffError({ delayUntil: FAR });
    });
    const wake = { slots: 3, call: async (slot: number) => void called.push(slot) };
    expect(await run([handler], db.database, { wake, queuePopSize: 2 })).toMatchObject({ succeeded: 28, failed: 2 });
    const counted = await db.sql<{ number: number }>("SELECT number FROM slot WHERE woken_at IS NOT NULL");
    expect(counted.map(({ number }) => number).sort()).toEqual([...called].sort());
    expect(called.length).toBeGreaterThan(0);
  });

  test("what breaks a constraint whatever stands in for it ends the invocation, and not before the others are recorded", async () => {
    await tasks.enqueueMany(work, payloads(8));
    const ids = (await db.sql<{ id: string }>("SELECT id::text FROM task ORDER BY task.id")).map(({ id }) => id);
    await db.sql(`ALTER TABLE task_run ADD CONSTRAINT not_this_one CHECK (task_id <> ${ids[2]})`);
    try {
      await expect(run([work.handle(({ n }) => n)])).rejects.toMatchObject({ sqlState: "23514" });
      expect(await runs()).toHaveLength(7);
      expect(await db.sql("SELECT id::text FROM task WHERE held_by IS NOT NULL")).toEqual([{ id: ids[2] }]);
    } finally {
      await db.sql("ALTER TABLE task_run DROP CONSTRAINT not_this_one");
    }
  });
});

/** Passes everything on, and notes each exchange: its number, and how many results it carries. */
function noting(database: Database): { database: Database; sent: { seq: number; results: number }[] } {
  const sent: { seq: number; results: number }[] = [];
  const query: Database["query"] = (statement, values, options) => {
    if (statement.name === "exchange") {
      const { seq, results, done } = JSON.parse((values as { request?: string }).request!);
      sent.push({ seq, results: results.length + (done === undefined ? 0 : done.id.split(",").length) });
    }
    return database.query(statement, values, options);
  };
  return { database: { ...database, query }, sent };
}
