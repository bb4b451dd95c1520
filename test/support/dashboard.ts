/** The dashboard as an operator has it: the function's routes behind a listener, a database, a worker with work to do. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import * as z from "zod/mini";
import type { MonitoringConfig } from "../../lib/config.ts";
import { dashboardRoutes } from "../../lib/dashboard/index.ts";
import type { Database } from "../../lib/database/port.ts";
import { createTaskClient, defineRecurringTask, defineTask, TaskCancelError } from "../../lib/index.ts";
import { silentLog } from "../../lib/log.ts";
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

export async function serve(databases: readonly Database[]): Promise<Site> {
  const settings = { graceMs: 20_000, sleepIntervalMs: 2000 };
  const routes = operatorRoutes({ databases, monitoring, settings: settings as never, pages: dashboardRoutes });
  const posts: string[] = [];
  const server: Server = createServer(async (request, response) => {
    const url = new URL(request.url!, "http://localhost");
    let body = "";
    for await (const part of request) body += part;
    if (request.method === "POST") posts.push(body);
    const answered = await answerOperator(
      routes,
      monitoring,
      {
        method: request.method!,
        path: url.pathname,
        query: Object.fromEntries(url.searchParams),
        headers: request.headers as Record<string, string>,
        loopback: true,
        body,
      },
      silentLog,
    );
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
    stack: `${error.name}: ${error.message}\n    at run (functions/tasks/${file}.handler.ts:41:11)`,
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
  nightly.handle(async () => {}),
  warm.handle(async () => {}),
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

/** Some 500 runs by two slots, spread over the last hour; then what waits, is due later, has failed, is unknown. A worker goes on at slot 0. */
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
  while ((await db.sql("SELECT 1 FROM task_run")).length < 500) await wait(50);
  leave.abort();
  await second;
  await db.sql(
    `UPDATE task_run SET finished_at = finished_at - s.by, started_at = started_at - s.by
    FROM (SELECT task_id, attempt, make_interval(secs => 3500 * power(random(), 1.4)) AS by FROM task_run) AS s
    WHERE s.task_id = task_run.task_id AND s.attempt = task_run.attempt`,
  );
  await tasks.enqueueMany(welcome, numbers(1, 40), { delayUntil: new Date(Date.now() + 3_600_000) } as never);
  await tasks.enqueueMany(legacy, numbers(1, 3));
  return async () => {
    stop.abort();
    await first;
  };
}
