/** LISTEN and NOTIFY beside polling: a processor whose next poll is minutes away hears of a task at once. */
import pg from "pg";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { attendDoorbell } from "../infra/doorbell.ts";
import { Bell } from "../lib/bell.ts";
import { pause } from "../lib/clock.ts";
import { createTaskClient } from "../lib/enqueue.ts";
import { createLog, type LogLine, silentLog } from "../lib/log.ts";
import { nap } from "./fixtures/tasks.ts";
import { ADAPTERS, openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { startStint, stint, until } from "./support/stint.ts";

describe("a container that listens", () => {
  let db: TestDatabase;
  beforeAll(async () => {
    db = await openDatabase("pg");
  });
  beforeEach(() => reset(db));

  /** Two and a half minutes between polls: more than a test waits. */
  const start = (...flags: string[]) =>
    startStint(
      [
        ...["run-task-processor", "--tasks", "test/fixtures/tasks.ts"],
        ...["--sleepintervalms", "150000", "--graceperiodms", "600000", ...flags],
      ],
      { DATABASE_URL: db.url },
    );
  const done = async (): Promise<number> =>
    (
      await db.sql<{ n: number }>(
        "SELECT count(*)::int AS n FROM task_run WHERE identifier = 'test.nap' AND result = 'SUCCESS'",
      )
    )[0]!.n;
  const threads = async (): Promise<number> => (await db.sql("SELECT FROM heartbeat")).length;
  const exchanges = async (): Promise<number> =>
    (await db.sql<{ n: number }>("SELECT coalesce(sum(seq), 0)::int AS n FROM heartbeat"))[0]!.n;

  test("runs what was enqueued with notify at once, and hears nothing of the rest", { timeout: 180_000 }, async () => {
    const processor = start("--listen", "--numthreads", "3");
    await until("it listens", () => processor.output().includes("the doorbell works"), processor);
    await until("its threads have looked", async () => (await threads()) === 3, processor);
    // A thread that found a schedule due looks again.
    let before = 0;
    let quiet = 0;
    await until(
      "they rest",
      async () => {
        const earlier = before;
        await pause(1000);
        before = await exchanges();
        quiet = before === earlier ? quiet + 1 : 0;
        return quiet === 3;
      },
      processor,
    );
    await createTaskClient({ database: db.database }).enqueue(nap, { ms: 1 });
    expect(await exchanges()).toBe(before);
    expect(await done()).toBe(0);
    await createTaskClient({ database: db.database, notify: true }).enqueue(nap, { ms: 1 });
    await until("both have run", async () => (await done()) === 2, processor);
    processor.child.kill("SIGTERM");
    expect((await processor.ended).code).toBe(0);
  });

  test("more than one thread can take goes to the others, without a poll", { timeout: 180_000 }, async () => {
    const processor = start("--listen", "--numthreads", "3", "--queuepopsize", "2");
    await until("it listens", () => processor.output().includes("the doorbell works"), processor);
    await until("its threads have looked", async () => (await threads()) === 3, processor);
    const naps = Array.from({ length: 6 }, () => ({ ms: 50_000 }));
    await createTaskClient({ database: db.database, notify: true }).enqueueMany(nap, naps);
    const holders = async () => db.sql("SELECT DISTINCT held_by FROM task WHERE held_by IS NOT NULL");
    await until("three hold them", async () => (await holders()).length === 3, processor);
    processor.child.kill("SIGKILL");
  });

  test("without DATABASE_URL there is nothing to listen on", async () => {
    const arns = {
      DATABASE_RESOURCE_ARN: "arn:aws:rds:eu-west-1:000000000000:cluster:one",
      DATABASE_SECRET_ARN: "arn:aws:secretsmanager:eu-west-1:000000000000:secret:one",
      DATABASE_NAME: "one",
    };
    const ended = await stint(["run-task-processor", "--tasks", "test/fixtures/tasks.ts", "--listen"], arns);
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining("--listen needs a connection of its own") });
  });
});

