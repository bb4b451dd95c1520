/** What the client makes of each failure: it loses nothing, doubles nothing, waits where that helps and else says so at once. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { type FaultOptions, startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { pause } from "../lib/clock.ts";
import { connectDataApi } from "../lib/database/data-api.ts";
import { failureOfConnecting, failureOfDataApi, failureOfPg, failureOfState } from "../lib/database/failure.ts";
import { type Database, type Statement, statement, type Transaction } from "../lib/database/port.ts";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { createRegistry } from "../lib/registry.ts";
import { countWaiting, enqueueTasks, readUnfinished } from "../lib/sql/tasks.ts";
import type { TaskHandler } from "../lib/task.ts";
import { runInvocation } from "../lib/worker.ts";
import { openDatabase, reset } from "./support/database.ts";
import { register, Speaker, success } from "./support/exchange.ts";

const db = await openDatabase("data-api");
const { faults } = db.dataApi!;
const name = db.url.split("?")[0]!.split("/").at(-1)!;
const connect = (more: object = {}) =>
  connectDataApi({ ...LOCAL, database: name, schema: "task_processor", endpoint: db.endpoint, ...more });

const greet = defineTask({ identifier: "greet", payload: z.object({ n: z.number() }), maxAttempts: 1 });
const big = defineTask({ identifier: "big", payload: z.object({ text: z.string() }) });
const tasks = createTaskClient({ database: db.database });
const payloads = (count: number) => Array.from({ length: count }, (_, n) => ({ n }));
const settings = { sleepIntervalMs: 50, graceMs: 20_000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: 900_000 };

const run = (handlers: readonly TaskHandler[], database: Database = db.database) =>
  runInvocation({
    databases: [database],
    registry: createRegistry(handlers, 900_000),
    slot: 0,
    resident: false,
    settings,
    log: silentLog,
  });

beforeEach(async () => {
  faults.clear();
  for (const kind of Object.keys(faults.injected)) delete faults.injected[kind];
  await reset(db);
});

const stored = async () => (await db.sql<{ n: number }>("SELECT count(*)::int AS n FROM task"))[0]!.n;

const passing: [string, FaultOptions][] = [
  ["commit, then no answer", { commitThenDrop: { next: 2 } }],
  ["commit, then a server error", { commitThenError: { next: 2 } }],
  ["no answer, nothing done", { dropBefore: { next: 2 } }],
  ["a server error, nothing done", { serverError: { next: 2 } }],
  ["a time-out", { statementTimeout: { next: 2 } }],
  ["throttling", { throttle: { next: 3 } }],
  ["a cluster that resumes", { resumingForMs: 700 }],
];

describe.each(passing)("under %s", (_, options) => {
  test("a task is stored once, and its id is the stored one's", async () => {
    faults.set(options);
    const answer = await tasks.enqueue(greet, { n: 1 });
    expect(answer).toMatchObject({ status: "enqueued" });
    expect(await db.sql("SELECT id::text FROM task")).toEqual([{ id: "id" in answer && answer.id }]);
    expect(Object.values(faults.injected)[0]).toBeGreaterThan(0);
  });

  test("thousands are stored once, whichever of the calls of their transaction is struck", async () => {
    const many = Array.from({ length: 8000 }, (_, n) => ({ text: `${n}${"x".repeat(200)}` }));
    for (const match of ["BEGIN", "enqueue_v1", "COMMIT"]) {
      await reset(db);
      faults.set({ ...options, match });
      const answer = await tasks.enqueueMany(big, many);
      expect(Object.values(faults.injected)[0]).toBeGreaterThan(0);
      const ids = answer.status === "enqueued" ? answer.ids : [];
      expect(new Set(ids).size).toBe(8000);
      expect(await stored()).toBe(8000);
    }
  });

  test("an invocation runs every task once and hands in every result once", async () => {
    await tasks.enqueueMany(greet, payloads(60));
    const ran: number[] = [];
    faults.set({ ...options, match: "exchange_v2" });
    const report = await run([greet.handle(({ n }) => void ran.push(n))]);
    expect(Object.values(faults.injected)[0]).toBeGreaterThan(0);
    expect(report).toMatchObject({ claimed: 60, succeeded: 60, failed: 0, staleCompletions: 0, left: "nothing_due" });
    expect(ran.sort((a, b) => a - b)).toEqual(payloads(60).map(({ n }) => n));
    expect(await db.sql("SELECT result, count(*)::int AS n FROM task_run GROUP BY 1")).toEqual([
      { result: "SUCCESS", n: 60 },
    ]);
    expect(await stored()).toBe(0);
  });
});

test("under all of them at random, two producers and an invocation lose nothing and double nothing", async () => {
  const some = 0.06;
  faults.set({
    seed: 7,
    commitThenDrop: some,
    commitThenError: some,
    dropBefore: some,
    serverError: some,
    statementTimeout: some,
    throttle: some,
  });
  const ran: number[] = [];
  const handlers = [greet.handle(({ n }) => void ran.push(n))];
  const ids: string[] = [];
  const produce = async (from: number) => {
    for (let n = from; n < from + 60; n++) {
      const answer = await tasks.enqueue(greet, { n });
      if ("id" in answer) ids.push(answer.id);
    }
  };
  await Promise.all([produce(0), produce(1000), run(handlers)]);
  while ((await stored()) > 0) await run(handlers);
  faults.clear();
  expect(new Set(ids).size).toBe(120);
  expect(ran).toHaveLength(120);
  expect(new Set(ran).size).toBe(120);
  expect(await db.sql("SELECT task_id::text AS id, result FROM task_run ORDER BY task_id")).toEqual(
    ids.sort((a, b) => Number(a) - Number(b)).map((id) => ({ id, result: "SUCCESS" })),
  );
  expect(Object.keys(faults.injected).length).toBeGreaterThan(4);
});

/** Passes everything on, and notes what was asked. */
function watched(database: Database): { database: Database; asked: { name: string; seq: number | undefined }[] } {
  const asked: { name: string; seq: number | undefined }[] = [];
  const query: Database["query"] = (statement, values, options) => {
    const { request } = values as { request?: string };
    asked.push({ name: statement.name, seq: request === undefined ? undefined : JSON.parse(request).seq });
    return database.query(statement, values, options);
  };
  return { database: { ...database, query }, asked };
}

