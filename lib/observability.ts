/** What an invocation tells of itself. On Lambda: JSON logs with the request's id, and metrics in CloudWatch's embedded format (EMF). */
import type { MiddlewareObj } from "@middy/core";
import type { Context } from "aws-lambda";
import { type Config, hasLambdaRuntime, serviceName } from "./config.ts";
import type { Database } from "./database/port.ts";
import { createLog, type Log, type LogLine } from "./log.ts";
import type { Powertools } from "./powertools.ts";
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
  const tools = new LatePowertools(serviceName());
  const log = given ?? createLog((line) => tools.write(line));
  return {
    log,
    middlewares: [
      {
        before: ({ context }) => tools.begin(context),
        // What a middleware returns would be the function's answer.
        after: async () => void (await tools.loaded()).metrics.publishStoredMetrics(),
        onError: async () => {
          const { metrics } = await tools.loaded();
          metrics.addMetric("InvocationsFailed", "Count", 1);
          metrics.publishStoredMetrics();
        },
      },
    ],
    async observe(work, backlogOf) {
      const report = tell(log, await work());
      const { metrics } = await tools.loaded();
      count(metrics, report);
      await watch(metrics, report, backlogOf, log);
      return report;
    },
  };
}

/** Loaded with the first line, or at the end: the first exchange of a cold start goes out before it. What is said meanwhile waits. */
class LatePowertools {
  readonly #serviceName: string;
  readonly #waiting: LogLine[] = [];
  #context: Context | undefined;
  #loading: Promise<Powertools> | undefined;
  #tools: Powertools | undefined;

  constructor(serviceName: string) {
    this.#serviceName = serviceName;
  }

  begin(context: Context): void {
    this.#context = context;
    this.#tools?.logger.refreshSampleRateCalculation();
    this.#tools?.logger.addContext(context);
  }

  write(line: LogLine): void {
    this.#waiting.push(line);
    // Where it cannot be loaded the end of the invocation says so.
    if (this.#tools === undefined) this.loaded().catch(() => {});
    else this.#flush(this.#tools);
  }

  loaded(): Promise<Powertools> {
    this.#loading ??= import("./powertools.ts").then(({ startPowertools }) => {
      const tools = startPowertools(NAMESPACE, this.#serviceName);
      if (this.#context !== undefined) tools.logger.addContext(this.#context);
      this.#tools = tools;
      this.#flush(tools);
      return tools;
    });
    return this.#loading;
  }

  #flush({ logger }: Powertools): void {
    for (const { level, message, ...fields } of this.#waiting.splice(0)) {
      try {
        logger[level](message, fields);
      } catch (error) {
        // A field's own toJSON, or getter, may throw: a line never fails the task that says it.
        logger[level](message, { fields: `cannot be written: ${String(error)}` });
      }
    }
  }
}

function tell(log: Log, report: InvocationReport): InvocationReport {
  const { pickUpMs: _, ...fields } = report;
  log.info("invocation ended", fields);
  return report;
}

function count(metrics: Powertools["metrics"], report: InvocationReport): void {
  const counts = {
    TasksClaimed: report.claimed,
    TasksSucceeded: report.succeeded,
    TasksFailed: report.failed,
    TasksRescued: report.rescued,
    StaleCompletions: report.staleCompletions,
    Requests: report.requests,
  };
  for (const [name, value] of Object.entries(counts)) metrics.addMetric(name, "Count", value);
  for (const ms of report.pickUpMs) metrics.addMetric("PickUpMs", "Milliseconds", ms);
  metrics.addMetric("InvocationDurationMs", "Milliseconds", report.durationMs);
  metrics.addMetadata("slot", String(report.slot));
  metrics.addMetadata("left", report.left);
}

/** Slot 0 looks for all of them, at its end. One without a lease does nothing more. */
async function watch(
  metrics: Powertools["metrics"],
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
    metrics.addMetric("Backlog", "Count", sum(rows.map(({ backlog }) => backlog)));
    const oldest = Math.max(...rows.map(({ oldestDueSeconds }) => oldestDueSeconds));
    metrics.addMetric("OldestDueSeconds", "Seconds", Math.max(0, oldest));
    metrics.addMetric("LiveResidents", "Count", Math.min(...rows.map(({ liveResidents }) => liveResidents)));
  } catch (error) {
    log.warn("the backlog could not be read", { error: String(error) });
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
