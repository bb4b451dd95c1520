/** `run-task-processor` when things go wrong: the database goes and comes, others work beside it, and each way it can end. */
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { startDataApi } from "../infra/local/data-api/index.ts";
import { type LocalPostgres, startPostgres } from "../infra/local/postgres.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { connectDataApi } from "../lib/database/data-api.ts";
import { connectPg } from "../lib/database/pg.ts";
import type { Database } from "../lib/database/port.ts";
import { createTaskClient } from "../lib/enqueue.ts";
import { silentLog } from "../lib/log.ts";
import { createRegistry } from "../lib/registry.ts";
import { migrate } from "../lib/sql/migrate.ts";
import { runInvocation } from "../lib/worker.ts";
import "./support/database.ts";
import { handlers, nap } from "./fixtures/tasks.ts";
import { type Running, startStint, until } from "./support/stint.ts";

/** One of its own: it is stopped and started. */
let postgres: LocalPostgres;
let database: Database;

beforeAll(async () => {
  postgres = await startPostgres({ settings: { fsync: "off" } });
  database = connectPg({ url: postgres.url, schema: "task_processor" });
  await migrate(database);
});
afterAll(async () => {
  await database.close();
  await postgres.stop("immediate");
});
beforeEach(() =>
  sql("TRUNCATE task_processor.task, task_processor.task_run, task_processor.slot, task_processor.heartbeat"),
);

async function sql<Row extends object>(text: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString: postgres.url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}
/** Of tasks and runs those of the test: a built-in schedule may come due beside them, as one does each ten minutes. */
const count = async (from: string): Promise<number> => {
  const table = from.replace(
    /^(task|task_run)\b/,
    "(SELECT * FROM task_processor.$1 WHERE identifier LIKE 'test.%') AS $1",
  );
  return (
    await sql<{ n: number }>(`SELECT count(*)::int AS n FROM ${table.replace(/^slot$/, "task_processor.slot")}`)
  )[0]!.n;
};

const start = (...flags: string[]): Running =>
  startStint(["run-task-processor", "--tasks", "test/fixtures/tasks.ts", "--sleepintervalms", "100", ...flags], {
    DATABASE_URL: postgres.url,
  });
const naps = (tasks: number, ms: number) =>
  createTaskClient({ database }).enqueueMany(
    nap,
    Array.from({ length: tasks }, () => ({ ms })),
  );
const running = async (): Promise<boolean> => (await count("task WHERE held_by IS NOT NULL")) > 0;

test("Postgres goes and comes back: it takes its seats again, and no task is lost", { timeout: 180_000 }, async () => {
  await naps(120, 100);
  const processor = start("--numthreads", "2", "--queuepopsize", "5", "--graceperiodms", "5000");
  await until("some have run", async () => (await count("task_run")) > 10, processor);
  await postgres.restart("immediate");
  await until("it runs on", async () => (await count("task_run")) > 40, processor);
  process.kill(postgres.pid, "SIGINT");
  await until("it has noticed", () => /is away or refuses|lost its lease/.test(processor.output()), processor);
  await postgres.restart();
  const [{ back }] = (await sql("SELECT CAST(clock_timestamp() AS text) AS back")) as [{ back: string }];
  await naps(10, 1);
  await until("all have run", async () => (await count("task")) === 0, processor);
  // One that still waits for its next try may have left something held, and says so by its exit code.
  const seen = `SELECT FROM task_processor.heartbeat WHERE last_seen_at > '${back}' AND expired_at IS NULL`;
  await until("both threads have seats", async () => (await sql(seen)).length === 2, processor);
  expect(await count("task_run WHERE task_outcome = 'SUCCEEDED'")).toBe(130);
  processor.child.kill("SIGTERM");
  expect((await processor.ended).code).toBe(0);
});

