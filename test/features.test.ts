import { beforeEach, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { cleanUp } from "../lib/clean-up.ts";
import { pause } from "../lib/clock.ts";
import { readConfig } from "../lib/config.ts";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { type ActionInput, createOperator } from "../lib/operate.ts";
import { createRegistry } from "../lib/registry.ts";
import type { TaskHandler } from "../lib/task.ts";
import { type InvocationOptions, runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { failure, register, Speaker, success } from "./support/exchange.ts";

const numbered = z.object({ n: z.number() });
const note = defineTask({ identifier: "note", payload: numbered, maxAttempts: 1 });
const narrow = defineTask({ identifier: "narrow", payload: numbered, concurrency: 3 });
const settings = { sleepIntervalMs: 100, graceMs: 20_000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null };

const run = (db: TestDatabase, handlers: readonly TaskHandler[], more: Partial<InvocationOptions> = {}) =>
  runInvocation({
    databases: [db.database],
    registry: createRegistry(handlers, null),
    slot: 0,
    resident: false,
    settings,
    log: silentLog,
    ...more,
  });

describe.each(ADAPTERS)("features over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const tasks = createTaskClient({ database: db.database });
  const operator = createOperator({ databases: [db.database], who: "ada" });
  const act = async (action: ActionInput) => (await operator.act(action)).count;
  const payloads = (count: number) => Array.from({ length: count }, (_, n) => ({ n }));
  beforeEach(() => reset(db));

  test("a concurrency limit holds over all invocations, and all tasks run", async () => {
    await tasks.enqueueMany(narrow, payloads(60));
    let running = 0;
    let most = 0;
    let ran = 0;
    const handler = narrow.handle(async () => {
      running += 1;
      most = Math.max(most, running);
      await pause(5);
      running -= 1;
      ran += 1;
    });
    const stop = new AbortController();
    const invocations = [0, 1, 2, 3].map((slot) => run(db, [handler], { slot, resident: true, signal: stop.signal }));
    while (ran < 60) await pause(20);
    stop.abort();
    await Promise.all(invocations);
    expect(most).toBeLessThanOrEqual(3);
    expect(most).toBeGreaterThan(1);
  });

  test("tasks with a serial key run one at a time, in their order, beside others", async () => {
    for (let n = 0; n < 12; n += 1) await tasks.enqueue(note, { n }, { serialKey: `account-${n % 2}` });
    await tasks.enqueueMany(
      note,
      payloads(5).map(({ n }) => ({ n: 100 + n })),
    );
    const running = new Map<number, number>();
    const order: number[] = [];
    const handler = note.handle(async ({ n }) => {
      if (n >= 100) return;
      running.set(n % 2, (running.get(n % 2) ?? 0) + 1);
      expect(running.get(n % 2)).toBe(1);
      await pause(5);
      running.set(n % 2, 0);
      order.push(n);
      if (n === 4) throw new Error("a failed one passes the turn on");
    });
    const stop = new AbortController();
    const invocations = [0, 1, 2].map((slot) => run(db, [handler], { slot, resident: true, signal: stop.signal }));
    while (order.length < 12) await pause(20);
    stop.abort();
    await Promise.all(invocations);
    expect(order.filter((n) => n % 2 === 0)).toEqual([0, 2, 4, 6, 8, 10]);
    expect(order.filter((n) => n % 2 === 1)).toEqual([1, 3, 5, 7, 9, 11]);
  });

  test("the next of a serial key is removed just while it gets the turn: the one after it gets it", async () => {
    await register(db, "r1", { note: {} });
    const ids: string[] = [];
    for (const n of [0, 1, 2]) {
      const { id } = (await tasks.enqueue(note, { n }, { serialKey: "k" })) as { id: string };
      ids.push(id);
    }
    const me = new Speaker(db);
    const { tasks: held } = await me.say();
    expect(held.map(({ id }) => id)).toEqual([ids[0]]);
    const remover = await db.client();
    await remover.query("BEGIN");
    await remover.query("DELETE FROM task WHERE id = $1", [ids[1]]);
    // Not waited for: whoever hands in has a lease to renew. A gap is left, once.
    expect((await me.say({ results: held.map(success) })).tasks).toEqual([]);
    expect((await me.say()).tasks).toEqual([]);
    expect(await db.sql("SELECT 1 FROM serial_gap")).toHaveLength(1);
    await remover.query("COMMIT");
    expect((await me.say()).tasks.map(({ id }) => id)).toEqual([ids[2]]);
    expect(await db.sql("SELECT 1 FROM serial_gap")).toHaveLength(0);
  });

  test.each([
    "delete",
    "cancel",
  ] as const)("a serial task that is retried does not run beside the next when another is removed: %s", async (action) => {
    await register(db, "r1", { note: { maxAttempts: 1 } });
    const ids: string[] = [];
    for (const n of [0, 1, 2]) ids.push(((await tasks.enqueue(note, { n }, { serialKey: "k" })) as { id: string }).id);
    const me = new Speaker(db);
    const held = async () => (await me.say()).tasks;
    const first = await held();
    const second = (await me.say({ results: first.map((task) => failure(task)) })).tasks;
    expect(second.map(({ id }) => id)).toEqual([ids[1]]);
    // The first waits again, before the second, which has the turn.
    expect(await act({ action: "retry", ids: [ids[0]!] })).toBe(1);
    expect(await act({ action, ids: [ids[2]!] })).toBe(1);
    expect(await held()).toEqual([]);
    expect((await me.say({ results: second.map(success) })).tasks.map(({ id }) => id)).toEqual([ids[0]]);
  });

  test("neither a hand-in nor an operator waits for a producer that is just replacing a task", async () => {
    await register(db, "r1", { note: {} });
    await tasks.enqueue(note, { n: 0 }, { serialKey: "k" });
    const { id } = (await tasks.enqueue(note, { n: 1 }, { serialKey: "k", key: "twin" })) as { id: string };
    const me = new Speaker(db);
    const { tasks: held } = await me.say();
    const producer = await db.client();
    await producer.query("BEGIN");
    await producer.query(`SELECT enqueue_task('note', '{"n": 2}', key => 'twin', on_duplicate => 'replace')`);
    expect(await act({ action: "cancel", ids: [id, held[0]!.id] })).toBe(1);
    expect((await me.say({ results: held.map(success) })).tasks).toEqual([]);
    await producer.query("COMMIT");
    expect((await me.say()).tasks.map(({ payload }) => payload)).toEqual([{ n: 2 }]);
  });

  test("a full queue stores nothing beside a twin that waits", async () => {
    const few = defineTask({ identifier: "few", payload: numbered, queueSize: 1 });
    const { id } = (await tasks.enqueue(few, { n: 0 }, { key: "twin" })) as { id: string };
    expect(await tasks.enqueue(few, { n: 1 }, { key: "twin" })).toEqual({ status: "duplicate", id });
    expect(await tasks.enqueue(few, { n: 2 }, { key: "twin", onDuplicate: "replace" })).toEqual({
      status: "duplicate",
      id,
    });
    expect(await tasks.enqueue(few, { n: 3 }, { key: "other" })).toEqual({ status: "queue_full", limit: 1 });
    expect(await db.sql("SELECT payload FROM task WHERE identifier = 'few'")).toEqual([{ payload: { n: 2 } }]);
  });

  test("a producer that adds to a serial key while its head ends loses nothing", async () => {
    await tasks.enqueue(note, { n: 0 }, { serialKey: "k" });
    const client = await db.client();
    await client.query("BEGIN");
    await client.query(`SELECT enqueue_task('note', '{"n": 1}', serial_key => 'k')`);
    const seen: number[] = [];
    const handler = note.handle(({ n }) => void seen.push(n));
    await run(db, [handler]);
    expect(seen).toEqual([0]);
    expect(await db.sql("SELECT serial_key FROM serial_gap")).toEqual([{ serial_key: "k" }]);
    await client.query("COMMIT");
    await run(db, [handler]);
    expect(seen).toEqual([0, 1]);
    expect(await db.sql("SELECT 1 FROM serial_gap")).toHaveLength(0);
  });

  test("what is paused is not claimed, one identifier or all, until it is resumed", async () => {
    await tasks.enqueue(note, { n: 1 });
    await tasks.enqueue(narrow, { n: 2 });
    const handlers = [note.handle(() => {}), narrow.handle(() => {})];
    expect(await act({ action: "pause", identifier: "note" })).toBe(1);
    expect(await act({ action: "pause", identifier: "note" })).toBe(0);
    expect((await run(db, handlers)).succeeded).toBe(1);
    await act({ action: "pause", identifier: "*" });
    await act({ action: "resume", identifier: "note" });
    expect((await run(db, handlers)).succeeded).toBe(0);
    expect(await act({ action: "resume", identifier: "*" })).toBe(1);
    expect((await run(db, handlers)).succeeded).toBe(1);
  });

  test("a waiting task is cancelled at once; a running one's signal aborts, and it ends as cancelled", async () => {
    const waiting = (await tasks.enqueue(note, { n: 1 }, { delayUntil: new Date("2999-01-01") })) as { id: string };
    expect(await act({ action: "cancel", ids: [waiting.id] })).toBe(1);
    expect(await act({ action: "cancel", ids: ["12345"] })).toBe(0);
    const started = Promise.withResolvers<string>();
    await tasks.enqueue(note, { n: 2 });
    const handler = note.handle((_, { signal, taskId }) => {
      started.resolve(taskId);
      return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    });
    const running = run(db, [handler]);
    expect(await act({ action: "cancel", ids: [await started.promise] })).toBe(1);
    await running;
    expect(await db.sql("SELECT outcome FROM failed_task")).toEqual([
      { outcome: "CANCELLED" },
      { outcome: "CANCELLED" },
    ]);
    expect(await db.sql("SELECT task_outcome FROM task_run")).toEqual([{ task_outcome: "CANCELLED" }]);
  });

  test("failed tasks are retried one by one, or by filter, with all their attempts", async () => {
    await tasks.enqueueMany(note, payloads(4));
    let broken = true;
    const handler = note.handle(() => {
      if (broken) throw new Error("broken");
    });
    await run(db, [handler]);
    const [first] = await db.sql<{ id: string }>("SELECT id FROM failed_task ORDER BY id");
    broken = false;
    expect(await act({ action: "retry", ids: [first!.id] })).toBe(1);
    expect(await act({ action: "retry", filter: { identifier: "other" } })).toBe(0);
    expect(await act({ action: "retry", filter: { identifier: "note" }, dryRun: true })).toBe(3);
    expect(await act({ action: "retry", filter: { identifier: "note" } })).toBe(3);
    expect((await run(db, [handler])).succeeded).toBe(4);
    expect(await db.sql("SELECT count(*)::int AS n FROM failed_task")).toEqual([{ n: 0 }]);
    expect((await operator.readAudit()).entries.map(({ who, action, count }) => [who, action, count])).toEqual([
      ["ada", "retry", 3],
      ["ada", "retry", 0],
      ["ada", "retry", 1],
    ]);
    expect(
      await db.sql("SELECT attempt, result FROM task_run WHERE task_id = $1 ORDER BY attempt", [first!.id]),
    ).toEqual([
      { attempt: 1, result: "FAILURE" },
      { attempt: 2, result: "SUCCESS" },
    ]);
  });

  test("a retry keeps a cancelled task whose key has been taken since, and loses none", async () => {
    const far = { delayUntil: new Date("2999-01-01"), key: "k" };
    for (let n = 0; n < 2; n += 1) {
      const { id } = (await tasks.enqueue(note, { n }, far)) as { id: string };
      expect(await act({ action: "cancel", ids: [id] })).toBe(1);
    }
    await tasks.enqueue(note, { n: 2 }, far);
    const all: ActionInput = { action: "retry", filter: { state: "cancelled", identifier: "note" } };
    expect(await act(all)).toBe(0);
    expect(await db.sql("SELECT id FROM failed_task ORDER BY id")).toEqual([{ id: "1" }, { id: "2" }]);
    await db.sql("DELETE FROM task");
    expect(await act(all)).toBe(1);
    expect(await act({ action: "retry", ids: ["1"] })).toBe(0);
    expect(await db.sql("SELECT id FROM task UNION ALL SELECT id FROM failed_task ORDER BY id")).toEqual([
      { id: "1" },
      { id: "2" },
    ]);
  });

  test.each([
    "failed",
    "released",
    "ended",
    "lost",
  ])("a cancel is not forgotten when the run was %s before its holder heard", async (how) => {
    await register(db, "r1", { note: {} });
    await tasks.enqueue(defineTask({ identifier: "note", payload: numbered }), { n: 1 });
    const holder = new Speaker(db, { slot: 1 });
    const [task] = (await holder.say()).tasks;
    expect(await act({ action: "cancel", ids: [task!.id] })).toBe(1);
    if (how === "failed") await holder.say({ results: [failure(task!)] });
    if (how === "released") await holder.say({ results: [{ ...success(task!), outcome: "RELEASED" }] });
    if (how === "ended") await holder.say({ ending: true });
    if (how === "lost") {
      await holder.fallSilent();
      const witness = new Speaker(db);
      await witness.say({ want: 0 });
      await witness.becomeWitness();
      await witness.say({ want: 0 });
    }
    expect(await db.sql("SELECT 1 FROM task")).toHaveLength(0);
    expect(await db.sql("SELECT outcome FROM failed_task")).toEqual([{ outcome: "CANCELLED" }]);
  });

  test("a handler's progress and result are kept; what is too large is not", async () => {
    await tasks.enqueue(note, { n: 1 });
    await tasks.enqueue(note, { n: 2 });
    let refused: unknown;
    const go = Promise.withResolvers<void>();
    const running = run(db, [
      note.handle(async ({ n }, { progress }) => {
        if (n === 2) return "x".repeat(5000);
        progress({ done: 0.5 });
        try {
          progress("x".repeat(5000));
        } catch (error) {
          refused = error;
        }
        await go.promise;
        return { sent: n };
      }),
    ]);
    while ((await db.sql("SELECT 1 FROM task WHERE progress IS NOT NULL")).length === 0) await pause(20);
    expect(await db.sql("SELECT progress FROM task ORDER BY id LIMIT 1")).toEqual([{ progress: { done: 0.5 } }]);
    go.resolve();
    await running;
    expect(refused).toMatchObject({ code: "option_invalid" });
    expect(await db.sql("SELECT result_value FROM task_run ORDER BY task_id")).toEqual([
      { result_value: { sent: 1 } },
      { result_value: null },
    ]);
  });

  test("clean-up removes old runs in batches, keeps those of unfinished and failed tasks, and stops with its signal", async () => {
    await db.sql(
      "INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result) SELECT 1000 + n, 1, 'note', gen_random_uuid(), now() - interval '40 days', now() - interval '40 days', 'SUCCESS' FROM generate_series(1, 2500) n",
    );
    await db.sql(
      "INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result) VALUES (1, 1, 'note', gen_random_uuid(), now() - interval '40 days', now() - interval '40 days', 'FAILURE'), (2, 1, 'note', gen_random_uuid(), now(), now(), 'SUCCESS')",
    );
    await tasks.enqueue(note, { n: 1 });
    const { cleanUp: config } = readConfig({ TASK_DELETE_BATCH_SIZE: "1000" });
    await expect(cleanUp(db.database, config, AbortSignal.abort())).rejects.toThrow();
    expect((await cleanUp(db.database, config, new AbortController().signal)).task_run).toBe(2500);
    expect(await db.sql("SELECT task_id FROM task_run ORDER BY task_id")).toEqual([{ task_id: "1" }, { task_id: "2" }]);
  });
});
