/** A local scheduler for containers: threads that take free slots and stay, over the same invocations as in the cloud. */
import { pause } from "../lib/clock.ts";
import type { Config } from "../lib/config.ts";
import { DatabaseError } from "../lib/database/failure.ts";
import type { Database } from "../lib/database/port.ts";
import { codeOf, StintError } from "../lib/errors.ts";
import { canaryHandler } from "../lib/health.ts";
import type { Log } from "../lib/log.ts";
import { createRegistry, type Registry } from "../lib/registry.ts";
import { pendingMigrations } from "../lib/sql/migrate.ts";
import type { TaskHandler } from "../lib/task.ts";
import { type InvocationReport, runInvocation } from "../lib/worker.ts";
import { SCHEDULE_INTERVAL_MS } from "./thread-health.ts";

export interface TaskProcessorOptions {
  readonly config: Config;
  /** With a pool of threads + 2. */
  readonly databases: readonly Database[];
  readonly handlers: readonly TaskHandler[];
  readonly log: Log;
  /** Aborts to stop: nothing more is claimed, what runs may end within half the grace period, the rest is released. */
  readonly signal: AbortSignal;
}

/** As many as the database has: slots 0 to 999. */
const SEATS = 1000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 30_000;

/**
 * Runs until the signal aborts.
 * @throws StintError schema_missing, definition_invalid, or what a database refuses for good, before anything is claimed
 */
export async function runTaskProcessor(options: TaskProcessorOptions): Promise<void> {
  const { config, databases, handlers, log, signal } = options;
  const registry = createRegistry([...handlers, canaryHandler(databases)], null);
  await untilReady(options);
  if (signal.aborted) return;
  const residents = Math.min(config.residentSlots ?? config.numThreads, config.numThreads);
  log.info("task processor started", {
    threads: config.numThreads,
    residents,
    places: config.queuePopSize,
    databases: config.databases.map(({ name }) => name).join(","),
    tasks: handlers.length,
  });
  const seats = new Set<number>();
  await Promise.all(Array.from({ length: config.numThreads }, (_, number) => runThread({ ...options, registry, seats, number, resident: number < residents })));
}

/** Waits for databases that are away, so that a container may start before its database. */
async function untilReady({ databases, log, signal }: TaskProcessorOptions): Promise<void> {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      for (const database of databases) {
        const pending = await pendingMigrations(database);
        if (pending.length > 0) throw new StintError("schema_missing", `The database lacks ${pending.join(", ")}: run \`stint migrate\`.`);
      }
      return;
    } catch (error) {
      if (!(error instanceof DatabaseError) || error.retry === "never") throw error;
      await backOff(error, failures, log, signal);
    }
  }
}

interface ThreadOptions extends TaskProcessorOptions {
  readonly registry: Registry;
  /** What the threads of this process sit on or are trying: no two try the same. */
  readonly seats: Set<number>;
  readonly number: number;
  readonly resident: boolean;
}

async function runThread(options: ThreadOptions): Promise<void> {
  const { config, signal } = options;
  const log = options.log.with({ thread: options.number });
  for (let failures = 0; !signal.aborted; ) {
    try {
      const report = await sitDown(options);
      failures = 0;
      if (report === undefined) {
        log.warn("no slot is free", { slots: SEATS });
        await pause(config.sleepIntervalMs, signal);
      } else if (report.left === "lease_lost" && !signal.aborted) {
        log.warn("lost its lease: the database did not answer in time", ended(report));
        await pause(config.sleepIntervalMs, signal);
      } else {
        // A look that found nothing is no news.
        if (report.left === "nothing_due" && report.claimed === 0) log.debug("found nothing due", ended(report));
        else log.info("left its slot", ended(report));
        if (report.left === "nothing_due") await pause(SCHEDULE_INTERVAL_MS, signal);
      }
    } catch (error) {
      await backOff(error, failures, log, signal);
      failures += 1;
    }
  }
}

/** Takes the lowest free slot and stays there as long as it may. Undefined: none was free. */
async function sitDown({ config, databases, registry, seats, resident, log, signal }: ThreadOptions): Promise<InvocationReport | undefined> {
  for (let slot = 0; slot < SEATS && !signal.aborted; slot += 1) {
    if (seats.has(slot)) continue;
    seats.add(slot);
    try {
      const settings = { ...config, invocationMs: null };
      const report = await runInvocation({ databases, registry, slot, resident, onlyFree: true, settings, log, signal });
      if (report.left !== "seat_taken") return report;
    } finally {
      seats.delete(slot);
    }
  }
  return undefined;
}

/** What an operator wants to read of it. */
const ended = ({ slot, left, claimed, succeeded, failed, rescued }: InvocationReport) => ({ slot, left, claimed, succeeded, failed, rescued });

async function backOff(error: unknown, failures: number, log: Log, signal: AbortSignal): Promise<void> {
  const waitMs = Math.round(Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.5 + Math.random() / 2));
  log.error("the database is away or refuses; trying again", { code: codeOf(error), error: error instanceof Error ? error.message : String(error), waitMs });
  await pause(waitMs, signal);
}
