import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { store } from "../lib/enqueue-store.ts";
import {
  connectDatabase,
  createTaskClient,
  DatabaseError,
  defineTask,
  type TaskDefinition,
  type TaskHandler,
} from "../lib/index.ts";
import { createOperator } from "../lib/operate.ts";
import { PAYLOAD_BYTES, storedBytes } from "../lib/payload.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";
import { register, Speaker } from "./support/exchange.ts";

const payload = z.object({ text: z.string() });
const note = defineTask({ identifier: "note", payload });
const few = defineTask({ identifier: "few", payload, queueSize: 5 });

const nothing = undefined;
const failures = {
  unknown: new DatabaseError("database_outcome_unknown", "lost", "unknown", nothing, nothing),
  later: new DatabaseError("database_unavailable", "resuming", "later", nothing, nothing),
  now: new DatabaseError("database_failed", "deadlock", "now", "40P01", nothing),
  never: new DatabaseError("database_failed", "access denied", "never", nothing, nothing),
  payload: new DatabaseError("database_failed", 'check constraint "payload_is_small"', "never", "23514", nothing),
};

const definition = note as unknown as TaskDefinition;

describe.each(ADAPTERS)("enqueue over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const tasks = createTaskClient({ database: db.database });
  beforeEach(() => reset(db));
  const stored = async () => (await db.sql<{ n: number }>("SELECT count(*)::int AS n FROM task"))[0]!.n;

  test("stores the task with its definition's defaults and says its id, a string", async () => {
    const delayUntil = new Date("2999-01-01T00:00:00.000Z");
    expect(await tasks.enqueue(note, { text: "now" })).toEqual({ status: "enqueued", id: "1" });
    await tasks.enqueue(note, { text: "later" }, { delayUntil, priority: "HIGHEST" });
    expect(await db.sql("SELECT payload, priority, max_attempts FROM task ORDER BY id")).toEqual([
      { payload: { text: "now" }, priority: 50, max_attempts: 3 },
      { payload: { text: "later" }, priority: 0, max_attempts: 3 },
    ]);
    expect((await db.sql("SELECT scheduled_for FROM task WHERE id = 2"))[0]).toEqual({ scheduled_for: delayUntil });
  });

  test.each([
    ["does not fit its schema", { text: 1 }, "payload_invalid"],
    ["is not JSON", 1n, "payload_not_json"],
    ["has NUL in it", { text: "a\0b" }, "payload_not_json"],
    ["has a lone surrogate in it", { text: "a\ud800b" }, "payload_not_json"],
    ["is too large", { text: "x".repeat(PAYLOAD_BYTES) }, "payload_too_large"],
  ])("a payload that %s is refused, and nothing is stored", async (_, bad, code) => {
    await expect(tasks.enqueue(note, bad as never)).rejects.toMatchObject({ code });
    await expect(tasks.enqueueMany(note, [{ text: "good" }, bad as never])).rejects.toMatchObject({ code });
    expect(await stored()).toBe(0);
  });

  test("a payload that is too large is told what to do, where the README shows it", async () => {
    const refused = expect(tasks.enqueue(note, { text: "x".repeat(PAYLOAD_BYTES) })).rejects;
    await refused.toThrow(/object store and its key into the payload: README, "More than 48 KiB"/);
    const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
    expect(readme).toMatch(/^### More than 48 KiB$[\s\S]*PutObjectCommand[\s\S]*GetObjectCommand[\s\S]*NoSuchKey/m);
  });

  test("the database has the same limit as the client", async () => {
    await expect(
      db.sql("SELECT enqueue_task('note', jsonb_build_object('text', repeat('x', 49152)))"),
    ).rejects.toMatchObject({ constraint: "payload_is_small" });
  });

  test("a payload is measured before it is sent, exactly as Postgres writes it", async () => {
    const payloads = [
      Array(17_000).fill(1),
      [1e300, -1.5e21, 2.25e-7, -3e-9, 5e-324, 1.7976931348623157e308, 1e21, 123456789012345680000, 0.000001],
      { "a:b,c": 'x,:"\\" 1e-7', é: ["\u0001", "1e+21", []], empty: {} },
      Array(1000).fill({ text: "x".repeat(20), n: 1.5e-8 }),
    ];
    for (const payload of payloads) {
      const text = JSON.stringify(payload);
      const [row] = await db.sql<{ bytes: number }>("SELECT octet_length(CAST(CAST($1 AS jsonb) AS text)) AS bytes", [
        text,
      ]);
      // Where it cannot come near the limit it is not looked at closely.
      const close = text.length > PAYLOAD_BYTES / 2 || /\de[+-]/.test(text);
      expect(storedBytes(text)).toBe(close ? row!.bytes : Buffer.byteLength(text));
    }
  });

  test("many with a key are refused: a key is for one", async () => {
    const options = { key: "k", priority: "HIGH" } as const;
    await expect(tasks.enqueueMany(note, [{ text: "a" }, { text: "b" }], options)).rejects.toMatchObject({
      code: "option_invalid",
      message: expect.stringContaining("key"),
    });
    for (const bad of [null, { transaction: null }])
      await expect(tasks.enqueue(note, { text: "a" }, bad as never)).rejects.toMatchObject({ code: "option_invalid" });
    expect(await stored()).toBe(0);
  });

  test("awkward text comes back exactly", async () => {
    const text = `'"\\ \u0001 \u{1F600} __proto__ \\u0000 :name $1 ${"é".repeat(100)}`;
    await tasks.enqueue(note, { text });
    await register(db, "r1", { note: {} });
    expect((await new Speaker(db).say()).tasks[0]!.payload).toEqual({ text });
  });

  test("10,000 tasks of 200 bytes in at most four requests, all or none, in their order", async () => {
    let requests = 0;
    const counting = {
      ...db.database,
      query: ((...given: Parameters<typeof db.database.query>) => {
        requests += 1;
        return db.database.query(...given);
      }) as typeof db.database.query,
      transaction: ((work) =>
        db.database.transaction((transaction) => {
          requests += 2;
          return work({
            ...transaction,
            query: (...given) => {
              requests += 1;
              return transaction.query(...given);
            },
          });
        })) as typeof db.database.transaction,
    };
    const payloads = Array.from({ length: 10_000 }, (_, n) => ({ text: `${n} ${"x".repeat(180)}` }));
    const answer = await createTaskClient({ database: counting }).enqueueMany(note, payloads);
    expect(answer.status === "enqueued" && answer.ids.length).toBe(10_000);
    expect(requests).toBeLessThanOrEqual(4);
    expect((await db.sql("SELECT payload->>'text' AS text FROM task ORDER BY id LIMIT 1 OFFSET 9999"))[0]).toEqual(
      payloads[9999],
    );
  });

  test.each([false, true])("the ids of 10,000 come in rows under 64 KB and in order (notify: %s)", async (notify) => {
    const first = 9_223_372_036_854_765_000n;
    await db.sql(`ALTER TABLE task ALTER COLUMN id RESTART WITH ${first}`);
    const rowBytes: number[] = [];
    const measuring: typeof db.database = {
      ...db.database,
      query: async (...given) => {
        const rows = await db.database.query(...given);
        rowBytes.push(...rows.map((row) => Buffer.byteLength(JSON.stringify(Object.values(row as object)))));
        return rows;
      },
    };
    const many = Array.from({ length: 10_000 }, (_, n) => ({ text: `${n}` }));
    const answer = await createTaskClient({ database: measuring, notify }).enqueueMany(note, many);
    expect(answer).toEqual({ status: "enqueued", ids: many.map((_, n) => String(first + BigInt(n))) });
    expect(Math.max(...rowBytes)).toBeLessThan(64_000);
    expect(await stored()).toBe(10_000);
  });

  test("queueSize admits exactly so many, however many producers come at once", async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => tasks.enqueue(few, { text: "" })));
    expect(answers.filter(({ status }) => status === "enqueued")).toHaveLength(5);
    expect(answers.filter((answer) => answer.status === "queue_full" && answer.limit === 5)).toHaveLength(45);
    expect(await stored()).toBe(5);
    expect(await tasks.enqueueMany(few, [{ text: "" }])).toEqual({ status: "queue_full", limit: 5 });
  });

  test("queueSize admits all of many or none, also when they take several requests", async () => {
    const wide = defineTask({ identifier: "wide", payload, queueSize: 50 });
    const payloads = Array.from({ length: 51 }, () => ({ text: "x".repeat(40_000) }));
    expect(await tasks.enqueueMany(wide, payloads)).toEqual({ status: "queue_full", limit: 50 });
    expect(await stored()).toBe(0);
    expect(await tasks.enqueueMany(wide, payloads.slice(1))).toMatchObject({ status: "enqueued" });
    expect(await stored()).toBe(50);
  });

  test("a key is taken once until its task starts; replace puts the new payload in its place", async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => tasks.enqueue(note, { text: `${n}` }, { key: "k" })),
    );
    expect(answers.filter(({ status }) => status === "enqueued")).toHaveLength(1);
    expect(await stored()).toBe(1);
    expect(
      await tasks.enqueue(note, { text: "new" }, { key: "k", onDuplicate: "replace", priority: "LOW" }),
    ).toMatchObject({ status: "duplicate" });
    expect(await db.sql("SELECT payload->>'text' AS text, priority FROM task")).toEqual([
      { text: "new", priority: 75 },
    ]);
    await register(db, "r1", { note: {} });
    const [running] = (await new Speaker(db).say()).tasks;
    const twin = await tasks.enqueue(note, { text: "while it runs" }, { key: "k" });
    expect(twin).toMatchObject({ status: "enqueued" });
    expect("id" in twin && twin.id).not.toBe(running!.id);
  });

  test("an enqueue whose answer was lost stores nothing twice", async () => {
    let lost = 0;
    const forgetful = {
      ...db.database,
      query: (async (...given: Parameters<typeof db.database.query>) => {
        const rows = await db.database.query(...given);
        if (lost++ < 2) throw failures.unknown;
        return rows;
      }) as typeof db.database.query,
    };
    const answer = await createTaskClient({ database: forgetful }).enqueueMany(note, [{ text: "a" }, { text: "b" }]);
    expect(answer).toEqual({ status: "enqueued", ids: ["1", "2"] });
    expect(lost).toBe(3);
    expect(await stored()).toBe(2);
  });

  const brief = { repeatMs: 1500, attemptMs: 1000, leastMs: 100, furtherMs: 100 };
  afterEach(() => void vi.useRealTimers());
  /**
   * The first of these failures comes after its statement has run, each other in its place, the last one for ever. The time that is left
   * goes by with the further attempts only.
   */
  const storeUnder = (first: keyof typeof failures, ...then: (keyof typeof failures)[]) => {
    let calls = 0;
    const query: typeof db.database.query = async (...given) => {
      calls += 1;
      if (calls > 1) vi.advanceTimersByTime(200);
      else if (first === "unknown") await db.database.query(...given);
      throw failures[[first, ...then][calls - 1] ?? then.at(-1) ?? first];
    };
    vi.useFakeTimers({ toFake: ["performance"] });
    return store({ ...db.database, query }, definition, ['{"text": "x"}'], {}, false, brief);
  };

  test.each([
    "later",
    "now",
    "never",
    "unknown",
  ] as const)("an enqueue whose answer was lost stays in doubt when what follows fails with %s", async (last) => {
    await expect(storeUnder("unknown", last)).rejects.toMatchObject({
      code: "database_outcome_unknown",
      retry: "unknown",
      ...(last !== "unknown" && { cause: failures[last], message: expect.stringContaining("lost") }),
    });
    expect(await stored()).toBe(1);
  });

  test("in doubt it is not what every attempt was refused for: the payload, or a database that is away", async () => {
    await expect(storeUnder("unknown", "payload")).rejects.toMatchObject({ code: "payload_too_large" });
    await expect(storeUnder("later")).rejects.toMatchObject({ code: "database_unavailable", retry: "later" });
    await expect(storeUnder("later", "later", "never")).rejects.toMatchObject({ code: "database_failed" });
  });

  test("an enqueue that waits for a lock ends in its time, in doubt, and the attempts it gave up store it once", async () => {
    const locker = await db.client();
    await locker.query("BEGIN; LOCK TABLE task IN ACCESS EXCLUSIVE MODE");
    await expect(store(db.database, definition, ['{"text": "x"}'], {}, false, brief)).rejects.toMatchObject({
      code: "database_outcome_unknown",
    });
    await locker.query("ROLLBACK");
    await expect.poll(stored, { timeout: 10_000 }).toBe(1);
    // Behind whatever still waits for the lock.
    await db.sql("BEGIN; LOCK TABLE task IN ACCESS EXCLUSIVE MODE; COMMIT");
    expect(await stored()).toBe(1);
  });

  test("each attempt is given the time that is left, the last one the least, and a transaction more", async () => {
    const given: number[] = [];
    const query = (async (_statement, _values, options) => {
      given.push(options!.timeoutMs!);
      throw failures.later;
    }) as typeof db.database.query;
    const transaction = (async (_work, options) => {
      given.push(options!.timeoutMs!);
      throw failures.never;
    }) as typeof db.database.transaction;
    const limits = { repeatMs: 400, attemptMs: 300, leastMs: 200, furtherMs: 1000 };
    vi.useFakeTimers({ toFake: ["performance", "setTimeout", "clearTimeout"] });
    const refused = expect(
      store({ ...db.database, query }, definition, ['{"text": "x"}'], {}, false, limits),
    ).rejects.toMatchObject({ code: "database_unavailable" });
    await vi.runAllTimersAsync();
    await refused;
    vi.useRealTimers();
    expect(given[0]).toBe(300);
    expect(given.at(-1)).toBeLessThan(300);
    expect(Math.min(...given)).toBeGreaterThanOrEqual(200);
    const large = Array<string>(71).fill(JSON.stringify({ text: "x".repeat(40_000) }));
    await expect(store({ ...db.database, transaction }, definition, large, {}, false, limits)).rejects.toMatchObject({
      code: "database_failed",
    });
    expect(given.at(-1)).toBe(2200);
  });

  test("plain SQL enqueues too", async () => {
    expect(await db.sql(`SELECT status, id FROM enqueue_task('note', '{"text": "sql"}', key => 'k')`)).toEqual([
      { status: "enqueued", id: "1" },
    ]);
    expect(await db.sql(`SELECT status, id FROM enqueue_task('note', '{"text": "sql"}', key => 'k')`)).toEqual([
      { status: "duplicate", id: "1" },
    ]);
  });

  test("plain SQL gives a traceparent; what cannot be one is ignored", async () => {
    const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (const given of [good, null, "", '"'.repeat(200), good.toUpperCase(), "0".repeat(201)])
      await db.sql("SELECT enqueue_task('note', '{\"text\": \"sql\"}', trace_parent => $1)", [given]);
    expect((await db.sql("SELECT trace_parent FROM task ORDER BY id")).map((row) => row.trace_parent)).toEqual([
      good,
      null,
      null,
      null,
      null,
      null,
    ]);
  });

  test.each([
    ["delayUntil", { delayUntil: new Date(Number.NaN) }],
    ["priority", { priority: "URGENT" }],
    ["key", { key: "" }],
    ["onDuplicate", { onDuplicate: "drop", key: "k" }],
    ["onDuplicate", { onDuplicate: "keep" }],
  ])("a bad %s is refused by name", async (name, options) => {
    await expect(tasks.enqueue(note, { text: "" }, options as never)).rejects.toMatchObject({
      code: "option_invalid",
      message: expect.stringContaining(name),
    });
  });

  test("bad options of the client, the connection and the operator are refused by name", async () => {
    const refused = (name: string) =>
      expect.objectContaining({ code: "option_invalid", message: expect.stringContaining(name) });
    expect(() => createTaskClient({} as never)).toThrow(refused("database"));
    expect(() => createTaskClient({ database: db.database, runMethod: "LATER" as never })).toThrow(
      refused("runMethod"),
    );
    expect(() =>
      createTaskClient({ database: db.database, runMethod: "SYNCHRONOUSLY", handlers: {} as never }),
    ).toThrow(refused("handlers"));
    await expect(tasks.enqueueMany(note, "many" as never)).rejects.toEqual(refused("payloads"));
    await expect(connectDatabase({ kind: "sqlite" } as never)).rejects.toEqual(refused("target"));
    await expect(connectDatabase({ kind: "pg", url: "postgres://x/y" }, { schema: "Robert'); --" })).rejects.toEqual(
      refused("schema"),
    );
    expect(() => createOperator({ databases: [], who: "ada" })).toThrow(refused("databases"));
    expect(() => createOperator({ databases: [db.database], who: "" })).toThrow(refused("who"));
    const operator = createOperator({ databases: [db.database], who: "ada" });
    const ids = ["1; DROP TABLE task"];
    await expect(operator.act({ action: "cancel", ids })).rejects.toEqual(refused("action.ids.0"));
    await expect(operator.act({ action: "pause", identifier: "" })).rejects.toEqual(refused("action.identifier"));
    await expect(operator.act({ action: "explode" } as never)).rejects.toEqual(refused("action.action"));
    await expect(operator.listTasks({ from: "yesterday" })).rejects.toEqual(refused("filter.from"));
    await expect(operator.listTasks({}, { limit: 0 })).rejects.toEqual(refused("limit"));
    await expect(operator.listTasks({}, { database: 1 })).rejects.toEqual(refused("database"));
    await expect(operator.showTask("one")).rejects.toEqual(refused("id"));
  });

  describe("the unmanaged methods", () => {
    const ran: string[] = [];
    const handlers = async () => ({
      list: [
        note.handle(({ text }) => {
          if (text === "bad") throw new Error("bad");
          ran.push(text);
        }) as TaskHandler,
      ],
    });
    beforeEach(() => void ran.splice(0));

    test("need handlers at start", () => {
      expect(() => createTaskClient({ database: db.database, runMethod: "SYNCHRONOUSLY" })).toThrow(
        expect.objectContaining({ code: "handlers_missing", message: expect.stringContaining("TASK_PROCESSOR") }),
      );
    });

    test("SYNCHRONOUSLY runs inline and raises the handler's error", async () => {
      const inline = createTaskClient({ database: db.database, runMethod: "SYNCHRONOUSLY", handlers });
      expect(await inline.enqueue(note, { text: "inline" })).toEqual({ status: "ran" });
      expect(ran).toEqual(["inline"]);
      await expect(inline.enqueue(note, { text: "bad" })).rejects.toThrow("bad");
      await expect(
        inline.enqueue(note, { text: "later" }, { delayUntil: new Date("2999-01-01") }),
      ).rejects.toMatchObject({ code: "delay_unsupported" });
      await expect(inline.enqueue(few, { text: "x" })).rejects.toMatchObject({ code: "handler_missing" });
      expect(await stored()).toBe(0);
    });

    test("SEPARATE_THREAD answers at once and tells the hook of failures", async () => {
      const failed = Promise.withResolvers<unknown>();
      const apart = createTaskClient({
        database: db.database,
        runMethod: "SEPARATE_THREAD",
        handlers,
        onFailure: failed.resolve,
      });
      expect(await apart.enqueue(note, { text: "bad" })).toEqual({ status: "started" });
      expect(await failed.promise).toMatchObject({
        identifier: "note",
        error: expect.objectContaining({ message: "bad" }),
      });
    });
  });
});

