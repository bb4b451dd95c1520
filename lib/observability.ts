/** What an invocation tells of itself. On Lambda: JSON logs with the request's id, and metrics in CloudWatch's embedded format (EMF). */
import { Logger } from "@aws-lambda-powertools/logger";
import { injectLambdaContext } from "@aws-lambda-powertools/logger/middleware";
import { Metrics, MetricUnit } from "@aws-lambda-powertools/metrics";
import { logMetrics } from "@aws-lambda-powertools/metrics/middleware";
import type { MiddlewareObj } from "@middy/core";
import { type Config, hasLambdaRuntime, serviceName } from "./config.ts";
import type { Database } from "./database/port.ts";
import { createLog, type Log } from "./log.ts";
import { type BacklogRow, readBacklog } from "./sql/backlog.ts";
import type { InvocationReport } from "./worker.ts";

export const NAMESPACE = "Stint";

/** The backlog is for watching only: not worth waiting for. */
const BACKLOG_TIMEOUT_MS = 3000;

export interface Observability {
  readonly log: Log;
  readonly middlewares: MiddlewareObj[];
  /** Runs the invocation and tells how it went. */
  observe(work: () => Promise<InvocationReport>, backlogOf: BacklogOptions): Promise<InvocationReport>;
}

export interface BacklogOptions {
  readonly databases: readonly Database[];
  readonly config: Pick<Config, "graceMs" | "residentSlots">;
  /** Milliseconds left of the invocation. */
  readonly remainingMs: () => number;
}

/** @param given a log of the application's own; on Lambda the default is Powertools', elsewhere createLog() */
export function createObservability(given?: Log): Observability {
  if (!hasLambdaRuntime()) {
    const log = given ?? createLog();
    return { log, middlewares: [], observe: async (work) => tell(log, await work()) };
  }
  const service = serviceName();
  const logger = new Logger({ serviceName: service });
  const metrics = new Metrics({ namespace: NAMESPACE, serviceName: service, logger });
  metrics.clearDefaultDimensions();
  metrics.setDefaultDimensions({ Service: service });
  const log = given ?? createLog(({ level, message, ...fields }) => logger[level](message, fields));
  return {
    log,
    // The event is whatever somebody sent: never logged, whatever POWERTOOLS_LOGGER_LOG_EVENT says.
    middlewares: [
      injectLambdaContext(logger, { logEvent: false }),
      logMetrics(metrics),
      // Its onError comes before that of the one above, which publishes.
      { onError: () => void metrics.addMetric("InvocationsFailed", MetricUnit.Count, 1) },
    ],
    async observe(work, backlogOf) {
      const report = tell(log, await work());
      count(metrics, report);
      await watch(metrics, report, backlogOf, log);
      return report;
    },
  };
}

function tell(log: Log, report: InvocationReport): InvocationReport {
  const { pickUpMs: _, ...fields } = report;
  log.info("invocation ended", fields);
  return report;
}

function count(metrics: Metrics, report: InvocationReport): void {
  const counts = {
    TasksClaimed: report.claimed,
    TasksSucceeded: report.succeeded,
    TasksFailed: report.failed,
    TasksRescued: report.rescued,
    StaleCompletions: report.staleCompletions,
    Requests: report.requests,
  };
  for (const [name, value] of Object.entries(counts)) metrics.addMetric(name, MetricUnit.Count, value);
  for (const ms of report.pickUpMs) metrics.addMetric("PickUpMs", MetricUnit.Milliseconds, ms);
  metrics.addMetric("InvocationDurationMs", MetricUnit.Milliseconds, report.durationMs);
  metrics.addMetadata("slot", String(report.slot));
  metrics.addMetadata("left", report.left);
}

/** Slot 0 looks for all of them, at its end. One without a lease does nothing more. */
async function watch(
  metrics: Metrics,
  { slot, left }: InvocationReport,
  { databases, config, remainingMs }: BacklogOptions,
  log: Log,
): Promise<void> {
  if (slot !== 0 || left === "lease_lost" || left === "seat_taken" || remainingMs() < 2 * BACKLOG_TIMEOUT_MS) return;
  const residents = config.residentSlots ?? 1;
  try {
    const rows: BacklogRow[] = await Promise.all(
      databases.map(async (database) => {
        const values = { residents, graceMs: config.graceMs };
        return (await database.query(readBacklog, values, { timeoutMs: BACKLOG_TIMEOUT_MS }))[0]!;
      }),
    );
    metrics.addMetric("Backlog", MetricUnit.Count, sum(rows.map(({ backlog }) => backlog)));
    const oldest = Math.max(...rows.map(({ oldestDueSeconds }) => oldestDueSeconds));
    metrics.addMetric("OldestDueSeconds", MetricUnit.Seconds, Math.max(0, oldest));
    metrics.addMetric("LiveResidents", MetricUnit.Count, Math.min(...rows.map(({ liveResidents }) => liveResidents)));
  } catch (error) {
    log.warn("the backlog could not be read", { error: String(error) });
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