test("two replicas and a function's invocation over the Data API share the work of one database", {
  timeout: 180_000,
}, async () => {
  const replicas = [
    start("--numthreads", "1", "--queuepopsize", "3"),
    start("--numthreads", "1", "--queuepopsize", "3"),
  ];
  const api = await startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url: postgres.url }] });
  const through = connectDataApi({ ...LOCAL, schema: "task_processor", endpoint: api.endpoint });
  await until("both replicas have seats", async () => (await count("slot")) >= 2, ...replicas);
  // Both have their hands full with these when the rest comes.
  await naps(6, 10_000);
  await until("both replicas work", async () => (await count("task WHERE held_by IS NULL")) === 0, ...replicas);
  await naps(84, 150);
  const report = await runInvocation({
    databases: [through],
    registry: createRegistry(handlers, null),
    slot: 7,
    resident: false,
    settings: { sleepIntervalMs: 100, graceMs: 20_000, queuePopSize: 3, backoffDefaultMs: 0, invocationMs: null },
    log: silentLog,
  });
  await until("all have run", async () => (await count("task")) === 0, ...replicas);
  expect(report.succeeded).toBeGreaterThan(0);
  expect(await count("task_run WHERE task_outcome = 'SUCCEEDED'")).toBe(90);
  const shares = await sql<{ slot: number }>(
    "SELECT DISTINCT slot FROM task_processor.task_run JOIN task_processor.heartbeat USING (invocation_id) ORDER BY slot",
  );
  expect(shares.map(({ slot }) => slot)).toEqual([0, 1, 7]);
  for (const { child } of replicas) child.kill("SIGTERM");
  expect((await Promise.all(replicas.map(({ ended }) => ended))).map(({ code }) => code)).toEqual([0, 0]);
  await through.close();
  await api.close();
});

test("while it stops it is alive and not ready", { timeout: 180_000 }, async () => {
  await naps(1, 30_000);
  const processor = start("--numthreads", "1", "--port", "0");
  await until("it runs", running, processor);
  await until("it listens", () => processor.output().includes('"url":"http:'), processor);
  const url = /"url":"(http:[^"]+)"/.exec(processor.output())![1]!;
  expect((await fetch(`${url}/health/readiness`)).status).toBe(200);
  processor.child.kill("SIGTERM");
  await until("it has heard", () => processor.output().includes("SIGTERM"), processor);
  const readiness = await fetch(`${url}/health/readiness`);
  expect([readiness.status, await readiness.json()]).toEqual([
    503,
    { error: { code: "stopping", message: "This process is about to end." } },
  ]);
  expect((await fetch(`${url}/health/liveness`)).status).toBe(200);
  expect((await processor.ended).code).toBe(0);
});

test("SIGINT twice ends it at once with 130; what it held is left to the grace period", {
  timeout: 180_000,
}, async () => {
  await naps(1, 30_000);
  const processor = start("--numthreads", "1", "--graceperiodms", "60000");
  await until("it runs", running, processor);
  processor.child.kill("SIGINT");
  await until("it has heard", () => processor.output().includes("SIGINT"), processor);
  await sleep(400);
  processor.child.kill("SIGINT");
  expect((await processor.ended).code).toBe(130);
  expect(await running()).toBe(true);
});

test("a database that hangs does not keep it: it ends with 1, says why, and what it held runs again", {
  timeout: 180_000,
}, async () => {
  await naps(1, 30_000);
  const processor = start("--numthreads", "1", "--graceperiodms", "5000");
  await until("it runs", running, processor);
  const looking = new pg.Client({ connectionString: postgres.url });
  await looking.connect();
  // First the postmaster: no backend comes after those that are found.
  process.kill(postgres.pid, "SIGSTOP");
  const { rows: backends } = await looking.query<{ pid: number }>(
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'stint' AND pid <> pg_backend_pid()",
  );
  for (const { pid } of backends) process.kill(pid, "SIGSTOP");
  processor.child.kill("SIGTERM");
  const { code, stderr } = await processor.ended;
  process.kill(postgres.pid, "SIGCONT");
  for (const { pid } of backends) process.kill(pid, "SIGCONT");
  await looking.end();
  expect(code).toBe(1);
  expect(stderr).toMatch(/(did not hear of the end|not ended within the grace period): others take over/);
  await sql("UPDATE task_processor.task SET payload = '{\"ms\": 1}'");
  const heir = start("--numthreads", "1", "--graceperiodms", "5000");
  await until("it has run", async () => (await count("task")) === 0, heir);
  expect(await count("task_run WHERE task_outcome = 'SUCCEEDED'")).toBe(1);
});