test("a lost answer and a lost rollback: the transaction left behind ends by itself, its tasks are stored once", async () => {
  const short = { statementTimeoutMs: 3000, transactionIdleMs: 5000 };
  const api = await startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url: db.url }], ...short });
  others.push(api);
  const database = connect({ endpoint: api.endpoint });
  const unlucky: Database = {
    ...database,
    transaction: (work) =>
      database.transaction((transaction) =>
        work({
          ...transaction,
          query: (statement, values) =>
            transaction.query(statement, values).catch((error) => {
              if (api.faults.injected.dropBefore === undefined)
                api.faults.set({ match: "ROLLBACK", dropBefore: { next: 1 } });
              throw error;
            }),
        }),
      ),
  };
  const many = Array.from({ length: 8000 }, (_, n) => ({ text: `${n}${"x".repeat(200)}` }));
  api.faults.set({ match: "enqueue_v1", commitThenDrop: { next: 1 } });
  const answer = await createTaskClient({ database: unlucky }).enqueueMany(big, many);
  expect(api.faults.injected).toMatchObject({ commitThenDrop: 1, dropBefore: 1 });
  expect(answer).toMatchObject({ status: "enqueued" });
  expect(await stored()).toBe(8000);
  await database.close();
});

test("a transaction that is out of time ends, whichever of its calls is slow, and nothing is stored", async () => {
  const cluster = { resourceArn: LOCAL.resourceArn, url: db.url };
  const api = await startDataApi({ clusters: [cluster], transactionIdleMs: 500 });
  others.push(api);
  const database = connect({ endpoint: api.endpoint });
  for (const match of ["BEGIN", "enqueue_v1", "COMMIT"]) {
    api.faults.set({ match, latencyMs: 2000 });
    const enqueueIn = (transaction: Transaction) =>
      transaction.query(enqueueTasks, { request: JSON.stringify({ identifier: "a", priority: 50, payloads: [{}] }) });
    await expect(database.transaction(enqueueIn, { timeoutMs: 1000 })).rejects.toMatchObject({
      code: "database_outcome_unknown",
    });
  }
  await db.sql("BEGIN; LOCK TABLE task IN ACCESS EXCLUSIVE MODE; COMMIT");
  expect(await stored()).toBe(0);
  await database.close();
});

