/** The dashboard as an operator has it: the function's routes behind a listener, a database, a worker with work to do. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import * as z from "zod/mini";
import type { MonitoringConfig } from "../../lib/config.ts";
import { dashboardRoutes } from "../../lib/dashboard/index.ts";
import type { Database } from "../../lib/database/port.ts";
import type { HttpAnswer, HttpRequest } from "../../lib/http.ts";
import { createTaskClient, defineRecurringTask, defineTask, TaskCancelError } from "../../lib/index.ts";
import { silentLog } from "../../lib/log.ts";
import { performAction } from "../../lib/operator.ts";
import { answerOperator, operatorRoutes } from "../../lib/operator-routes.ts";
import { createRegistry } from "../../lib/registry.ts";
import { runInvocation } from "../../lib/worker.ts";
import type { TestDatabase } from "./database.ts";

export const ADMIN = "a".repeat(24);
export const READER = "r".repeat(24);
const monitoring: MonitoringConfig = {
  adminTokens: [{ name: "ada", token: ADMIN }],
  readTokens: [{ name: "grafana", token: READER }],
  public: false,
};

export interface Site {
  readonly url: string;
  readonly posts: string[];
  close(): Promise<void>;
}

export async function serve(databases: readonly Database[], { open = false } = {}): Promise<Site> {
  const settings = { graceMs: 20_000, sleepIntervalMs: 2000 };
  const guarded = { ...monitoring, public: open };
  const routes = operatorRoutes({ databases, monitoring: guarded, settings, pages: dashboardRoutes });
  return await listen((request) => answerOperator(routes, guarded, request, silentLog));
}

/** Whatever answers, at an address for a browser. */
export async function listen(respond: (request: HttpRequest) => Promise<HttpAnswer>): Promise<Site> {
  const posts: string[] = [];
  const server: Server = createServer(async (request, response) => {
    const url = new URL(request.url!, "http://localhost");
    let body = "";
    for await (const part of request) body += part;
    if (request.method === "POST") posts.push(body);
    const answered = await respond({
      method: request.method!,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      headers: request.headers as Record<string, string>,
      loopback: true,
      body,
    });
    response.writeHead(answered.status, answered.headers);
    response.end(request.method === "HEAD" ? undefined : answered.body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    posts,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export const HOSTILE = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>'"&`;
const any = z.object({ n: z.optional(z.number()), html: z.optional(z.string()) });
const define = (identifier: string) => defineTask({ identifier, payload: any });
export const webhook = define("webhooks.deliver");
export const invoice = define("invoices.send");
export const welcome = define("emails.welcome");
export const legacy = define("legacy.sync");
export const hostile = define(HOSTILE.slice(0, 150));
const nightly = defineRecurringTask({
  identifier: "reports.nightly",
  cron: "0 3 * * *",
  timeZone: "Europe/Berlin",
  schema: z.object({}),
  payload: {},
});
const warm = defineRecurringTask({ identifier: "caches.warm", every: "5m", schema: z.object({}), payload: {} });

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** Its stack names no folder of this machine: it stands in the pictures. */
const told = (error: Error, file: string): Error =>
  Object.assign(error, {
    stack: `${error.name}: ${error.message}\n    at deliver (functions/tasks/${file}.handler.ts:41:11)\n    at runAttempt (lib/attempt.ts:97:24)`,
  });

const handlers = [
  webhook.handle(async ({ n = 0 }) => {
    await wait(n % 5);
    if (n % 23 === 0) throw told(new Error("502 Bad Gateway from https://hooks.example.com/in"), "webhooks");
  }),
  invoice.handle(async ({ n = 0 }) => {
    await wait(8 + (n % 30));
    if (n % 11 === 0) throw told(new TaskCancelError("the customer has no address"), "invoices");
  }),
  welcome.handle(async () => await wait(2)),
  nightly.handle(async () => await wait(180)),
  warm.handle(async () => await wait(12)),
];

const settings = { sleepIntervalMs: 100, graceMs: 20_000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null };
const work = (database: Database, slot: number, signal: AbortSignal) =>
  runInvocation({
    databases: [database],
    registry: createRegistry(handlers, null),
    slot,
    resident: true,
    settings,
    log: silentLog,
    signal,
  });

/** Of a release of its own, which is in no picture. */
const hostileHandler = hostile.handle(async () => {
  throw new TaskCancelError(HOSTILE);
});

/** HTML in identifier, key, payload and error of one task. Its id, once it has ended. */
export async function runHostile(db: TestDatabase): Promise<string> {
  const answered = await createTaskClient({ database: db.database }).enqueue(
    hostile,
    { html: HOSTILE },
    { key: HOSTILE },
  );
  if (!("id" in answered)) throw new Error(answered.status);
  await runInvocation({
    databases: [db.database],
    registry: createRegistry([hostileHandler], null),
    slot: 2,
    resident: false,
    settings,
    log: silentLog,
  });
  return answered.id;
}

/**
 * Some 500 tasks run by two slots, spread over the last hour; then what waits, is due later, retries, has failed, is unknown, and
 * schedules that have run. A worker goes on at slot 0.
 */
export async function load(db: TestDatabase): Promise<() => Promise<void>> {
  const tasks = createTaskClient({ database: db.database });
  const numbers = (from: number, count: number) => Array.from({ length: count }, (_, n) => ({ n: from + n }));
  await tasks.enqueueMany(webhook, numbers(1, 320));
  await tasks.enqueueMany(invoice, numbers(1, 120));
  await tasks.enqueueMany(welcome, numbers(1, 60));
  const stop = new AbortController();
  const leave = new AbortController();
  const first = work(db.database, 0, stop.signal);
  const second = work(db.database, 1, leave.signal);
  // All attempts now: what backs off would else fail all at once, after the rest has been spread.
  while ((await db.sql("SELECT 1 FROM task")).length > 0) {
    await db.sql("UPDATE task SET scheduled_for = now() WHERE held_by IS NULL AND scheduled_for > now()");
    await wait(50);
  }
  leave.abort();
  await second;
  await db.sql(
    `CREATE TEMPORARY TABLE ago AS SELECT task_id, make_interval(secs => 3500 * power(random(), 1.4)) AS by FROM task_run GROUP BY 1;
    UPDATE task_run r SET finished_at = finished_at - a.by, started_at = started_at - a.by FROM ago a WHERE a.task_id = r.task_id;
    UPDATE failed_task f SET failed_at = failed_at - a.by, created_at = created_at - a.by, scheduled_for = scheduled_for - a.by FROM ago a WHERE a.task_id = f.id;
    DROP TABLE ago`,
  );
  await tasks.enqueueMany(welcome, numbers(1, 40), { delayUntil: new Date(Date.now() + 3_600_000) } as never);
  for (const identifier of ["reports.nightly", "caches.warm"])
    await performAction([db.database], { action: "recurring_run", identifier }, "ada");
  while ((await db.sql("SELECT 1 FROM task_run WHERE occurrence IS NOT NULL")).length < 2) await wait(50);
  await tasks.enqueueMany(webhook, [{ n: 23 }, { n: 46 }, { n: 69 }]);
  await tasks.enqueueMany(legacy, numbers(1, 3));
  return async () => {
    stop.abort();
    await first;
  };
}
