/** What the packaged processor writes on Lambda: a line a run, metrics in CloudWatch's embedded format, never a payload. */
import { rmSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { deliverWebhook } from "../functions/tasks/definitions.ts";
import { positional } from "../lib/database/parameters.ts";
import type { Statement } from "../lib/database/port.ts";
import { createTaskClient } from "../lib/index.ts";
import { Sample } from "../lib/sample.ts";
import { BACKLOG_LIMIT, readBacklog } from "../lib/sql/backlog.ts";
import { root, temporaryFolder } from "./support/command.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";
import { documentsIn } from "./support/emf.ts";
import { enqueueRaw, register, Speaker } from "./support/exchange.ts";
import { type Packaged, packageProcessor, startPackaged, startReceiver } from "./support/package.ts";
import type { Sandbox } from "./support/runtime-api.ts";
import { startNode } from "./support/stint.ts";

const CANARY = "never-in-a-log";
/** Else it would be due again a second later, to an invocation that takes so long. */
const FAILS_ONCE = "UPDATE task SET max_attempts = 1 WHERE payload->>'url' LIKE '%/fail'";
const TRACE = "0af7651916cd43dd8448eb211c80319c";
const folder = temporaryFolder();
const hooks = await startReceiver();

let packaged: Packaged;
beforeAll(async () => {
  packaged = await packageProcessor(folder);
}, 180_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Line {
  readonly [name: string]: unknown;
}

/** Every line on either stream is a JSON object. */
const linesOf = (sandbox: Sandbox): Line[] =>
  sandbox.output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

describe("on Lambda", async () => {
  const db = await openDatabase("data-api");
  beforeEach(() => reset(db));
  const tasks = createTaskClient({ database: db.database });
  const webhook = (path: string) => ({ url: `${hooks.url}${path}`, event: "order.paid", body: { secret: CANARY } });
  const start = (more: Record<string, string> = {}) => startPackaged(packaged, db, { more });

  test("every run has its line, with its trace, and no payload is ever written", async () => {
    await tasks.enqueueMany(deliverWebhook, [webhook("/"), webhook("/"), webhook("/fail")]);
    await db.sql("SELECT enqueue_task($1, $2)", [deliverWebhook.identifier, { url: 7, secret: CANARY }]);
    await db.sql(FAILS_ONCE);
    await db.sql("UPDATE task SET trace_parent = $1 WHERE id = 1", [`00-${TRACE}-b7ad6b7169203331-01`]);
    const sandbox = await start();
    expect((await sandbox.invoke({ slot: 0 })).status).toBe("succeeded");
    const lines = linesOf(sandbox).filter(({ message }) => message === "task run");
    const stored = await db.sql<{ task: string; identifier: string; attempt: number; outcome: string }>(
      "SELECT CAST(task_id AS text) AS task, identifier, attempt, result AS outcome FROM task_run ORDER BY task_id, attempt",
    );
    expect(stored.filter(({ outcome }) => outcome === "FAILURE")).toHaveLength(2);
    const told = lines.map(({ task, identifier, attempt, outcome }) => ({ task, identifier, attempt, outcome }));
    expect(told.sort((a, b) => Number(a.task) - Number(b.task) || Number(a.attempt) - Number(b.attempt))).toEqual(
      stored,
    );
    expect(new Set(lines.map(({ level }) => level))).toEqual(new Set(["INFO"]));
    expect(lines.filter(({ traceId }) => traceId === TRACE).map(({ task }) => task)).toEqual(["1"]);
    expect(sandbox.output).not.toContain(CANARY);
  });

  test("a stack names the sources, though Node reads no source map when it starts", async () => {
    await tasks.enqueue(deliverWebhook, webhook("/fail"));
    const sandbox = await start({ NODE_OPTIONS: "" });
    await sandbox.invoke({ slot: 0 });
    const [{ error } = { error: "" }] = await db.sql<{ error: string }>(
      "SELECT error_details AS error FROM task_run WHERE identifier = $1",
      [deliverWebhook.identifier],
    );
    const [first, ...frames] = error.split("\n");
    expect(first).toBe("Error: The receiver answered 500.");
    expect(frames[0]).toMatch(/^ {4}at .*functions\/tasks\/webhooks\.handler\.ts:\d+:\d+\)?$/);
    expect(frames.join("\n")).toMatch(/lib\/attempt\.ts:\d+/);
    expect(error).not.toContain("file:");
  });

  test("every line names the request; the first of a process says that it started cold", async () => {
    const sandbox = await start();
    for (let n = 0; n < 2; n += 1) await sandbox.invoke({ slot: 0 });
    const ended = linesOf(sandbox).filter(({ message }) => message === "invocation ended");
    expect(ended.map(({ cold_start, service }) => ({ cold_start, service }))).toEqual([
      { cold_start: true, service: "stint-test-processor" },
      { cold_start: false, service: "stint-test-processor" },
    ]);
    const ids = new Set(ended.map(({ function_request_id }) => function_request_id));
    expect(ids.size).toBe(2);
    const others = linesOf(sandbox).filter((line) => !("_aws" in line));
    expect(others.filter(({ function_request_id }) => !ids.has(function_request_id))).toEqual([]);
  });

  test("one metrics document an invocation, valid, with what the database says", async () => {
    await tasks.enqueueMany(deliverWebhook, [...Array.from({ length: 120 }, () => webhook("/")), webhook("/fail")]);
    await db.sql(FAILS_ONCE);
    await db.sql("UPDATE task SET scheduled_for = scheduled_for - interval '1 hour'");
    await enqueueRaw(db, "nobody.knows", 3);
    await db.sql(
      "UPDATE task SET scheduled_for = scheduled_for - interval '2 hours' WHERE identifier = 'nobody.knows'",
    );
    // Another resident lives.
    await register(db, "r1", {});
    await new Speaker(db, { slot: 1 }).say();
    const sandbox = await start({ TASK_PROCESSOR_RESIDENT_SLOTS: "2" });
    const { body } = await sandbox.invoke({ slot: 0 });
    const [document, ...more] = documentsIn(sandbox.stdout);
    expect(more).toEqual([]);
    expect(document).toMatchObject({
      namespace: "Stint",
      dimensions: [{ Service: "stint-test-processor" }],
      values: {
        TasksClaimed: [body.claimed],
        TasksSucceeded: [body.succeeded],
        TasksFailed: [1],
        TasksRescued: [0],
        StaleCompletions: [0],
        Requests: [body.requests],
        InvocationDurationMs: [body.durationMs],
        Backlog: [3],
        LiveResidents: [1],
      },
    });
    const { PickUpMs, OldestDueSeconds } = document!.values;
    expect(PickUpMs).toHaveLength(99);
    expect(PickUpMs!.filter((ms) => ms >= 3_600_000 && ms < 3_700_000).length).toBeGreaterThan(90);
    expect(OldestDueSeconds![0]).toBeGreaterThanOrEqual(7200);
    expect(OldestDueSeconds![0]).toBeLessThan(7300);
  });

  test("slot 0 alone looks at the backlog; a failed invocation counts as one", async () => {
    const sandbox = await start();
    await sandbox.invoke({ slot: 1 });
    expect((await sandbox.invoke({ slot: 99 })).status).toBe("failed");
    const [quiet, failed] = documentsIn(sandbox.stdout);
    expect(Object.keys(quiet!.values).filter((name) => /Backlog|Oldest|Residents/.test(name))).toEqual([]);
    expect(failed!.values).toEqual({ InvocationsFailed: [1] });
    expect(linesOf(sandbox).filter(({ level }) => level === "WARN")).toEqual([]);
  });

  test("a backlog that cannot be read costs the invocation nothing", async () => {
    // Only this statement fails.
    db.dataApi!.faults.set({ match: "WITH RECURSIVE kind", serverError: 1 });
    const sandbox = await start();
    const { status } = await sandbox.invoke({ slot: 0 }).finally(() => db.dataApi!.faults.clear());
    expect(status).toBe("succeeded");
    expect(documentsIn(sandbox.stdout)[0]!.values).toMatchObject({ TasksClaimed: [expect.any(Number)] });
    expect(linesOf(sandbox).map(({ message }) => message)).toContain("the backlog could not be read");
  });
});

describe("the backlog", () => {
  test.each(ADAPTERS)("%s: due and free, oldest first, residents that live", async (adapter) => {
    const db = await openDatabase(adapter);
    const read = async () => (await db.database.query(readBacklog, { residents: 2, graceMs: 20_000 }))[0];
    expect(await read()).toEqual({ backlog: 0, oldestDueSeconds: 0, liveResidents: 0 });
    await enqueueRaw(db, "a", 2);
    await enqueueRaw(db, "b", 1, { priority: 0 });
    await enqueueRaw(db, "suspect", 1);
    await enqueueRaw(db, "later", 5, { dueInMs: 1 });
    await db.sql("UPDATE task SET scheduled_for = now() + interval '1 hour' WHERE identifier = 'later'");
    await db.sql(
      "UPDATE task SET suspect_since = now(), scheduled_for = now() - interval '46 s' WHERE identifier = 'suspect'",
    );
    await register(db, "r1", { none: {} });
    const residents = [0, 1, 2].map((slot) => new Speaker(db, { slot }));
    for (const one of residents) await one.say();
    expect(await read()).toEqual({ backlog: 4, oldestDueSeconds: expect.closeTo(50, -1), liveResidents: 2 });
    await residents[0]!.fallSilent();
    await residents[1]!.say({ ending: true });
    expect(await read()).toMatchObject({ liveResidents: 0 });
  });

  test("is counted up to its limit, and looked for by index however many tasks wait", async () => {
    const db = await openDatabase("pg");
    await db.sql(
      `INSERT INTO task (identifier, scheduled_for) SELECT 'k' || n % 5, now() + interval '1 day' FROM generate_series(1, 60000) n`,
    );
    await db.sql("VACUUM ANALYZE task");
    const blocks = async (): Promise<number> => {
      const { text, names } = positional(readBacklog as unknown as Statement, "task_processor");
      const values = names.map((name) => (name === "residents" ? 2 : 20_000));
      const [row] = await db.sql<{ "QUERY PLAN": [{ Plan: Record<string, number> }] }>(
        `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${text}`,
        values,
      );
      const plan = row!["QUERY PLAN"][0].Plan;
      return plan["Shared Hit Blocks"]! + plan["Shared Read Blocks"]!;
    };
    expect(await blocks()).toBeLessThan(100);
    await db.sql("UPDATE task SET scheduled_for = now() WHERE id <= 20000");
    await db.sql("VACUUM ANALYZE task");
    const [row] = await db.database.query(readBacklog, { residents: 2, graceMs: 20_000 });
    expect(row?.backlog).toBe(BACKLOG_LIMIT);
    // A look at each of 60,000 is many times that.
    expect(await blocks()).toBeLessThan(1500);
  });
});

test("a line keeps its level and message whatever its fields are named, and never throws", async () => {
  const script = `const { createLog } = await import(${JSON.stringify(new URL("../lib/log.ts", import.meta.url).href)});
    const log = createLog(); const cyclic = {}; cyclic.me = cyclic;
    log.info("one", { level: 5, message: "mine" }); log.warn("two", { count: 1n, error: new Error("boom") }); log.error("three", { cyclic });`;
  const written = async (env: Record<string, string>) =>
    (await startNode(["--input-type=module", "-e", script], env, root).ended).stderr.trim().split("\n");
  const lines = (await written({})).map((line) => JSON.parse(line));
  expect(lines).toEqual([
    { level: "INFO", message: "one", timestamp: expect.any(String) },
    {
      level: "WARN",
      message: "two",
      timestamp: expect.any(String),
      count: "1",
      error: expect.stringContaining("Error: boom"),
    },
    { level: "ERROR", message: "three", timestamp: expect.any(String), fields: "not JSON" },
  ]);
  const shown = await written({ NODE_ENV: "development" });
  expect(shown.filter((line) => /^\S+Z (info|warn|error) +(one|two|three)/.test(line))).toHaveLength(3);
});

test("a sample holds at most its size, from all over", () => {
  const sample = new Sample(99);
  for (let n = 0; n < 10_000; n += 1) sample.add(n);
  expect(sample.values).toHaveLength(99);
  expect(sample.values.some((value) => value > 5000)).toBe(true);
  expect(sample.values.some((value) => value < 5000)).toBe(true);
});

test("elsewhere: JSON for machines, lines for people where NODE_ENV is development, debug lines when asked for", async () => {
  const script = `const { createLog } = await import(${JSON.stringify(new URL("../lib/log.ts", import.meta.url).href)});
    const log = createLog().with({ slot: 1 }); log.debug("detail"); log.info("task run", { outcome: "SUCCESS", why: "two words" });`;
  const written = async (env: Record<string, string>) =>
    (await startNode(["--input-type=module", "-e", script], env, root).ended).stderr.trim().split("\n");
  const [line, ...more] = await written({});
  expect(more).toEqual([]);
  expect(JSON.parse(line!)).toEqual({
    level: "INFO",
    message: "task run",
    timestamp: expect.any(String),
    slot: 1,
    outcome: "SUCCESS",
    why: "two words",
  });
  expect(await written({ LOG_LEVEL: "debug" })).toHaveLength(2);
  expect((await written({ NODE_ENV: "development" }))[0]).toMatch(
    /^\S+Z info {2}task run slot=1 outcome=SUCCESS why="two words"$/,
  );
});
