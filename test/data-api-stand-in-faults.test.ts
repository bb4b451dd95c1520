import {
  BeginTransactionCommand,
  CommitTransactionCommand,
  ExecuteStatementCommand,
  RDSDataClient,
} from "@aws-sdk/client-rds-data";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type DataApi, type FaultOptions, startDataApi } from "../infra/local/data-api/index.ts";
import { type LocalPostgres, startPostgres } from "../infra/local/postgres.ts";

const arns = {
  resourceArn: "arn:aws:rds:eu-west-1:123456789012:cluster:local",
  secretArn: "arn:aws:secretsmanager:eu-west-1:123456789012:secret:local",
};

let postgres: LocalPostgres;
let api: DataApi;
let direct: pg.Pool;

const clientOf = (endpoint: string, maxAttempts = 1) =>
  new RDSDataClient({
    endpoint,
    region: "eu-west-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts,
  });

beforeAll(async () => {
  postgres = await startPostgres({ settings: { fsync: "off" } });
  api = await startDataApi({ clusters: [{ resourceArn: arns.resourceArn, url: postgres.url }], control: true });
  direct = new pg.Pool({ connectionString: postgres.url });
  direct.on("error", () => {});
  await direct.query("CREATE TABLE item (n int)");
});

afterAll(async () => {
  await direct.end();
  await api.close();
  await postgres.stop("immediate");
});

beforeEach(async () => {
  api.faults.clear();
  for (const name of Object.keys(api.faults.injected)) delete api.faults.injected[name];
  await direct.query("TRUNCATE item");
});

const execute = (sql: string, client = clientOf(api.endpoint)) =>
  client.send(new ExecuteStatementCommand({ ...arns, sql }));
const insert = (client?: RDSDataClient) => execute("INSERT INTO item VALUES (1)", client);
const count = async () => Number((await direct.query("SELECT count(*) FROM item")).rows[0].count);

test.each<[string, FaultOptions, object, number]>([
  ["throttle", { throttle: { next: 1 } }, { name: "ThrottlingException" }, 0],
  [
    "serverError",
    { serverError: { next: 1 } },
    { $fault: "server", $metadata: { httpStatusCode: expect.toSatisfy((status) => status >= 500) } },
    0,
  ],
  ["commitThenError", { commitThenError: { next: 1 } }, { $fault: "server" }, 1],
  ["dropBefore", { dropBefore: { next: 1 } }, { code: "ECONNRESET" }, 0],
  ["commitThenDrop", { commitThenDrop: { next: 1 } }, { code: "ECONNRESET" }, 1],
  [
    "statementTimeout",
    { statementTimeout: { next: 1 } },
    { name: "StatementTimeoutException", $metadata: { httpStatusCode: 400 } },
    0,
  ],
])("19: %s strikes the next call, and that one only", async (name, faults, error, committed) => {
  api.faults.set(faults);
  await expect(insert()).rejects.toMatchObject(error);
  expect(await count()).toBe(committed);
  await insert();
  expect(await count()).toBe(committed + 1);
  expect(api.faults.injected).toEqual({ [name]: 1 });
});

test("19: a cluster that resumes answers DatabaseResumingException until it is awake", async () => {
  api.faults.set({ resumingForMs: 200 });
  const resuming = { name: "DatabaseResumingException", $metadata: { httpStatusCode: 400 } };
  await expect(insert()).rejects.toMatchObject(resuming);
  let refusals = 1;
  while ((await insert().catch((error) => error.name)) === "DatabaseResumingException") refusals++;
  expect(await count()).toBe(1);
  expect(api.faults.injected).toEqual({ resumingForMs: refusals });
});

test("19: latency delays, and is counted", async () => {
  api.faults.set({ latencyMs: 300 });
  const slow = insert();
  expect(await count()).toBe(0);
  await slow;
  expect(api.faults.injected).toEqual({ latencyMs: 1 });
});

test("19: latency takes a chance as every other fault", async () => {
  const latencyMs = 3000;
  api.faults.set({ latencyMs, latency: { next: 1 } });
  const slow = insert();
  expect(await count()).toBe(0);
  await slow;
  const startedAt = performance.now();
  await insert();
  expect(performance.now() - startedAt).toBeLessThan(latencyMs);
  expect(api.faults.injected).toEqual({ latencyMs: 1 });

  api.faults.set({ latencyMs: 1, latency: 0.5, throttle: { next: 2 } });
  for (let call = 0; call < 40; call++) await insert().catch(() => {});
  expect(api.faults.injected.throttle).toBe(2);
  expect(api.faults.injected.latencyMs).toBeGreaterThan(5);
  expect(api.faults.injected.latencyMs).toBeLessThan(36);
});

