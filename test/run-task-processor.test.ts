import { beforeAll, beforeEach, expect, test } from "vitest";
import { createTaskClient } from "../lib/enqueue.ts";
import { deaf, nap } from "./fixtures/tasks.ts";
import { openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { type Running, startStint, stint, until } from "./support/stint.ts";

let db: TestDatabase;

beforeAll(async () => {
  db = await openDatabase("pg");
});

beforeEach(() => reset(db));

const start = (...flags: string[]): Running =>
  startStint(["run-task-processor", "--tasks", "test/fixtures/tasks.ts", "--sleepintervalms", "100", ...flags], {
    DATABASE_URL: db.url,
  });

const stop = async ({ child, ended }: Running, signal: NodeJS.Signals = "SIGTERM") => {
  child.kill(signal);
  return await ended;
};

const enqueueNaps = async (count: number, ms: number): Promise<void> => {
  await createTaskClient({ database: db.database }).enqueueMany(
    nap,
    Array.from({ length: count }, () => ({ ms })),
  );
};

/** Of tasks and runs those of the test: a built-in schedule may come due beside them, as one does each ten minutes. */
const ofTheTest = (from: string): string =>
  from.replace(/^(task|task_run)\b/, "(SELECT * FROM $1 WHERE identifier LIKE 'test.%') AS $1");

const count = async (from: string): Promise<number> =>
  Number((await db.sql<{ count: string }>(`SELECT count(*) FROM ${ofTheTest(from)}`))[0]!.count);

/** Slots somebody sits on, in order. */
const taken = async (): Promise<number[]> =>
  (
    await db.sql<{ number: number }>(
      "SELECT number FROM slot JOIN heartbeat ON invocation_id = holder WHERE ended_at IS NULL AND expired_at IS NULL ORDER BY number",
    )
  ).map(({ number }) => number);

test("two replicas add up: each thread has a slot of its own, and both work", async () => {
  const first = start("--numthreads", "2", "--queuepopsize", "2");
  await until("the first has its slots", async () => (await taken()).length === 2, first);
  const second = start("--numthreads", "3", "--queuepopsize", "2");
  await until("the second has its slots", async () => (await taken()).length === 5, first, second);
  expect(await taken()).toEqual([0, 1, 2, 3, 4]);
  // As many long ones as all threads can take at a time: nobody takes another's share.
  await enqueueNaps(10, 8000);
  await until("all threads are busy", async () => (await count("task WHERE held_by IS NULL")) === 0, first, second);
  await enqueueNaps(50, 200);
  await until("all are done", async () => (await count("task")) === 0, first, second);
  expect(await count("task_run WHERE result = 'SUCCESS'")).toBe(60);
  expect(await count("(SELECT DISTINCT slot FROM task_run JOIN heartbeat USING (invocation_id)) s")).toBe(5);
  expect((await stint(["checktaskprocessorthreadhealth"], { DATABASE_URL: db.url })).code).toBe(0);
  const ends = await Promise.all([stop(first), stop(second, "SIGINT")]);
  expect(ends.map(({ code }) => code)).toEqual([0, 0]);
  expect(await taken()).toEqual([]);
});

test("SIGTERM finishes what runs, releases the rest, and exits 0", async () => {
  await enqueueNaps(30, 500);
  const processor = start("--numthreads", "1", "--queuepopsize", "10");
  await until("it runs tasks", async () => (await count("task WHERE held_by IS NOT NULL")) > 0, processor);
  const { code, stderr } = await stop(processor);
  expect(code).toBe(0);
  expect(stderr).toContain("SIGTERM");
  expect(await count("task WHERE held_by IS NOT NULL")).toBe(0);
  expect(await count("task_run WHERE result = 'FAILURE'")).toBe(0);
  expect((await count("task_run")) + (await count("task"))).toBe(30);
  expect(await count("task_run")).toBeGreaterThan(0);
  expect(await count("heartbeat WHERE ended_at IS NULL")).toBe(0);
  const next = start("--numthreads", "2");
  await until("the rest is done", async () => (await count("task")) === 0, next);
  expect(await count("task_run WHERE result = 'SUCCESS'")).toBe(30);
  expect((await stop(next)).code).toBe(0);
});

test("a task that outlives half the grace period at SIGTERM is given back, unharmed", async () => {
  await enqueueNaps(1, 30_000);
  const processor = start("--numthreads", "1", "--graceperiodms", "12000");
  await until("it runs", async () => (await count("task WHERE held_by IS NOT NULL")) === 1, processor);
  expect((await stop(processor)).code).toBe(0);
  expect(await db.sql(`SELECT held_by, attempt - forgiven AS used FROM ${ofTheTest("task")}`)).toEqual([
    { held_by: null, used: 0 },
  ]);
});

test("a second signal ends it at once", async () => {
  await enqueueNaps(1, 30_000);
  const processor = start("--numthreads", "1", "--graceperiodms", "60000");
  await until("it runs", async () => (await count("task WHERE held_by IS NOT NULL")) === 1, processor);
  processor.child.kill("SIGTERM");
  await until("it has heard", () => processor.output().includes("SIGTERM"));
  await new Promise((resolve) => setTimeout(resolve, 400));
  expect((await stop(processor)).code).toBe(143);
  expect(await count("task WHERE held_by IS NOT NULL")).toBe(1);
});

test("a task that hears of no abort does not keep the process: it is given back, and the end is clean", async () => {
  await createTaskClient({ database: db.database }).enqueue(deaf, { ms: 60_000 });
  const processor = start("--numthreads", "1", "--graceperiodms", "12000");
  await until("it runs", async () => (await count("task WHERE held_by IS NOT NULL")) === 1, processor);
  expect((await stop(processor)).code).toBe(0);
  expect(await db.sql(`SELECT held_by FROM ${ofTheTest("task")}`)).toEqual([{ held_by: null }]);
});

test("what a killed replica held is finished by the other after the grace period", async () => {
  const flags = ["--numthreads", "1", "--queuepopsize", "4", "--graceperiodms", "10000"];
  const doomed = start(...flags);
  await until("it has its slot", async () => (await taken()).length === 1, doomed);
  await enqueueNaps(4, 50_000);
  await until("it holds them", async () => (await count("task WHERE held_by IS NOT NULL")) === 4, doomed);
  const heir = start(...flags);
  await until("the heir has a slot", async () => (await taken()).length === 2, doomed, heir);
  doomed.child.kill("SIGKILL");
  await doomed.ended;
  // Long naps kept them in its hands; what is left of them is short.
  await db.sql(`UPDATE task SET payload = '{"ms": 50}'`);
  await until("all are done", async () => (await count("task")) === 0, heir);
  expect(await count("task_run WHERE result = 'SUCCESS' AND task_outcome = 'SUCCEEDED'")).toBe(4);
  expect(await count("task_run WHERE error_details LIKE 'abandoned%'")).toBe(4);
  expect(
    (await stint(["checktaskprocessorthreadhealth", "--graceperiodms", "10000"], { DATABASE_URL: db.url })).stdout,
  ).toContain("slot 0: unhealthy");
  // The seat is free again: the next one to come takes it.
  const next = start(...flags);
  await until("the lowest slot is taken", async () => (await taken())[0] === 0, heir, next);
  expect((await Promise.all([stop(heir), stop(next)])).map(({ code }) => code)).toEqual([0, 0]);
});

test("a thread that a cloud tick displaces takes another seat", async () => {
  const processor = start("--numthreads", "1");
  await until("it has its slot", async () => (await taken()).length === 1, processor);
  await db.sql("UPDATE slot SET epoch = epoch + 1, holder = gen_random_uuid() WHERE number = 0");
  await db.sql(
    "INSERT INTO heartbeat (invocation_id, slot, epoch, release_id, seq) SELECT holder, 0, epoch, 'cloud', 1 FROM slot WHERE number = 0",
  );
  await until("it sits on another", async () => (await taken()).includes(1), processor);
  await enqueueNaps(1, 10);
  await until("it works there", async () => (await count("task")) === 0, processor);
  expect((await stop(processor)).code).toBe(0);
  expect(processor.output()).toContain('"left":"superseded"');
});

test("only so many threads are resident as asked; the others look and leave", async () => {
  const processor = start("--numthreads", "3", "--residentslots", "1");
  await until(
    "all have looked",
    async () => (await count("heartbeat")) === 3 && (await taken()).length === 1,
    processor,
  );
  expect((await stop(processor)).code).toBe(0);
});

test("a resident that sees more due than it can take calls the other threads at once", async () => {
  const processor = start("--numthreads", "4", "--residentslots", "1", "--queuepopsize", "2");
  await until("all have looked", async () => processor.output().includes("task processor started"), processor);
  await until(
    "the others have left",
    async () => (await count("heartbeat")) === 4 && (await taken()).length === 1,
    processor,
  );
  // A look is due a minute later: what follows is over before.
  await enqueueNaps(24, 4000);
  await until("all four work", async () => (await taken()).length === 4, processor);
  await until("all are done", async () => (await count("task")) === 0, processor);
  expect(await count("(SELECT DISTINCT invocation_id FROM task_run) r")).toBeGreaterThanOrEqual(4);
  await until("they have left again", async () => (await taken()).length === 1, processor);
  expect(processor.output()).not.toContain("could not wake");
  expect((await stop(processor)).code).toBe(0);
});

test("it waits for a database that is away, and stays alive", async () => {
  const processor = startStint(["run-task-processor", "--tasks", "test/fixtures/tasks.ts"], {
    DATABASE_URL: "postgres://nobody@127.0.0.1:1/none",
  });
  await until("it has tried twice", () => processor.output().split("database_unavailable").length > 2);
  expect((await stop(processor)).code).toBe(0);
});

test("of two databases, one that was away is drained again when it is back; the other goes on meanwhile", async () => {
  const other = await openDatabase("pg");
  const name = new URL(other.url).pathname.slice(1);
  const client = createTaskClient({ database: other.database });
  const processor = startStint(
    ["run-task-processor", "--tasks", "test/fixtures/tasks.ts", "--numthreads", "2", "--graceperiodms", "5000"],
    { DATABASE_URL: db.url, TASK_PROCESSOR_DATABASE_URL: other.url },
  );
  await client.enqueue(nap, { ms: 1 });
  await until(
    "both are drained",
    async () => (await taken()).length === 2 && (await other.sql("SELECT FROM task")).length === 0,
    processor,
  );
  await db.sql(`ALTER DATABASE "${name}" ALLOW_CONNECTIONS false`);
  await db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", [name]);
  await until("it has noticed", () => processor.output().includes('"database":"task_processor"'), processor);
  await enqueueNaps(5, 10);
  await until("the one that is there is drained", async () => (await count("task")) === 0, processor);
  await db.sql(`ALTER DATABASE "${name}" ALLOW_CONNECTIONS true`);
  const [{ back }] = (await other.sql("SELECT CAST(clock_timestamp() AS text) AS back")) as [{ back: string }];
  await client.enqueue(nap, { ms: 1 });
  await until(
    "the one that is back is drained",
    async () => (await other.sql("SELECT FROM task")).length === 0,
    processor,
  );
  // A thread that still waits for its next try may have left something held, and says so by its exit code.
  await until(
    "both threads have seats there again",
    async () =>
      (await other.sql("SELECT FROM heartbeat WHERE last_seen_at > $1 AND expired_at IS NULL", [back])).length === 2,
    processor,
  );
  expect((await stop(processor)).code).toBe(0);
});