describe.each(ADAPTERS)("a producer that notifies, over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const tasks = createTaskClient({ database: db.database, notify: true });
  const heard: string[] = [];
  let listener: pg.Client;
  beforeAll(async () => {
    listener = new pg.Client({ connectionString: db.url });
    // The database may be dropped before this is closed.
    listener.on("error", () => {});
    await listener.connect();
    await listener.query(`LISTEN "${db.database.schema}"`);
    listener.on("notification", ({ payload }) => heard.push(payload ?? ""));
    return () => listener.end();
  });
  beforeEach(async () => {
    await reset(db);
    heard.length = 0;
  });
  /** What was committed before is delivered before the answer to this. */
  const settled = async () => {
    await listener.query("SELECT 1");
    return heard.length;
  };

  test("is heard once a commit, however many tasks", async () => {
    await tasks.enqueue(nap, { ms: 1 });
    expect(await settled()).toBe(1);
    await tasks.enqueueMany(nap, [{ ms: 1 }, { ms: 1 }]);
    expect(await settled()).toBe(2);
  });

  test("is not heard for what is due later, nor without being asked to notify", async () => {
    await tasks.enqueue(nap, { ms: 1 }, { delayUntil: new Date("2999-01-01") });
    await createTaskClient({ database: db.database }).enqueue(nap, { ms: 1 });
    expect(await settled()).toBe(0);
  });
});

test("a transaction is heard when it commits, and never when it rolls back", async () => {
  const db = await openDatabase("pg");
  const tasks = createTaskClient({ database: db.database, notify: true });
  const listener = new pg.Client({ connectionString: db.url });
  const producer = new pg.Client({ connectionString: db.url });
  await Promise.all([listener.connect(), producer.connect()]);
  let heard = 0;
  listener.on("notification", () => {
    heard += 1;
  });
  await listener.query(`LISTEN "${db.database.schema}"`);
  for (const [end, expected] of [
    ["ROLLBACK", 0],
    ["COMMIT", 1],
  ] as const) {
    await producer.query("BEGIN");
    await tasks.enqueue(nap, { ms: 1 }, { transaction: producer });
    await listener.query("SELECT 1");
    expect(heard).toBe(0);
    await producer.query(end);
    await listener.query("SELECT 1");
    expect(heard).toBe(expected);
  }
  await Promise.all([listener.end(), producer.end()]);
});

describe("the doorbell", () => {
  test("rings after it was cut off, for what it may have missed, and works again", { timeout: 180_000 }, async () => {
    const db = await openDatabase("pg");
    const stopped = new AbortController();
    let rings = 0;
    const attending = attendDoorbell({
      url: db.url,
      schema: db.database.schema,
      ring: () => {
        rings += 1;
      },
      log: silentLog,
      signal: stopped.signal,
    });
    const backend = async () =>
      db.sql<{ pid: number }>(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'stint doorbell' AND datname = current_database()",
      );
    const eventually = (what: string, holds: () => unknown) => until(what, holds);
    await eventually("it listens", () => rings === 1);
    const [first] = await backend();
    await db.sql("SELECT pg_terminate_backend($1)", [first!.pid]);
    await eventually("it rings by itself", () => rings === 2);
    await createTaskClient({ database: db.database, notify: true }).enqueue(nap, { ms: 1 });
    await eventually("it hears the next", () => rings === 3);
    stopped.abort();
    await attending;
    expect(await backend()).toEqual([]);
  });

  test("says so where notifications do not come back, and tries again", { timeout: 180_000 }, async () => {
    const db = await openDatabase("pg");
    const stopped = new AbortController();
    // As through a pooler: NOTIFY is taken, and nobody hears it.
    await db.sql("CREATE SCHEMA deaf");
    await db.sql("CREATE FUNCTION deaf.pg_notify(text, text) RETURNS integer LANGUAGE sql AS 'SELECT 1'");
    const lines: LogLine[] = [];
    const attending = attendDoorbell({
      url: `${db.url}${db.url.includes("?") ? "&" : "?"}options=${encodeURIComponent("-c search_path=deaf,pg_catalog")}`,
      schema: db.database.schema,
      ring: () => {},
      log: createLog((line) => lines.push(line)),
      signal: stopped.signal,
    });
    await until("it has tried twice", () => lines.length === 2);
    stopped.abort();
    await attending;
    for (const line of lines) expect(line).toMatchObject({ level: "warn", error: expect.stringContaining("pooler") });
  });
});

test("a bell is heard by one that is idle, in turn, and by all when none is", () => {
  const bell = new Bell();
  const heard: string[] = [];
  const idle: Record<string, boolean> = { a: true, b: true, c: false };
  const offs = Object.keys(idle).map((name) => bell.onRing({ idle: () => idle[name]!, hear: () => heard.push(name) }));
  bell.ring();
  bell.ring();
  bell.ring();
  expect(heard.splice(0)).toEqual(["a", "b", "a"]);
  idle.a = idle.b = false;
  bell.ring();
  expect(heard.splice(0).sort()).toEqual(["a", "b", "c"]);
  for (const off of offs) off();
  bell.ring();
  expect(heard).toEqual([]);
});