test("an exchange whose answer was lost is repeated under its own number, the next one has the next", async () => {
  await tasks.enqueueMany(greet, payloads(5));
  const { database, asked } = watched(db.database);
  const handlers = [greet.handle(() => {})];
  faults.set({ match: "exchange_v2", commitThenDrop: { next: 3 } });
  await run(handlers, database);
  const numbers = asked.filter((ask) => ask.name === "exchange").map(({ seq }) => seq!);
  expect(numbers.slice(0, 4)).toEqual([1, 1, 1, 1]);
  expect([...new Set(numbers)]).toEqual(Array.from({ length: numbers.at(-1)! }, (_, place) => place + 1));
});

describe("a failure that stays", () => {
  const cases: [string, () => Promise<Database> | Database, object][] = [
    ["a cluster nobody knows", () => connect({ resourceArn: `${LOCAL.resourceArn}x` }), { code: "database_failed" }],
    [
      "a database that is not there",
      () => connect({ database: "nowhere" }),
      { code: "database_failed", sqlState: "3D000" },
    ],
    ["a schema that is not there", () => connect({ schema: "nowhere" }), { code: "schema_missing" }],
    ["a wrong secret", withSecrets, { code: "database_failed", message: expect.stringContaining("SecretsError") }],
    ["wrong credentials", withCredentials, { code: "database_failed" }],
  ];

  test.each(cases)("%s: said after one call, by enqueue and by an invocation", async (_, open, error) => {
    const { database, asked } = watched(await open());
    await expect(createTaskClient({ database }).enqueue(greet, { n: 1 })).rejects.toMatchObject(error);
    expect(asked).toHaveLength(1);
    await expect(run([greet.handle(() => {})], database)).rejects.toMatchObject(error);
    expect(asked.filter((ask) => ask.name === "exchange")).toHaveLength(1);
    await database.close();
  });

  async function withSecrets(): Promise<Database> {
    return connect({ endpoint: await another({ secrets: {} }) });
  }
  async function withCredentials(): Promise<Database> {
    return connect({ endpoint: await another({}, { accessKeyId: "AKID", secretAccessKey: "other" }) });
  }
});

const others: { close(): unknown }[] = [];
afterAll(async () => {
  for (const other of others) await other.close();
});

async function another(cluster: object, credentials?: { accessKeyId: string; secretAccessKey: string }) {
  const api = await startDataApi({
    clusters: [{ resourceArn: LOCAL.resourceArn, url: db.url, ...cluster }],
    ...(credentials && { credentials }),
  });
  others.push(api);
  return api.endpoint;
}

