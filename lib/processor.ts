/** Lambda handlers made of one's own task handlers: `stint/processor`. */
import middy from "@middy/core";
import type { APIGatewayProxyEventV2, APIGatewayProxyResultV2, Context } from "aws-lambda";
import { builtInHandlers } from "./built-in.ts";
import { dashboardRoutes } from "./dashboard/index.ts";
import { codeOf } from "./errors.ts";
import { healthRoutes } from "./health.ts";
import { answer, type HttpAnswer, type HttpRequest, refusal } from "./http.ts";
import { createLog, type Log } from "./log.ts";
import { createObservability } from "./observability.ts";
import { answerOperator, operatorRoutes } from "./operator-routes.ts";
import { createRegistry } from "./registry.ts";
import { lazyRuntime, type Runtime } from "./runtime.ts";
import { type MigrationReport, migrate } from "./sql/migrate.ts";
import type { TaskHandler } from "./task.ts";
import { readTick, runTick } from "./tick.ts";
import { arrangingWakes, wakeThrough } from "./wakes.ts";
import type { InvocationReport, OnFailure } from "./worker.ts";

export interface ProcessorOptions {
  /** Handlers of tasks and recurring tasks. */
  readonly handlers: readonly TaskHandler[];
  /** Hears of each failed run: the place for an error tracker. */
  readonly onFailure?: OnFailure;
  readonly log?: Log;
}

/** The function that schedules call: `{ "slot": 0, "resident": true }`. Answers with a report of the invocation. */
export function createProcessorHandler(options: ProcessorOptions) {
  const runtime = lazyRuntime();
  const { log, middlewares, observe } = createObservability(options.log);
  return middy(async (event: unknown, context: Context): Promise<InvocationReport> => {
    const { config, databases } = await runtime();
    const tick = readTick(event, config.numThreads);
    const remainingMs = (): number => Math.min(config.invocationMs, context.getRemainingTimeInMillis());
    const registry = createRegistry([...options.handlers, ...builtInHandlers(config, databases)], config.invocationMs);
    const invocation = {
      databases,
      registry,
      settings: config,
      log,
      remainingMs,
      ...(options.onFailure && { onFailure: options.onFailure }),
      ...(config.wakeFunction !== undefined && { wake: wakeThrough(config, config.wakeFunction) }),
    };
    const work = (beforeWork?: () => Promise<void>) =>
      observe(() => runTick(tick, { ...invocation, ...(beforeWork && { beforeWork }) }), {
        databases,
        config,
        remainingMs,
      });
    // Whoever stays is there when the next task is due.
    if (config.wakeQueueUrl === undefined || tick.resident) return await work();
    return await arrangingWakes(config, config.wakeQueueUrl, { databases, release: registry.release, log }, work);
  })
    .use(middlewares)
    .onError(putCodeInFront);
}

/** GET /health, /health/liveness, /health/readiness. */
export const createHealthHandler = (options: { log?: Log } = {}) =>
  httpHandler("/health", options.log, ({ config, databases }, log) => {
    const routes = healthRoutes({
      databases,
      taskProcessorCheck: config.healthCheckEnabled,
      sleepIntervalMs: config.sleepIntervalMs,
      log,
    });
    return (request) => answer(routes, request, log);
  });

/** Everything under /processor. */
export const createMonitoringHandler = (options: { log?: Log } = {}) =>
  httpHandler("/processor/monitoring", options.log, ({ config, databases }, log) => {
    const routes = operatorRoutes({
      databases,
      monitoring: config.monitoring,
      settings: config,
      pages: dashboardRoutes,
    });
    return (request) => answerOperator(routes, config.monitoring, request, log);
  });

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
function httpHandler(
  path: string,
  given: Log | undefined,
  answererOf: (runtime: Runtime, log: Log) => (request: HttpRequest) => Promise<HttpAnswer>,
) {
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
      queryBytes: event?.rawQueryString?.length ?? 0,
      ...(event?.body != null && {
        body: event.isBase64Encoded ? Buffer.from(event.body, "base64").toString("utf8") : event.body,
      }),
    };
    const answered = await runtime().then(
      (made) => answererOf(made, log)(request),
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
