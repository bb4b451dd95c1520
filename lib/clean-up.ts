/** Built-in clean-up: old runs, and old failed tasks where asked for, in bounded batches that stop with the signal. */
import * as z from "zod/mini";
import type { CleanUpConfig } from "./config.ts";
import type { Database } from "./database/port.ts";
import { foldEnded } from "./fold-counters.ts";
import { defineIntervalTask, type RecurringHandler } from "./recurring-definition.ts";
import { cleanUpBatch } from "./sql/clean-up.ts";

/** Heartbeats, health rows and request tokens are of no use to anyone after this. */
const TRACES_DAYS = 2;
const AUDIT_DAYS = 365;

/** The recurring task that every processor has while ENABLE_CLEAN_UP_OLD_TASKS is true. */
export function cleanUpHandler(
  databases: readonly Database[],
  config: CleanUpConfig,
  timeoutMs: number,
): RecurringHandler {
  const schedule = { every: `${config.runEverySeconds}s`, firstRunTime: config.runTime };
  const task = defineIntervalTask({
    identifier: "task_processor.clean_up",
    ...schedule,
    schema: z.object({}),
    payload: {},
    timeoutMs,
    maxAttempts: 10,
  });
  return task.handle(async (_, { signal, progress }) => {
    for (const database of databases) progress(await cleanUp(database, config, signal));
  });
}

/** Counters of ended invocations are folded so often that GET /processor/metrics has few of them to add up. */
export function foldCountersHandler(databases: readonly Database[], timeoutMs: number): RecurringHandler {
  const task = defineIntervalTask({
    identifier: "task_processor.fold_counters",
    every: "10m",
    schema: z.object({}),
    payload: {},
    timeoutMs,
  });
  return task.handle(async (_, { signal }) => {
    for (const database of databases) await foldEnded(database, signal);
  });
}

/** Removes what is old, batch by batch; what is left when the signal aborts goes the next time. Rows removed, by table. */
export async function cleanUp(
  database: Database,
  config: CleanUpConfig,
  signal: AbortSignal,
): Promise<Record<string, number>> {
  // A heartbeat goes once it is folded.
  await foldEnded(database, signal);
  const removed: Record<string, number> = {};
  const kinds: [string, number][] = [
    ["task_run", config.retentionDays],
    ["recurring_run", config.recurringRetentionDays],
    ...(config.includeFailedTasks ? [["failed_task", config.retentionDays] as [string, number]] : []),
    ["heartbeat", TRACES_DAYS],
    ["enqueue_request", TRACES_DAYS],
    ["health_check", TRACES_DAYS],
    ["audit", AUDIT_DAYS],
  ];
  for (const [kind, days] of kinds) {
    removed[kind] = 0;
    for (;;) {
      signal.throwIfAborted();
      const [row] = await database.query(cleanUpBatch, { kind, days, batch: config.batchSize });
      removed[kind] += row!.removed;
      if (row!.removed < config.batchSize) break;
    }
  }
  return removed;
}
