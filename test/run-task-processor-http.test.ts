import { connect } from "node:net";
import { beforeAll, beforeEach, expect, test } from "vitest";
import { createTaskClient } from "../lib/enqueue.ts";
import { nap } from "./fixtures/tasks.ts";
import { openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { type Running, startStint, stint, until } from "./support/stint.ts";

const TOKEN = "reads-and-nothing-more";
let db: TestDatabase;

beforeAll(async () => {
  db = await openDatabase("pg");
});

beforeEach(() => reset(db));

const flags = [
  "run-task-processor",
  "--tasks",
  "test/fixtures/tasks.ts",
  "--numthreads",
  "1",
  "--sleepintervalms",
  "100",
];

async function listening(env: Record<string, string>, ...more: string[]): Promise<{ processor: Running; url: string }> {
  const processor = startStint([...flags, "--port", "0", ...more], { DATABASE_URL: db.url, ...env });
  const url = () => /"url":"(http:[^"]+)"/.exec(processor.output())?.[1];
  await until("it listens", () => url() !== undefined, processor);
  return { processor, url: url()! };
}

async function stop({ child, ended }: Running): Promise<number | null> {
  child.kill("SIGTERM");
  return (await ended).code;
}

/** What comes back for these bytes, until the other side hangs up. */
const raw = (url: string, text: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(url).port), "127.0.0.1", () => socket.write(text));
    let got = "";
    socket.on("data", (data) => {
      got += data;
    });
    socket.on("close", () => resolve(got));
    socket.on("error", reject);
  });

test("health, and everything under /processor, from this machine without a token", async () => {
  const { processor, url } = await listening({ ENABLE_TASK_PROCESSOR_HEALTH_CHECK: "true" });
  expect(new URL(url).hostname).toBe("127.0.0.1");
  const get = (path: string, headers = {}) => fetch(url + path, { headers });
  // The check waits for a second beyond the thread's poll, and the thread may still be about to start.
  await until(
    "its thread works",
    async () => (await (await get("/health?format=json")).text()).includes('HealthCheckBackend":"working"'),
    processor,
  );
  const health = await get("/health?format=json");
  expect([health.status, await health.json()]).toEqual([
    200,
    { DatabaseBackend: "working", MigrationsHealthCheck: "working", TaskProcessorHealthCheckBackend: "working" },
  ]);
  expect(await (await get("/health/liveness")).json()).toEqual({ status: "alive" });
  expect((await get("/health/readiness")).status).toBe(200);
  expect(await (await get("/processor/monitoring")).json()).toEqual({ waiting: 0 });
  expect(await (await get("/processor/metrics")).text()).toContain("# TYPE ");
  expect((await get("/processor")).headers.get("content-type")).toContain("text/html");
  expect((await get("/nothing")).status).toBe(404);
  expect((await get("/processor/nothing")).status).toBe(404);
  // Acting takes a token, wherever it comes from.
  const headers = { "content-type": "application/json" };
  expect((await fetch(`${url}/processor/actions`, { method: "POST", headers, body: "{}" })).status).toBe(403);
  // Strangers through a proxy of this machine, or a site whose name points here.
  expect((await get("/processor/monitoring", { "x-forwarded-for": "203.0.113.9" })).status).toBe(503);
  const rebound = "GET /processor/monitoring HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
  expect(await raw(url, rebound)).toMatch(/^HTTP\/1\.1 503 /);
  expect(await stop(processor)).toBe(0);
});

test("on an address that others reach, a token is needed", async () => {
  const open = await listening({}, "--host", "0.0.0.0");
  const at = (url: string): string => `http://127.0.0.1:${new URL(url).port}/processor/monitoring`;
  expect((await fetch(at(open.url))).status).toBe(503);
  expect(await stop(open.processor)).toBe(0);
  const { processor, url } = await listening({ MONITORING_TOKEN: TOKEN }, "--host", "0.0.0.0");
  expect((await fetch(at(url))).status).toBe(401);
  expect((await fetch(at(url), { headers: { authorization: `Bearer ${TOKEN}` } })).status).toBe(200);
  expect(await stop(processor)).toBe(0);
});

test("too much, too slow and too odd is refused, and the listener goes on", async () => {
  const { processor, url } = await listening({ MONITORING_ADMIN_TOKEN: TOKEN });
  const long = await raw(
    url,
    `POST /processor/actions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${TOKEN}\r\nContent-Length: 9000000\r\n\r\n${"x".repeat(300_000)}`,
  );
  expect(long).toMatch(/^HTTP\/1\.1 413 /);
  expect(await raw(url, `GET /health HTTP/1.1\r\nHost: localhost\r\nX: ${"y".repeat(20_000)}\r\n\r\n`)).toMatch(
    / 431 /,
  );
  expect(await raw(url, "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow")).toMatch(/ 408 /);
  expect(await raw(url, "nonsense\r\n\r\n")).toMatch(/ 400 /);
  expect((await fetch(`${url}/health/liveness`)).status).toBe(200);
  expect(await stop(processor)).toBe(0);
});

test("requests that wait for a database take no connection of the leases, and are answered in the end", async () => {
  await createTaskClient({ database: db.database }).enqueue(nap, { ms: 9000 });
  // A built-in schedule may come due beside it, as one does each ten minutes.
  const runs = () => db.sql("SELECT attempt, result FROM task_run WHERE identifier = 'test.nap'");
  const { processor, url } = await listening({}, "--graceperiodms", "6000");
  await until(
    "it runs",
    async () => (await db.sql("SELECT FROM task WHERE identifier = 'test.nap' AND held_by IS NOT NULL")).length > 0,
    processor,
  );
  const locker = await db.client();
  await locker.query("BEGIN; LOCK TABLE health_check IN ACCESS EXCLUSIVE MODE");
  const probes = await Promise.all(Array.from({ length: 8 }, () => fetch(`${url}/health/readiness`)));
  expect(probes.map(({ status }) => status)).toEqual(probes.map(() => 500));
  await until("it has run", async () => (await runs()).length > 0, processor);
  await locker.query("ROLLBACK");
  expect(await runs()).toEqual([{ attempt: 1, result: "SUCCESS" }]);
  expect((await fetch(`${url}/health/readiness`)).status).toBe(200);
  expect(await stop(processor)).toBe(0);
  expect(processor.output()).not.toContain("lost its lease");
}, 180_000);

test("alive while the database is away, and not ready", async () => {
  const { processor, url } = await listening({ DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" });
  expect((await fetch(`${url}/health/liveness`)).status).toBe(200);
  expect((await fetch(`${url}/health/readiness`)).status).toBe(500);
  expect(await stop(processor)).toBe(0);
});

test("a port that is taken, or none for a host: one line", async () => {
  const { processor, url } = await listening({});
  const taken = await stint([...flags, "--port", new URL(url).port], { DATABASE_URL: db.url });
  expect([taken.code, taken.stderr]).toEqual([
    1,
    expect.stringMatching(/^option_invalid: Cannot listen on 127\.0\.0\.1/),
  ]);
  expect(await stop(processor)).toBe(0);
  const host = await stint([...flags, "--host", "0.0.0.0"], { DATABASE_URL: db.url });
  expect([host.code, host.stderr]).toEqual([1, "option_invalid: --host needs --port.\n"]);
});
