import { AsyncLocalStorage } from "node:async_hooks";
import { beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { gather } from "../lib/batch.ts";
import { type BatchTask, createTaskClient, defineTask, TaskCancelError } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { createOperator } from "../lib/operate.ts";
import { createRegistry } from "../lib/registry.ts";
import type { TaskContext, TaskHandler } from "../lib/task.ts";
import { runHandler } from "../lib/testing.ts";
import { runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";

const numbered = z.object({ n: z.number() });
const soon = { kind: "fixed", delayMs: 0 } as const;
const greet = defineTask({ identifier: "greet", payload: numbered, maxAttempts: 2, backoff: soon });
const settings = { sleepIntervalMs: 100, graceMs: 5000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null };
const payloads = (count: number) => Array.from({ length: count }, (_, n) => ({ n }));
const numbersOf = (tasks: readonly BatchTask<{ n: number }>[]) => tasks.map(({ payload }) => payload.n);

describe.each(ADAPTERS)("a batch handler over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const tasks = createTaskClient({ database: db.database });
  beforeEach(() => reset(db));

  const run = (...handlers: TaskHandler[]) =>
    runInvocation({
      databases: [db.database],
      registry: createRegistry(handlers, null),
      slot: 0,
      resident: false,
      settings,
      log: silentLog,
    });
  const outcomes = () =>
    db.sql(
      "SELECT identifier, attempt, result, task_outcome, result_value, split_part(error_details, E'\\n', 1) AS error FROM task_run ORDER BY task_id, attempt",
    );

  test("is given what was claimed together; each task is a run of its own", async () => {
    await tasks.enqueueMany(greet, payloads(25));
    const batches: number[][] = [];
    const ids = new Set<string>();
    const report = await run(
      greet.handleBatch((batch) => {
        batches.push(numbersOf(batch));
        for (const { context } of batch) ids.add(context.taskId);
        return batch;
      }),
    );
    expect(report).toMatchObject({ claimed: 25, succeeded: 25, failed: 0, left: "nothing_due" });
    expect(batches[0]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(batches.flat()).toEqual(payloads(25).map(({ n }) => n));
    expect(ids.size).toBe(25);
    expect(
      await db.sql(
        "SELECT count(*)::int AS runs FROM task_run WHERE task_outcome = 'SUCCEEDED' AND result_value IS NULL",
      ),
    ).toEqual([{ runs: 25 }]);
  });

  test("is given `batchSize` at the most, and kinds apart", async () => {
    const other = defineTask({ identifier: "other", payload: numbered });
    await tasks.enqueueMany(greet, payloads(7));
    await tasks.enqueueMany(other, payloads(3));
    const batches: unknown[] = [];
    await run(
      greet.handleBatch((batch) => void batches.push(numbersOf(batch)), { batchSize: 3 }),
      other.handleBatch((batch) => void batches.push(numbersOf(batch))),
    );
    expect(batches).toHaveLength(4);
    expect(batches).toEqual(expect.arrayContaining([[0, 1, 2], [3, 4, 5], [6]]));
  });

  test("ends some of its tasks one by one, and the others with itself", async () => {
    await tasks.enqueueMany(greet, payloads(5));
    let handedIn: unknown;
    await run(
      greet.handleBatch(async ([kept, failed, cancelled, ...rest]) => {
        if (kept === undefined || kept.context.attempt > 1) return;
        kept.succeed({ kept: true });
        failed!.fail(new Error("this one"));
        cancelled!.fail(new TaskCancelError("never again"));
        kept.fail(new Error("too late"));
        // Handed in while the batch goes on.
        const firstRuns = async () => (await outcomes()).filter(({ attempt }) => attempt === 1);
        await vi.waitUntil(async () => (await firstRuns()).length === 3, 30_000);
        handedIn = await firstRuns();
        for (const { context } of rest) context.progress({ half: true });
      }),
    );
    const first = [
      {
        identifier: "greet",
        attempt: 1,
        result: "SUCCESS",
        task_outcome: "SUCCEEDED",
        result_value: { kept: true },
        error: null,
      },
      {
        identifier: "greet",
        attempt: 1,
        result: "FAILURE",
        task_outcome: null,
        result_value: null,
        error: "Error: this one",
      },
      expect.objectContaining({
        attempt: 1,
        result: "FAILURE",
        task_outcome: "CANCELLED",
        error: expect.stringContaining("never again"),
      }),
    ];
    expect(handedIn).toEqual(first);
    const success = {
      identifier: "greet",
      result: "SUCCESS",
      task_outcome: "SUCCEEDED",
      result_value: null,
      error: null,
    };
    expect(await outcomes()).toEqual([
      first[0],
      first[1],
      { ...success, attempt: 2 },
      first[2],
      { ...success, attempt: 1 },
      { ...success, attempt: 1 },
    ]);
  });

  test("that throws fails all that it has not ended; each is retried until its attempts are out", async () => {
    await tasks.enqueueMany(greet, payloads(3));
    const report = await run(
      greet.handleBatch((batch) => {
        batch.find(({ payload }) => payload.n === 1)?.succeed();
        throw new Error("no connection");
      }),
    );
    expect(report).toMatchObject({ succeeded: 1, failed: 4 });
    expect(await db.sql("SELECT payload, attempt FROM failed_task ORDER BY id")).toEqual([
      { payload: { n: 0 }, attempt: 2 },
      { payload: { n: 2 }, attempt: 2 },
    ]);
  });

  test("never sees a payload that does not fit; the others run", async () => {
    await tasks.enqueueMany(greet, payloads(3));
    await db.sql(`UPDATE task SET payload = '{"n": "one"}' WHERE (payload->>'n')::int = 1`);
    const seen: number[] = [];
    await run(greet.handleBatch((batch) => void seen.push(...numbersOf(batch))));
    expect(seen).toEqual([0, 2]);
    expect(await db.sql("SELECT attempt, held_by FROM task")).toEqual([{ attempt: 1, held_by: null }]);
  });

  test("that does not end times out, task by task", async () => {
    const slow = defineTask({ identifier: "slow", payload: numbered, timeoutMs: 50, maxAttempts: 1 });
    await tasks.enqueueMany(slow, payloads(2));
    const reasons: unknown[] = [];
    await run(
      slow.handleBatch(
        (batch) =>
          new Promise<void>((resolve) => {
            for (const { context } of batch) {
              context.signal.addEventListener("abort", () => {
                if (reasons.push(context.signal.reason) === batch.length) resolve();
              });
            }
          }),
      ),
    );
    expect(reasons).toEqual([
      expect.objectContaining({ code: "aborted", message: expect.stringContaining("timed out") }),
      expect.objectContaining({ code: "aborted", message: expect.stringContaining("timed out") }),
    ]);
    expect(await db.sql("SELECT count(*)::int AS failed FROM failed_task WHERE outcome = 'FAILED'")).toEqual([
      { failed: 2 },
    ]);
  });

  test("goes on when an operator cancels one of its tasks", async () => {
    await tasks.enqueueMany(greet, payloads(3));
    const operator = createOperator({ databases: [db.database], who: "ada" });
    await run(
      greet.handleBatch(async (batch) => {
        const { context } = batch[1]!;
        await operator.act({ action: "cancel", ids: [context.taskId] });
        await vi.waitUntil(() => context.signal.aborted, 30_000);
        expect(batch.map((task) => task.context.signal.aborted)).toEqual([false, true, false]);
      }),
    );
    expect((await outcomes()).map(({ task_outcome }) => task_outcome)).toEqual(["SUCCEEDED", "CANCELLED", "SUCCEEDED"]);
  });
});

test("one that was gathered and then lost its lease, or was cancelled, is not given to the batch", async () => {
  const context = {} as TaskContext;
  const seen: number[] = [];
  const join = gather<number>((batch) => void seen.push(...batch.map(({ payload }) => payload)), 10);
  let holds = true;
  const ended = Promise.all([
    join(1, context, { mayStart: () => true }),
    join(2, context, { mayStart: () => holds }),
    join(3, context),
  ]);
  holds = false;
  await ended;
  expect(seen).toEqual([1, 3]);
  await join(4, context, { mayStart: () => false });
  expect(seen).toEqual([1, 3]);
});

test.each([
  1, 2, 3, 10,
])("runs in the async context, so under the span, of its first task, also of at most %i", async (batchSize) => {
  const span = new AsyncLocalStorage<number>();
  const ran: [number | undefined, number[]][] = [];
  const join = gather<number>(
    (batch) => void ran.push([span.getStore(), batch.map(({ payload }) => payload)]),
    batchSize,
  );
  await Promise.all(payloads(7).map(({ n }) => span.run(n, async () => join(n, {} as TaskContext))));
  expect(ran.flatMap(([, batch]) => batch)).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(ran).toHaveLength(Math.ceil(7 / batchSize));
  for (const [under, batch] of ran) expect(under).toBe(batch[0]);
});

test("runs alone in a test, and where tasks run in the producer's process", async () => {
  const db = await openDatabase("pg");
  const seen: number[][] = [];
  const handler = greet.handleBatch((batch) => {
    seen.push(numbersOf(batch));
    batch[0]!.succeed("done");
  });
  expect(await runHandler(handler, { n: 7 })).toEqual({ value: "done", progress: [] });
  const client = createTaskClient({
    database: db.database,
    runMethod: "SYNCHRONOUSLY",
    handlers: async () => ({ handler }),
  });
  expect(await client.enqueueMany(greet, payloads(2))).toEqual({ status: "ran" });
  expect(seen).toEqual([[7], [0], [1]]);
});

test.each([0, 2001, 1.5, "3"])("a batch size of %s is refused by name", (batchSize) => {
  expect(() => greet.handleBatch(() => {}, { batchSize: batchSize as number })).toThrow(
    expect.objectContaining({ code: "definition_invalid", message: expect.stringContaining("batchSize") }),
  );
});
