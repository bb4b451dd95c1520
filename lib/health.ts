/** GET /health as django-health-check answers it: names, texts and status codes of the original. */
import { randomUUID } from "node:crypto";
import * as z from "zod/mini";
import { pause } from "./clock.ts";
import { limited } from "./database/limits.ts";
import type { Database } from "./database/port.ts";
import { createTaskClient } from "./enqueue.ts";
import { type HttpAnswer, type HttpRequest, json, type Route } from "./http.ts";
import type { Log } from "./log.ts";
import { checkDatabase, dropCanary, leaveHealthRow, takeHealthRow } from "./sql/health.ts";
import { pendingMigrations } from "./sql/pending.ts";
import { defineTask, type TaskHandler } from "./task.ts";

export interface HealthOptions {
  readonly databases: readonly Database[];
  /** Adds the round trip through the processor. */
  readonly taskProcessorCheck: boolean;
  /** The processor's sleep interval: how long the canary may have to wait for a poll. */
  readonly sleepIntervalMs: number;
  readonly log: Log;
}

/** Of each call of a check: a probe that waits for a database that hangs says nothing, and the next one waits beside it. */
const CALL_MS = 5000;

const canary = defineTask({
  identifier: "task_processor.health_check",
  payload: z.object({
    // Made with the first canary: its pattern is of no use to a cold start.
    get id() {
      return z.uuid();
    },
  }),
  priority: "HIGHEST",
  timeoutMs: 5000,
  maxAttempts: 1,
});

/** Leaves a row that the check looks for. Every processor has it. */
export const canaryHandler = (databases: readonly Database[]): TaskHandler =>
  canary.handle(async ({ id }) => {
    for (const database of databases) await database.query(leaveHealthRow, { id }, { timeoutMs: CALL_MS });
  });

let inFlight: Promise<void> | undefined;

/**
 * Enqueues a canary ahead of any backlog and waits until a processor has run it: a sleep interval and a second at most.
 * One canary is in flight at a time, shared by all callers.
 * @throws Error when none ran it in time, StintError when the database fails
 */
export function taskProcessorHealthCheck(options: Pick<HealthOptions, "databases" | "sleepIntervalMs">): Promise<void> {
  inFlight ??= roundTrip(options).finally(() => {
    inFlight = undefined;
  });
  return inFlight;
}

async function roundTrip({
  databases,
  sleepIntervalMs,
}: Pick<HealthOptions, "databases" | "sleepIntervalMs">): Promise<void> {
  const database = limited(databases.at(-1)!, CALL_MS);
  const id = randomUUID();
  const enqueued = await createTaskClient({ database }).enqueue(canary, { id });
  const deadline = performance.now() + sleepIntervalMs + 1000;
  let waitMs = 50;
  try {
    while (performance.now() < deadline) {
      await pause(waitMs);
      waitMs = Math.min(400, waitMs * 2);
      if ((await database.query(takeHealthRow, { id })).length > 0) return;
    }
    throw new Error("Task processor is unable to process tasks.");
  } finally {
    if ("id" in enqueued) await database.query(dropCanary, { id: enqueued.id }).catch(() => {});
    // One that ran after all, between the last look and now.
    await database.query(takeHealthRow, { id }).catch(() => {});
  }
}

interface Check {
  readonly name: string;
  readonly critical: boolean;
  run(): Promise<void>;
  /** What is said when it throws. */
  readonly failure: string;
}

const checksOf = ({ taskProcessorCheck, sleepIntervalMs, ...options }: HealthOptions): Check[] => {
  const databases = options.databases.map((database) => limited(database, CALL_MS));
  return [
    {
      name: "DatabaseBackend",
      critical: true,
      failure: "unavailable: Database error",
      async run() {
        for (const database of databases) await database.query(checkDatabase, { id: randomUUID() });
      },
    },
    {
      name: "MigrationsHealthCheck",
      critical: true,
      failure: "unavailable: There are migrations to apply",
      async run() {
        for (const database of databases)
          if ((await pendingMigrations(database)).length > 0) throw new Error("There are migrations to apply.");
      },
    },
    ...(taskProcessorCheck
      ? [
          {
            name: "TaskProcessorHealthCheckBackend",
            critical: false,
            failure: "unknown error: Task processor is unable to process tasks.",
            run: () => taskProcessorHealthCheck({ databases, sleepIntervalMs }),
          },
        ]
      : []),
  ];
};

export async function readHealth(options: HealthOptions): Promise<{ status: number; checks: Record<string, string> }> {
  let status = 200;
  const entries = await Promise.all(
    checksOf(options).map(async (check): Promise<[string, string]> => {
      try {
        await check.run();
        return [check.name, "working"];
      } catch (error) {
        options.log.warn("a health check failed", { check: check.name, error: String(error) });
        if (check.critical) status = 500;
        return [check.name, check.failure];
      }
    }),
  );
  return { status, checks: Object.fromEntries(entries) };
}

export const healthRoutes = (options: HealthOptions): Record<string, Route> => ({
  "/health": (request) => render(request, () => readHealth(options)),
  "/health/liveness": async () => json(200, { status: "alive" }),
  "/health/readiness": (request) => render(request, () => readHealth(options)),
});

async function render(
  request: HttpRequest,
  read: () => Promise<{ status: number; checks: Record<string, string> }>,
): Promise<HttpAnswer> {
  const format = request.query.format === "json" ? "json" : accepted(request.headers.accept);
  if (format === undefined)
    return {
      status: 406,
      headers: { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" },
      body: "Not Acceptable: Supported content types: text/html, application/json",
    };
  const { status, checks } = await read();
  if (format === "json") return json(status, checks);
  return {
    status,
    headers: { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" },
    body: page(status, checks),
  };
}

function accepted(accept = "*/*"): "html" | "json" | undefined {
  const types = accept.split(",").map((part) => part.split(";")[0]!.trim().toLowerCase());
  for (const type of types) {
    if (type === "text/html" || type === "*/*" || type === "text/*") return "html";
    if (type === "application/json" || type === "application/*") return "json";
  }
  return undefined;
}

const page = (status: number, checks: Record<string, string>): string => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>System status</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:40rem;padding:0 1rem}td{padding:.3rem 1rem .3rem 0}.bad{font-weight:600}</style></head>
<body><h1>System status</h1><p>${status === 200 ? "Everything that is critical works." : "Something critical does not work."}</p><table>
${Object.entries(checks)
  .map(([name, text]) => `<tr><td>${name}</td><td class="${text === "working" ? "good" : "bad"}">${text}</td></tr>`)
  .join("\n")}
</table></body></html>
`;
