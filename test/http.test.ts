import { beforeEach, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { pause } from "../lib/clock.ts";
import type { MonitoringConfig } from "../lib/config.ts";
import {
  canaryHandler,
  type HealthOptions,
  healthRoutes,
  readHealth,
  taskProcessorHealthCheck,
} from "../lib/health.ts";
import { answer, type HttpRequest } from "../lib/http.ts";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { monitoringRoute } from "../lib/monitoring.ts";
import { createRegistry } from "../lib/registry.ts";
import { runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";

const request = (path: string, more: Partial<HttpRequest> = {}): HttpRequest => ({
  method: "GET",
  path,
  query: {},
  headers: {},
  loopback: true,
  ...more,
});
const open: MonitoringConfig = { readTokens: [], adminTokens: [], public: false };
const note = defineTask({ identifier: "note", payload: z.object({}) });

describe.each(ADAPTERS)("HTTP over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const bare = await openDatabase(adapter, { migrated: false });
  const databases = [db.database];
  const tasks = createTaskClient({ database: db.database });
  const health = (more: Partial<HealthOptions> = {}): HealthOptions => ({
    databases,
    taskProcessorCheck: false,
    sleepIntervalMs: 200,
    log: silentLog,
    ...more,
  });
  const ask = (path: string, more: Partial<HttpRequest> = {}, config = open) =>
    answer(
      { "/processor/monitoring": monitoringRoute(databases, config), ...healthRoutes(health()) },
      request(path, more),
      silentLog,
    );
  beforeEach(() => reset(db));

  test('monitoring counts what is due, unfinished and held by nobody: exactly {"waiting": N}', async () => {
    await tasks.enqueueMany(note, [{}, {}, {}]);
    await tasks.enqueue(note, {}, { delayUntil: new Date("2999-01-01") });
    await db.sql("UPDATE task SET held_by = gen_random_uuid(), claim_seq = 1, held_since = now() WHERE id = 1");
    const { status, body, headers } = await ask("/processor/monitoring");
    expect([status, body]).toEqual([200, '{"waiting":2}']);
    expect(headers["cache-control"]).toBe("no-store");
  });

  test("unknown routes are 404, other methods 405, errors JSON with a code and without a stack", async () => {
    expect(await ask("/nothing")).toMatchObject({ status: 404, body: expect.stringContaining('"not_found"') });
    expect(await ask("/__proto__")).toMatchObject({ status: 404 });
    expect(await ask("/health", { method: "POST" })).toMatchObject({ status: 405, headers: { allow: "GET, HEAD" } });
    const broken = await answer(
      { "/processor/monitoring": monitoringRoute([bare.database], open) },
      request("/processor/monitoring"),
      silentLog,
    );
    expect(JSON.parse(broken.body)).toEqual({
      error: { code: "schema_missing", message: expect.stringContaining("stint migrate") },
    });
    expect(broken.status).toBe(503);
  });

  test("health has the original's names, texts and codes", async () => {
    const { status, body } = await ask("/health", { query: { format: "json" } });
    expect([status, JSON.parse(body)]).toEqual([200, { DatabaseBackend: "working", MigrationsHealthCheck: "working" }]);
    expect(await db.sql("SELECT 1 FROM health_check")).toHaveLength(0);
    expect(await readHealth(health({ databases: [bare.database] }))).toEqual({
      status: 500,
      checks: {
        DatabaseBackend: "unavailable: Database error",
        MigrationsHealthCheck: "unavailable: There are migrations to apply",
      },
    });
  });

  test.each([
    ["text/html", 200, "text/html"],
    [undefined, 200, "text/html"],
    ["application/json", 200, "application/json"],
    ["text/html,application/xhtml+xml,*/*;q=0.8", 200, "text/html"],
    ["image/png", 406, "text/plain"],
  ])("Accept %s is answered %i as %s", async (accept, status, type) => {
    const answered = await ask("/health", { headers: { accept } });
    expect(answered.status).toBe(status);
    expect(answered.headers["content-type"]).toContain(type);
  });

  test("the task processor's check is not critical, works when one runs, and leaves no row either way", async () => {
    const checked = health({ taskProcessorCheck: true });
    expect(await readHealth(checked)).toEqual({
      status: 200,
      checks: {
        DatabaseBackend: "working",
        MigrationsHealthCheck: "working",
        TaskProcessorHealthCheckBackend: "unknown error: Task processor is unable to process tasks.",
      },
    });
    const stop = new AbortController();
    const resident = runInvocation({
      databases,
      registry: createRegistry([canaryHandler(databases)], null),
      slot: 0,
      resident: true,
      settings: { sleepIntervalMs: 100, graceMs: 20_000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null },
      log: silentLog,
      signal: stop.signal,
    });
    // It is waited for by this interval and a second more.
    const patient = health({ taskProcessorCheck: true, sleepIntervalMs: 10_000 });
    await Promise.all([1, 2, 3].map(() => taskProcessorHealthCheck(patient)));
    // The canary's row is there a moment before its run is recorded.
    while ((await db.sql("SELECT 1 FROM task_run")).length === 0) await pause(20);
    expect(await db.sql("SELECT 1 FROM task_run")).toHaveLength(1);
    expect((await readHealth(patient)).checks.TaskProcessorHealthCheckBackend).toBe("working");
    const before = (await db.sql<{ n: number }>("SELECT last_value::int AS n FROM task_id_seq"))[0]!.n;
    await Promise.all(Array.from({ length: 100 }, () => readHealth(patient)));
    const canaries = (await db.sql<{ n: number }>("SELECT last_value::int AS n FROM task_id_seq"))[0]!.n - before;
    // One in flight, shared: a slow caller may start the next.
    expect(canaries).toBeLessThan(10);
    stop.abort();
    await resident;
    expect(await db.sql("SELECT 1 FROM health_check UNION ALL SELECT 1 FROM task")).toHaveLength(0);
  });

  test("monitoring is open to this machine, closed to others without a token, and reads with either kind", async () => {
    const guarded: MonitoringConfig = {
      readTokens: [{ name: "grafana", token: "r".repeat(20) }],
      adminTokens: [{ name: "ada", token: "a".repeat(20) }],
      public: false,
    };
    const status = async (headers: Record<string, string>, config = guarded) =>
      (await ask("/processor/monitoring", { headers, loopback: false }, config)).status;
    expect(await status({}, open)).toBe(503);
    expect(await status({}, { ...open, public: true })).toBe(200);
    expect(await status({})).toBe(401);
    expect(await status({ authorization: "Bearer wrong" })).toBe(401);
    expect(await status({ authorization: `Bearer ${"r".repeat(19)}` })).toBe(401);
    expect(await status({ authorization: `Bearer ${"r".repeat(20)}` })).toBe(200);
    expect(await status({ authorization: `bearer ${"a".repeat(20)}` })).toBe(200);
    expect(await status({ authorization: `Basic ${btoa(`anyone:${"r".repeat(20)}`)}` })).toBe(200);
    expect((await ask("/processor/monitoring", {}, guarded)).status).toBe(401);
  });
});