test("19: the SDK's own retry after a lost answer runs a statement twice, as on AWS", async () => {
  api.faults.set({ commitThenDrop: { next: 1 } });
  await insert(clientOf(api.endpoint, 3));
  expect(await count()).toBe(2);
});

test("19: match chooses calls by their SQL, and the lost answer of a commit is a commit", async () => {
  api.faults.set({ match: "COMMIT", commitThenDrop: { next: 1 } });
  const client = clientOf(api.endpoint);
  await insert(client);
  const { transactionId } = await client.send(new BeginTransactionCommand(arns));
  await client.send(new ExecuteStatementCommand({ ...arns, sql: "INSERT INTO item VALUES (2)", transactionId }));
  await expect(client.send(new CommitTransactionCommand({ ...arns, transactionId }))).rejects.toMatchObject({
    code: "ECONNRESET",
  });
  expect(await count()).toBe(2);
});

test("19: probabilities follow the seed", async () => {
  const outcomes = async (seed: number) => {
    api.faults.set({ seed, throttle: 0.5 });
    const answers = [];
    for (let call = 0; call < 20; call++)
      answers.push(
        await execute("SELECT 1").then(
          () => true,
          () => false,
        ),
      );
    return answers.join();
  };
  const first = await outcomes(7);
  expect(await outcomes(7)).toBe(first);
  expect(await outcomes(8)).not.toBe(first);
  expect(first).toContain("true");
  expect(first).toContain("false");
});

describe("the control endpoint", () => {
  const control = (method: string, body?: string, endpoint = api.endpoint) =>
    fetch(`${endpoint}/__faults`, { method, ...(body && { body }) });

  test("sets, counts and clears", async () => {
    expect((await control("POST", JSON.stringify({ throttle: 1 }))).status).toBe(200);
    await expect(insert()).rejects.toMatchObject({ name: "ThrottlingException" });
    expect(await (await control("GET")).json()).toEqual({ injected: { throttle: 1 } });
    await control("DELETE");
    await insert();
  });

  test.each([
    "{",
    "[1]",
    "null",
    '{"throttel":1}',
    '{"throttle":2}',
    '{"throttle":{"next":-1}}',
    '{"latencyMs":"x"}',
    '{"latencyMs":1,"latency":2}',
    '{"latency":1}',
  ])("refuses %s and keeps what was set", async (body) => {
    api.faults.set({ throttle: { next: 1 } });
    expect((await control("POST", body)).status).toBe(400);
    await expect(insert()).rejects.toMatchObject({ name: "ThrottlingException" });
  });

  test("is off unless asked for", async () => {
    const other = await startDataApi({ clusters: [] });
    expect((await control("POST", "{}", other.endpoint)).status).toBe(404);
    await other.close();
  });
});

describe("Postgres", () => {
  const unavailable = { name: "DatabaseUnavailableException", $metadata: { httpStatusCode: 504 } };

  test("that ends under a statement, is away and comes back: unavailable, then well", async () => {
    const client = clientOf(api.endpoint);
    const hanging = execute("SELECT pg_sleep(60)::text", client);
    const transaction = await client.send(new BeginTransactionCommand(arns));
    while (
      (await direct.query("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"))
        .rowCount === 0
    );
    const restarted = postgres.restart("immediate");
    await expect(hanging).rejects.toMatchObject(unavailable);
    await restarted;
    // Sessions that died while idle are not handed out.
    for (let call = 0; call < 5; call++) await insert(client);
    const { transactionId } = transaction;
    await expect(
      client.send(new ExecuteStatementCommand({ ...arns, sql: "SELECT 1", transactionId })),
    ).rejects.toMatchObject(unavailable);
  });

  test("that was never there is unavailable", async () => {
    const url = "postgresql://stint@%2Fnowhere:5432/postgres";
    const other = await startDataApi({ clusters: [{ resourceArn: arns.resourceArn, url }] });
    await expect(execute("SELECT 1", clientOf(other.endpoint))).rejects.toMatchObject(unavailable);
    await other.close();
  });

  test("that ends one backend: its caller learns it, the others do not", async () => {
    const hanging = execute("SELECT pg_sleep(60)::text AS victim");
    const kill =
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%AS victim' AND state = 'active'";
    const killed = expect(hanging).rejects.toMatchObject(unavailable);
    while ((await direct.query(kill)).rowCount === 0);
    await killed;
    await insert();
  });
});