describe("enqueue within the producer's pg transaction", async () => {
  const db = await openDatabase("pg");
  const tasks = createTaskClient({ database: db.database });
  const stored = async () => (await db.sql<{ n: number }>("SELECT count(*)::int AS n FROM task"))[0]!.n;

  test("is stored with the commit and not with a rollback", async () => {
    const client = await db.client();
    await client.query("BEGIN");
    await tasks.enqueue(note, { text: "rolled back" }, { transaction: client });
    await client.query("ROLLBACK");
    expect(await stored()).toBe(0);
    await client.query("BEGIN");
    await tasks.enqueue(note, { text: "committed" }, { transaction: client });
    expect(await stored()).toBe(0);
    await client.query("COMMIT");
    expect(await stored()).toBe(1);
  });

  test("under another isolation level a queue size is refused", async () => {
    const client = await db.client();
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await expect(tasks.enqueue(few, { text: "" }, { transaction: client })).rejects.toMatchObject({
      code: "isolation_unsupported",
    });
    await client.query("ROLLBACK");
  });

  test("a Data API transaction is not one of pg", async () => {
    await expect(tasks.enqueue(note, { text: "" }, { transaction: { transactionId: "x" } })).rejects.toMatchObject({
      code: "transaction_invalid",
    });
  });

  test("what is too large only as Postgres writes it leaves the caller's transaction as it was", async () => {
    const list = defineTask({ identifier: "list", payload: z.array(z.number()) });
    const client = await db.client();
    await client.query("BEGIN");
    for (const payload of [Array(17_000).fill(1), Array(200).fill(1e300)])
      await expect(tasks.enqueue(list, payload, { transaction: client })).rejects.toMatchObject({
        code: "payload_too_large",
      });
    await tasks.enqueue(note, { text: "fits" }, { transaction: client });
    await client.query("COMMIT");
    expect(
      await db.sql("SELECT payload->>'text' AS text FROM task WHERE identifier = 'note' AND payload->>'text' = 'fits'"),
    ).toHaveLength(1);
  });

  test("SEPARATE_THREAD starts after the commit, and never after a rollback", async () => {
    const ran: string[] = [];
    const handlers = async () => ({ handler: note.handle(({ text }) => void ran.push(text)) });
    const apart = createTaskClient({ database: db.database, runMethod: "SEPARATE_THREAD", handlers });
    const [good, bad] = [await db.client(), await db.client()];
    await bad.query("BEGIN");
    await apart.enqueue(note, { text: "rolled back" }, { transaction: bad });
    await bad.query("ROLLBACK");
    await good.query("BEGIN");
    await apart.enqueue(note, { text: "committed" }, { transaction: good });
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(ran).toEqual([]);
    await good.query("COMMIT");
    while (ran.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(ran).toEqual(["committed"]);
  });

  test("SEPARATE_THREAD asks again when the database is away for a while, and tells the hook when it refuses", async () => {
    const ran: string[] = [];
    const failed: string[] = [];
    const handlers = async () => ({ handler: note.handle(({ text }) => void ran.push(text)) });
    let answers: (DatabaseError | undefined)[] = [];
    const query = ((...given: Parameters<typeof db.database.query>) => {
      const failure = answers.shift();
      return failure === undefined ? db.database.query(...given) : Promise.reject(failure);
    }) as typeof db.database.query;
    const apart = createTaskClient({
      database: { ...db.database, query },
      runMethod: "SEPARATE_THREAD",
      handlers,
      onFailure: ({ error }) => void failed.push((error as DatabaseError).code),
    });
    const away = new DatabaseError("database_outcome_unknown", "lost", "unknown", undefined, undefined);
    const refused = new DatabaseError("database_failed", "no", "never", undefined, undefined);
    for (const [text, failures] of [
      ["asked again", [away, away]],
      ["never started", [away, refused]],
    ] as const) {
      const client = await db.client();
      await client.query("BEGIN");
      await apart.enqueue(note, { text }, { transaction: client });
      answers = [...failures];
      await client.query("COMMIT");
      while (ran.length + failed.length === 0 || answers.length > 0)
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    while (failed.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    expect({ ran, failed }).toEqual({ ran: ["asked again"], failed: ["database_failed"] });
  });
});

describe("enqueue within the producer's Data API transaction", async () => {
  const db = await openDatabase("data-api");
  const tasks = createTaskClient({ database: db.database });

  test("is stored with the commit and not with a rollback", async () => {
    const { BeginTransactionCommand, CommitTransactionCommand, RDSDataClient, RollbackTransactionCommand } =
      await import("@aws-sdk/client-rds-data");
    const { LOCAL } = await import("../infra/local/stack.ts");
    const client = new RDSDataClient({ endpoint: db.endpoint });
    const cluster = { resourceArn: LOCAL.resourceArn, secretArn: LOCAL.secretArn };
    const begin = async () =>
      (
        await client.send(
          new BeginTransactionCommand({
            ...cluster,
            database: new URL(db.url.replace(/^\w+:/, "http:").replace(/\/\/[^/]*\//, "//h/")).pathname.slice(1),
          }),
        )
      ).transactionId!;
    const first = await begin();
    await tasks.enqueue(note, { text: "rolled back" }, { transaction: { transactionId: first } });
    await client.send(new RollbackTransactionCommand({ ...cluster, transactionId: first }));
    const second = await begin();
    await tasks.enqueue(note, { text: "committed" }, { transaction: { transactionId: second } });
    await client.send(new CommitTransactionCommand({ ...cluster, transactionId: second }));
    expect(await db.sql("SELECT payload->>'text' AS text FROM task")).toEqual([{ text: "committed" }]);

    const ran: string[] = [];
    const handlers = async () => ({ handler: note.handle(({ text }) => void ran.push(text)) });
    const apart = createTaskClient({ database: db.database, runMethod: "SEPARATE_THREAD", handlers });
    const [third, fourth] = [await begin(), await begin()];
    await apart.enqueue(note, { text: "rolled back" }, { transaction: { transactionId: third } });
    await apart.enqueue(note, { text: "run" }, { transaction: { transactionId: fourth } });
    await client.send(new RollbackTransactionCommand({ ...cluster, transactionId: third }));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(ran).toEqual([]);
    await client.send(new CommitTransactionCommand({ ...cluster, transactionId: fourth }));
    while (ran.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(ran).toEqual(["run"]);
    client.destroy();
  });
});
