/** Lambda handlers made of one's own task handlers: `stint/processor`. */
import middy from "@middy/core";
import type { APIGatewayProxyEventV2, APIGatewayProxyResultV2, Context } from "aws-lambda";
import * as z from "zod/mini";
import { builtInHandlers } from "./built-in.ts";
import { codeOf, StintError } from "./errors.ts";
import { healthRoutes } from "./health.ts";
import { answer, type HttpRequest, type Routes, refusal } from "./http.ts";
import { createLog, type Log } from "./log.ts";
import { monitoringRoute } from "./monitoring.ts";
import { createObservability } from "./observability.ts";
import { createRegistry } from "./registry.ts";
import { lazyRuntime, type Runtime } from "./runtime.ts";
import { type MigrationReport, migrate } from "./sql/migrate.ts";
import type { TaskHandler } from "./task.ts";
import { type InvocationReport, type OnFailure, runInvocation } from "./worker.ts";

export interface ProcessorOptions {
  /** Handlers of tasks and recurring tasks. */
  readonly handlers: readonly TaskHandler[];
  /** Hears of each failed run: the place for an error tracker. */
  readonly onFailure?: OnFailure;
  readonly log?: Log;
}

const processorEvent = z.object({
  slot: z.int().check(z.gte(0)),
  /** Keep polling until superseded or out of time. Only schedules send it. */
  resident: z._default(z.boolean(), false),
});

/** The function that schedules call: `{ "slot": 0, "resident": true }`. Answers with a report of the invocation. */
export function createProcessorHandler(options: ProcessorOptions) {
  const runtime = lazyRuntime();
  const { log, middlewares, observe } = createObservability(options.log);
  return middy(async (event: unknown, context: Context): Promise<InvocationReport> => {
    const parsed = z.safeParse(processorEvent, event);
    if (!parsed.success)
      throw new StintError(
        "event_invalid",
        'The event is { "slot": 0 } with "resident": true or false, and a slot from 0.',
      );
    const { config, databases } = await runtime();
    const { slot, resident } = parsed.data;
    if (slot >= config.numThreads) {
      throw new StintError(
        "slot_invalid",
        `Slot ${slot} is out of range: 0 to ${config.numThreads - 1} with TASK_PROCESSOR_NUM_THREADS=${config.numThreads}.`,
      );
    }
    const remainingMs = (): number => Math.min(config.invocationMs, context.getRemainingTimeInMillis());
    const invocation = {
      databases,
      registry: createRegistry([...options.handlers, ...builtInHandlers(config, databases)], config.invocationMs),
      slot,
      resident,
      settings: config,
      log,
      remainingMs,
      ...(options.onFailure && { onFailure: options.onFailure }),
    };
    return await observe(() => runInvocation(invocation), { databases, config, remainingMs });
  })
    .use(middlewares)
    .onError(putCodeInFront);
}

/** GET /health, /health/liveness, /health/readiness. */
export const createHealthHandler = (options: { log?: Log } = {}) =>
  httpHandler("/health", options.log, ({ config, databases }, log) =>
    healthRoutes({
      databases,
      taskProcessorCheck: config.healthCheckEnabled,
      sleepIntervalMs: config.sleepIntervalMs,
      log,
    }),
  );

/** GET /processor/monitoring. */
export const createMonitoringHandler = (options: { log?: Log } = {}) =>
  httpHandler("/processor/monitoring", options.log, ({ config, databases }) => ({
    "/processor/monitoring": monitoringRoute(databases, config.monitoring),
  }));

/** Applies the migrations of this release; for deploy time. */
export function createMigrateHandler() {
  const runtime = lazyRuntime();
  return middy(async (): Promise<MigrationReport[]> => {
    const reports: MigrationReport[] = [];
    for (const database of (await runtime()).databases) reports.push(await migrate(database));
    return reports;
  }).onError(putCodeInFront);
}

/** Lambda passes on an error's message only: its code goes to the front of it. */
function putCodeInFront({ error }: { error?: Error | null | undefined }): void {
  const code = codeOf(error);
  if (error && code !== undefined) error.message = `${code}: ${error.message}`;
}

type HttpEvent = Partial<APIGatewayProxyEventV2> | null | undefined;

/** Called without an HTTP event (`serverless invoke`), it reads `path` and answers with the bare JSON. */
function httpHandler(path: string, given: Log | undefined, routesOf: (runtime: Runtime, log: Log) => Routes) {
  const runtime = lazyRuntime();
  const log = given ?? createLog();
  return middy(async (event: HttpEvent): Promise<APIGatewayProxyResultV2<unknown>> => {
    const http = event?.requestContext?.http;
    const request: HttpRequest = {
      method: http?.method ?? "GET",
      path: http === undefined ? path : (event?.rawPath ?? path),
      query: http === undefined ? { format: "json" } : (event?.queryStringParameters ?? {}),
      headers: Object.fromEntries(
        Object.entries(event?.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
      ),
      loopback: http === undefined,
    };
    const answered = await runtime().then(
      (made) => answer(routesOf(made, log), request, log),
      (error: unknown) => {
        log.error("the function cannot start", { error: String(error) });
        // What is wrong with the configuration is not the caller's business.
        return refusal(503, codeOf(error) ?? "internal_error", "The function cannot start; its log says why.");
      },
    );
    if (http === undefined) return JSON.parse(answered.body);
    return { statusCode: answered.status, headers: { ...answered.headers }, body: answered.body };
  });
}