/** Answers everything alike, as AWS answers what the stand-in has no reason to. */
async function answering(status: number, error: string, message = "no"): Promise<Database> {
  const server: Server = createServer((request, response) => {
    request.resume().on("end", () => {
      response.writeHead(status, { "content-type": "application/json", "x-amzn-errortype": error });
      response.end(JSON.stringify({ message }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  others.push({ close: () => server.closeAllConnections() ?? server.close() });
  return connect({ endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
}

describe("the class of each error", () => {
  test.each([
    [400, "DatabaseResumingException", "later"],
    [400, "InvalidResourceStateException", "later"],
    [400, "ThrottlingException", "later"],
    [429, "TooManyRequestsException", "later"],
    [400, "StatementTimeoutException", "unknown"],
    [500, "InternalServerErrorException", "unknown"],
    [503, "ServiceUnavailableError", "unknown"],
    [504, "DatabaseUnavailableException", "unknown"],
    [502, "BadGateway", "unknown"],
    [400, "BadRequestException", "never"],
    [400, "ValidationException", "never"],
    [400, "SerializationException", "never"],
    [413, "RequestEntityTooLargeException", "never"],
    [400, "HttpEndpointNotEnabledException", "never"],
    [400, "InvalidSecretException", "never"],
    [400, "SecretsErrorException", "never"],
    [400, "UnsupportedResultException", "never"],
    [400, "DatabaseErrorException", "never"],
    [403, "AccessDeniedException", "never"],
    [403, "ForbiddenException", "never"],
    [403, "MissingAuthenticationTokenException", "never"],
    [403, "IncompleteSignatureException", "never"],
    [403, "ExpiredTokenException", "never"],
    [404, "DatabaseNotFoundException", "never"],
    [404, "NotFoundException", "never"],
    [404, "TransactionNotFoundException", "never"],
    [404, "UnknownOperationException", "never"],
  ])("%i %s: %s", async (status, error, retry) => {
    const database = await answering(status, error);
    await expect(database.query(countWaiting, {})).rejects.toMatchObject({ retry });
    await database.close();
  });

  test.each([
    ["40001", "now"],
    ["40P01", "now"],
    ["55P03", "now"],
    ["53300", "later"],
    ["57P03", "later"],
    ["08001", "later"],
    ["08004", "later"],
    ["08000", "unknown"],
    ["08003", "unknown"],
    ["08006", "unknown"],
    ["08007", "unknown"],
    ["40003", "unknown"],
    ["57P01", "unknown"],
    ["57P02", "unknown"],
    ["25006", "later"],
    ["57014", "later"],
    ["08P01", "never"],
    ["42601", "never"],
    ["23505", "never"],
  ])("SQLSTATE %s: %s", async (state, retry) => {
    const database = await answering(400, "DatabaseErrorException", `ERROR: SQLState: 00000; SQLState: ${state}`);
    await expect(database.query(countWaiting, {})).rejects.toMatchObject({ retry, sqlState: state });
    const code = { later: "database_unavailable", unknown: "database_outcome_unknown" }[retry];
    expect(failureOfState(state, new Error("no"))).toMatchObject({ retry, ...(code && state !== "57014" && { code }) });
    await database.close();
  });

  test("unreachable: later before there is a connection, unknown once there is one", () => {
    const broken = (code: string, syscall: string) => Object.assign(new Error(code), { code, syscall });
    expect(failureOfDataApi(broken("EHOSTUNREACH", "connect"))).toMatchObject({ retry: "later" });
    expect(failureOfDataApi(broken("ENOTFOUND", "getaddrinfo"))).toMatchObject({ retry: "later" });
    expect(failureOfDataApi(broken("EHOSTUNREACH", "read"))).toMatchObject({ retry: "unknown" });
    expect(failureOfConnecting(broken("ECONNRESET", "read"))).toMatchObject({ retry: "later" });
    expect(failureOfPg(broken("EHOSTUNREACH", "read"))).toMatchObject({ retry: "unknown" });
  });

  test("credentials that cannot be fetched: set up wrongly, or, once there was an answer, for a moment", async () => {
    const LIVES_MS = 200;
    let away = false;
    const server = createServer((_, response) => {
      const Expiration = new Date(Date.now() + LIVES_MS).toISOString();
      response.writeHead(away ? 500 : 200, { "content-type": "application/json" });
      response.end(JSON.stringify({ AccessKeyId: "test", SecretAccessKey: "test", Token: "t", Expiration }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    others.push({ close: () => server.closeAllConnections() ?? server.close() });
    const { port } = server.address() as AddressInfo;
    for (const name of ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]) vi.stubEnv(name, undefined);
    vi.stubEnv("AWS_CONTAINER_CREDENTIALS_FULL_URI", `http://127.0.0.1:${port}/credentials`);
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
    const [database, other] = [connect({ endpoint: db.endpoint }), connect({ endpoint: db.endpoint })];
    const ask = (one: Database) => one.query(countWaiting, {});
    try {
      await ask(database);
      away = true;
      await pause(2 * LIVES_MS);
      await expect(ask(database)).rejects.toMatchObject({ code: "database_unavailable", retry: "later" });
      await expect(ask(other)).rejects.toMatchObject({ code: "database_failed", retry: "never" });
      away = false;
      expect(await ask(database)).toHaveLength(1);
    } finally {
      vi.unstubAllEnvs();
    }
    await Promise.all([database.close(), other.close()]);
  });

  test("nobody there: not sent, so later", async () => {
    const database = connect({ endpoint: "http://127.0.0.1:1" });
    await expect(database.query(countWaiting, {})).rejects.toMatchObject({
      code: "database_unavailable",
      retry: "later",
    });
  });

  test("a time that is no whole number of milliseconds, or more than AWS gives", async () => {
    for (const timeoutMs of [5000.5, 3_600_000])
      expect(await db.database.query(countWaiting, {}, { timeoutMs })).toEqual([{ waiting: "0" }]);
  });

  test("no answer within the time given: unknown", async () => {
    faults.set({ latencyMs: 300 });
    await expect(db.database.query(countWaiting, {}, { timeoutMs: 20 })).rejects.toMatchObject({
      code: "database_outcome_unknown",
      retry: "unknown",
    });
  });

  test("an answer that breaks off, or is none: unknown", async () => {
    const half = createServer((request, response) => {
      request.resume();
      response.writeHead(200, { "content-type": "application/json", "content-length": 100 });
      response.write('{"records":[', () => response.destroy());
    });
    const html = createServer((request, response) => {
      request.resume();
      response.end("<html>");
    });
    for (const server of [half, html]) {
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const database = connect({ endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
      await expect(database.query(countWaiting, {})).rejects.toMatchObject({ retry: "unknown" });
      await database.close();
      server.closeAllConnections();
      server.close();
    }
  });
});

describe("values come back exactly", () => {
  const huge = "9223372036854775000";

  test("ids above 2^53, through enqueue, claim and result", async () => {
    await db.sql(`ALTER TABLE task ALTER COLUMN id RESTART WITH ${huge}`);
    expect(await tasks.enqueue(greet, { n: 1 })).toEqual({ status: "enqueued", id: huge });
    await register(db, "r1", { greet: {} });
    const speaker = new Speaker(db);
    const { tasks: claimed } = await speaker.say();
    expect(claimed.map(({ id }) => id)).toEqual([huge]);
    expect(await speaker.say({ results: claimed.map(success) })).toMatchObject({ succeeded: 1 });
    expect(await db.sql("SELECT task_id::text AS id FROM task_run")).toEqual([{ id: huge }]);
  });

  test("microseconds, and numbers in JSON that JavaScript has none for", async () => {
    await db.sql(
      `SELECT enqueue_task('greet', '{"n": 12345678901234567890.123456789, "text": "\\u00e9\\ud83d\\ude00"}', '2026-01-02 03:04:05.123456+02')`,
    );
    const [row] = await db.database.query(readUnfinished, { identifier: "greet" });
    expect(row!.scheduledFor.replace("+00:00", "Z")).toBe("2026-01-02T01:04:05.123456Z");
    expect(row!.payload).toBe('{"n": 12345678901234567890.123456789, "text": "é😀"}');
  });

  test("every type of the port, there and back", async () => {
    const echo = statement<Record<"text" | "bigint" | "numeric" | "double" | "flag" | "id" | "json" | "at", unknown>>()(
      "echo",
      { text: "text", bigint: "bigint", double: "double", flag: "boolean", id: "uuid", json: "json" },
      ["text", "bigint", "numeric", "double", "flag", "id", "json", "at"],
      `SELECT :text AS text, CAST(:bigint AS text) AS bigint, CAST(CAST(:text AS numeric) AS text) AS numeric,
         :double AS double, :flag AS flag, CAST(CAST(:id AS uuid) AS text) AS id, CAST(CAST(:json AS jsonb) AS text) AS json,
         to_json(timestamptz '2026-01-02 03:04:05.000001Z') #>> '{}' AS at`,
    );
    const given = {
      text: "123456789012345678901234567890.000000000001",
      bigint: Number.MAX_SAFE_INTEGER,
      double: 0.1 + 0.2,
      flag: false,
      id: "9b0f3c5e-0000-4000-8000-000000000000",
      json: '{"a": [1, null, "é"]}',
    };
    const [row] = await db.database.query(echo as Statement<typeof echo.parameters, Record<string, unknown>>, given);
    expect(row).toEqual({
      ...given,
      bigint: "9007199254740991",
      numeric: given.text,
      at: "2026-01-02T03:04:05.000001+00:00",
    });
  });
});
