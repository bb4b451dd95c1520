/** For the tests of an application: `stint/testing`. */
import type * as core from "zod/v4/core";
import type { Database } from "./database/port.ts";
import { StintError } from "./errors.ts";
import { silentLog } from "./log.ts";
import { decodePayload, encodePayload } from "./payload.ts";
import { createRegistry } from "./registry.ts";
import { readUnfinished, type UnfinishedTask } from "./sql/tasks.ts";
import type { HandlerFunction, PayloadSchema, TaskContext, TaskDefinition, TaskHandler } from "./task.ts";
import { type InvocationReport, runInvocation } from "./worker.ts";

export interface HandlerRun {
  /** What the handler returned. */
  readonly value: unknown;
  /** What it reported, in order. */
  readonly progress: readonly unknown[];
}

/**
 * Runs a handler alone, without a database: its payload goes through JSON and its schema as it would from the queue.
 * @throws StintError payload_*; whatever the handler throws
 */
export async function runHandler<S extends PayloadSchema>(
  handler: TaskHandler & { readonly definition: TaskDefinition<S> | TaskDefinition },
  payload: core.input<S>,
  given: Partial<Omit<TaskContext, "progress">> = {},
): Promise<HandlerRun> {
  const { identifier, payload: schema, timeoutMs } = handler.definition;
  const decoded = decodePayload(schema, JSON.parse(encodePayload(identifier, schema, payload)));
  if ("problem" in decoded) throw new StintError("payload_invalid", decoded.problem);
  const progress: unknown[] = [];
  const context: TaskContext = {
    signal: new AbortController().signal,
    attempt: 1,
    taskId: "1",
    deadline: new Date(Date.now() + timeoutMs),
    log: silentLog,
    ...given,
    progress: (value) => void progress.push(value),
  };
  const value = await (handler.run as HandlerFunction<unknown>)(decoded.payload, context);
  return { value, progress };
}

/** Runs what is due until nothing is, as a processor would. Failed tasks wait for their back-off; what is due later is left. */
export function drainTasks(options: {
  readonly database: Database;
  readonly handlers: readonly TaskHandler[];
  readonly slot?: number;
}): Promise<InvocationReport> {
  return runInvocation({
    databases: [options.database],
    registry: createRegistry(options.handlers, null),
    slot: options.slot ?? 0,
    resident: false,
    settings: { sleepIntervalMs: 50, graceMs: 20_000, queuePopSize: 10, backoffDefaultMs: 5000, invocationMs: null },
    log: silentLog,
  });
}

/** Unfinished tasks, oldest first, at most 1000: what a test enqueued. */
export function unfinishedTasks(
  database: Database,
  definition?: Pick<TaskDefinition, "identifier">,
): Promise<UnfinishedTask[]> {
  return database
    .query(readUnfinished, { identifier: definition?.identifier ?? null })
    .then((rows) => rows.map(({ payload, ...row }) => ({ ...row, payload: JSON.parse(payload) as unknown })));
}
