/** One attempt at a task: a handler under a timeout and an abort signal, and the result to hand in. */
import { delayFor } from "./backoff.ts";
import { pause } from "./clock.ts";
import { codeOf, StintError } from "./errors.ts";
import type { ClaimedTask, Result } from "./lease.ts";
import type { Log } from "./log.ts";
import { decodePayload } from "./payload.ts";
import type { TaskContext, TaskHandler } from "./task.ts";

/** Most bytes of an error kept with a run. */
export const ERROR_BYTES = 8192;
/** How long a handler that was aborted may take to end before its place is given away. */
const SETTLE_MS = 1000;

export interface AttemptOptions {
  readonly handler: TaskHandler;
  readonly task: ClaimedTask;
  /** Aborts when the lease is lost or the invocation must leave. */
  readonly signal: AbortSignal;
  readonly backoffDefaultMs: number;
  readonly log: Log;
}

export interface AttemptEnd {
  readonly result: Result;
  /** What the handler threw, for the application's hook. */
  readonly error?: unknown;
}

/** Runs the handler to its end, its timeout or an abort. Never throws. */
export async function runAttempt({ handler, task, signal, backoffDefaultMs, log }: AttemptOptions): Promise<AttemptEnd> {
  const startedAt = performance.now();
  const finish = (outcome: Result["outcome"], more: Partial<Result> = {}): Result => ({
    id: task.id,
    attempt: task.attempt,
    outcome,
    startedAt,
    finishedAt: performance.now(),
    ...more,
  });
  try {
    await execute(handler, task, signal, log);
    return { result: finish("SUCCESS") };
  } catch (error) {
    if (signal.aborted) return { result: finish("RELEASED") };
    return { result: finish(...failureOf(error, handler, task, backoffDefaultMs)), error };
  }
}

async function execute(handler: TaskHandler, task: ClaimedTask, signal: AbortSignal, log: Log): Promise<void> {
  const { timeoutMs, payload: schema } = handler.definition;
  const decoded = decodePayload(schema, task.payload);
  if ("problem" in decoded) throw new StintError("payload_invalid", `The stored payload does not fit its schema. ${decoded.problem}`);
  const ending = new AbortController();
  const timeout = new StintError("aborted", `The task timed out after ${timeoutMs} ms.`);
  const timer = setTimeout(() => ending.abort(timeout), timeoutMs);
  const leave = (): void => ending.abort(signal.reason);
  signal.addEventListener("abort", leave, { once: true });
  const context: TaskContext = {
    signal: ending.signal,
    attempt: task.attempt,
    taskId: task.id,
    deadline: new Date(Date.now() + timeoutMs),
    log,
  };
  try {
    const running = Promise.resolve().then(() => handler.run(decoded.payload as never, context));
    await settleOrAbandon(running, ending.signal);
    if (ending.signal.aborted) throw ending.signal.reason;
  } catch (error) {
    throw ending.signal.aborted ? ending.signal.reason : error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", leave);
  }
}

/** A handler that heeds its signal is waited for, so that its retry never runs beside it; one that does not, is left behind after a while. */
async function settleOrAbandon(running: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const settled = new AbortController();
  let remove = (): void => {};
  const abandoned = new Promise<void>((resolve) => {
    const abort = (): void => void pause(SETTLE_MS, settled.signal).then(resolve);
    signal.addEventListener("abort", abort, { once: true });
    remove = () => signal.removeEventListener("abort", abort);
  });
  try {
    await Promise.race([running, abandoned]);
  } finally {
    settled.abort();
    remove();
    running.catch(() => {});
  }
}

function failureOf(error: unknown, handler: TaskHandler, task: ClaimedTask, backoffDefaultMs: number): [Result["outcome"], Partial<Result>] {
  const details = { error: describeError(error) };
  const code = codeOf(error);
  if (code === "task_cancel") return ["CANCELLED", details];
  if (code === "task_backoff") {
    const { delayUntil } = error as { delayUntil?: Date };
    const usable = delayUntil instanceof Date && Number.isFinite(delayUntil.getTime());
    return ["FAILURE", { ...details, ...(usable ? { retryAt: delayUntil.toISOString() } : { delayMs: backoffDefaultMs }) }];
  }
  return ["FAILURE", { ...details, delayMs: delayFor(handler.definition.backoff, Math.max(1, task.used)) }];
}

/** Text that can be stored, whatever was thrown: without NUL and lone surrogates, at most ERROR_BYTES. */
export function describeError(error: unknown): string {
  let text: string;
  try {
    text = error instanceof Error ? (error.stack ?? `${error.name}: ${error.message}`) : `Thrown: ${String(error)}`;
  } catch {
    text = "Thrown: something that has no text";
  }
  const clean = text.replaceAll("\0", "\uFFFD").toWellFormed();
  if (Buffer.byteLength(clean) <= ERROR_BYTES) return clean;
  return `${Buffer.from(clean).subarray(0, ERROR_BYTES - 20).toString("utf8").replace(/\uFFFD$/, "")} ... (cut)`;
}
