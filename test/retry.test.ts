import { describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { backoffMs, delayFor } from "../lib/backoff.ts";
import { pause } from "../lib/clock.ts";
import { createTaskClient, defineTask, TaskBackoffError } from "../lib/index.ts";
import { createRegistry } from "../lib/registry.ts";
import { drainTasks } from "../lib/testing.ts";
import { openDatabase } from "./support/database.ts";

const payload = z.object({});

describe("back-off", () => {
  test("exponential: 1..2 s, 2..4 s, 4..8 s ... at most 1 h", () => {
    expect([1, 2, 3, 4].map((failures) => [backoffMs(failures, 0), backoffMs(failures, 1)])).toEqual([
      [1000, 2000],
      [2000, 4000],
      [4000, 8000],
      [8000, 16_000],
    ]);
    expect(backoffMs(1000, 1)).toBe(3_600_000);
    expect(() => backoffMs(0)).toThrow(RangeError);
  });

  test("fixed, exponential with a cap, a function; one that throws falls back to the default", () => {
    expect(delayFor({ kind: "fixed", delayMs: 7 }, 5)).toBe(7);
    expect(delayFor({ kind: "exponential", baseMs: 10, capMs: 15 }, 9)).toBeGreaterThanOrEqual(7.5);
    expect(delayFor({ kind: "exponential", baseMs: 10, capMs: 15 }, 9)).toBeLessThanOrEqual(15);
    expect(delayFor((failures) => failures * 3, 4)).toBe(12);
    for (const bad of [
      () => Number.NaN,
      () => -1,
      () => {
        throw new Error("no");
      },
    ])
      expect(delayFor(bad, 1)).toBeGreaterThanOrEqual(1000);
  });

  test("TaskBackoffError without a time waits for the configured default", async () => {
    const db = await openDatabase("pg");
    const patient = defineTask({ identifier: "patient", payload });
    await createTaskClient({ database: db.database }).enqueue(patient, {});
    await drainTasks({
      database: db.database,
      handlers: [
        patient.handle(() => {
          throw new TaskBackoffError();
        }),
      ],
    });
    const [row] = await db.sql<{ ms: number }>(
      "SELECT extract(epoch FROM t.scheduled_for - r.finished_at) * 1000 AS ms FROM task t JOIN task_run r ON r.task_id = t.id",
    );
    expect(Number(row!.ms)).toBeGreaterThanOrEqual(5000);
    expect(Number(row!.ms)).toBeLessThan(60_000);
  });
});

test("a task has as many attempts as its enqueue says, else as its definition says", async () => {
  const db = await openDatabase("pg");
  const failing = defineTask({
    identifier: "failing",
    payload,
    maxAttempts: 2,
    backoff: { kind: "fixed", delayMs: 0 },
  });
  const tasks = createTaskClient({ database: db.database });
  await tasks.enqueue(failing, {});
  await tasks.enqueue(failing, {}, { maxAttempts: 1 });
  await tasks.enqueue(failing, {}, { maxAttempts: 1, key: "replaced" });
  await tasks.enqueue(failing, {}, { maxAttempts: 3, key: "replaced", onDuplicate: "replace" });
  await tasks.enqueueMany(failing, [{}, {}], { maxAttempts: 4 });
  for (const maxAttempts of [0, 1001, 1.5, "3"]) {
    await expect(tasks.enqueue(failing, {}, { maxAttempts: maxAttempts as number })).rejects.toMatchObject({
      code: "option_invalid",
      message: expect.stringContaining("maxAttempts"),
    });
  }
  const handler = failing.handle(() => {
    throw new Error("no");
  });
  await drainTasks({ database: db.database, handlers: [handler] });
  expect(await db.sql("SELECT attempt FROM failed_task ORDER BY id")).toEqual(
    [2, 1, 3, 4, 4].map((attempt) => ({ attempt })),
  );
});

test("what a handler does after its timeout changes nothing", async () => {
  const db = await openDatabase("pg");
  const late = defineTask({ identifier: "late", payload, timeoutMs: 50, maxAttempts: 1 });
  await createTaskClient({ database: db.database }).enqueue(late, {});
  let ended = false;
  const handler = late.handle(async (_, { progress }) => {
    await pause(1300);
    progress({ late: true });
    ended = true;
    return { late: true };
  });
  await drainTasks({ database: db.database, handlers: [handler] });
  while (!ended) await pause(20);
  expect(await db.sql("SELECT result, task_outcome, result_value FROM task_run")).toEqual([
    { result: "FAILURE", task_outcome: "FAILED", result_value: null },
  ]);
});

test("a timeout that can never fit is refused at registration; two handlers of one identifier too", () => {
  const long = defineTask({ identifier: "long", payload, timeoutMs: 890_001 }).handle(() => {});
  const refused = expect.objectContaining({ code: "definition_invalid" });
  expect(() => createRegistry([long], 900_000)).toThrow(refused);
  expect(createRegistry([long], null).handlers.size).toBe(1);
  expect(() => createRegistry([long, long], null)).toThrow(refused);
});

test.each([
  ["identifier", { identifier: "" }],
  ["identifier", { identifier: "a\0b" }],
  ["payload", { payload: {} }],
  ["priority", { priority: "toString" }],
  ["timeoutMs", { timeoutMs: 0 }],
  ["maxAttempts", { maxAttempts: 1.5 }],
  ["queueSize", { queueSize: 0 }],
  ["queueSize", { queueSize: -1 }],
  ["concurrency", { concurrency: 0 }],
  ["backoff", { backoff: { kind: "fixed" } }],
  ["backoff", { backoff: "soon" }],
])("a definition with a bad %s is refused by name", (name, bad) => {
  expect(() => defineTask({ identifier: "x", payload, ...bad } as never)).toThrow(
    expect.objectContaining({ code: "definition_invalid", message: expect.stringContaining(name) }),
  );
});
