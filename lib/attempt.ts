/** One attempt at a task: a handler under a timeout and an abort signal, and the result to hand in. */
import { delayFor } from "./backoff.ts";
import { pause } from "./clock.ts";
import { codeOf, StintError } from "./errors.ts";
import type { Log } from "./log.ts";
import type { ClaimedTask, Result } from "./messages.ts";
import { decodePayload, encodeReport, REPORT_BYTES } from "./payload.ts";
import type { TaskContext, TaskHandler } from "./task.ts";
import { inSpan } from "./trace.ts";

/** Most bytes of an error kept with a run. */
export const ERROR_BYTES = 8192;
/** How long a handler that was aborted may take to end before its place is given away. */
const SETTLE_MS = 1000;

export interface AttemptOptions {
  readonly handler: TaskHandler;
  readonly task: ClaimedTask;
  /** Whether the lease still runs, asked at the last moment: one started just before may have blocked the event loop. When not, `signal` aborts. */
  readonly mayStart: () => boolean;
  /** Aborts when the lease is lost or the invocation must leave. */
  readonly signal: AbortSignal;
  /** Aborts when an operator cancels the task. */
  readonly cancelled: AbortSignal;
  /** Takes what the handler reports. */
  readonly onProgress: (value: unknown) => void;
  readonly backoffDefaultMs: number;
  readonly log: Log;
}

export interface AttemptEnd {
  readonly result: Result;
  /** What the handler threw, for the application's hook. */
  readonly error?: unknown;
}

/** Runs the handler to its end, its timeout or an abort. Never throws. */
export async function runAttempt(options: AttemptOptions): Promise<AttemptEnd> {
  const { handler, task, signal, cancelled, backoffDefaultMs } = options;
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
    const value = encodeReport(await inSpan(task, () => execute(options)));
    return { result: finish("SUCCESS", value === undefined ? {} : { value }) };
  } catch (error) {
    if (signal.aborted) return { result: finish("RELEASED") };
    if (cancelled.aborted) return { result: finish("CANCELLED", { error: describeError(error) }), error };
    return { result: finish(...failureOf(error, handler, task, backoffDefaultMs)), error };
  }
}

async function execute({
  handler,
  task,
  mayStart,
  signal,
  cancelled,
  onProgress,
  log,
}: AttemptOptions): Promise<unknown> {
  const { timeoutMs, payload: schema } = handler.definition;
  const decoded = decodePayload(schema, task.payload);
  if ("problem" in decoded)
    throw new StintError("payload_invalid", `The stored payload does not fit its schema. ${decoded.problem}`);
  const ending = new AbortController();
  const timeout = new StintError("aborted", `The task timed out after ${timeoutMs} ms.`);
  const timer = setTimeout(() => ending.abort(timeout), timeoutMs);
  const leave = (): void => ending.abort(signal.reason);
  const cancel = (): void => ending.abort(cancelled.reason);
  signal.addEventListener("abort", leave, { once: true });
  cancelled.addEventListener("abort", cancel, { once: true });
  const context: TaskContext = {
    signal: ending.signal,
    attempt: task.attempt,
    taskId: task.id,
    deadline: new Date(Date.now() + timeoutMs),
    log,
    progress(value) {
      const kept = encodeReport(value);
      if (kept === undefined)
        throw new StintError("option_invalid", `progress takes JSON of at most ${REPORT_BYTES} bytes.`);
      if (!ending.signal.aborted) onProgress(kept);
    },
  };
  try {
    const running = Promise.resolve().then(() => {
      if (!mayStart()) throw signal.reason;
      return handler.run(decoded.payload as never, context);
    });
    const value = await settleOrAbandon(running, ending.signal);
    if (ending.signal.aborted) throw ending.signal.reason;
    return value;
  } catch (error) {
    throw ending.signal.aborted ? ending.signal.reason : error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", leave);
    cancelled.removeEventListener("abort", cancel);
  }
}

/** A handler that heeds its signal is waited for, so that its retry never runs beside it; one that does not, is left behind after a while. */
async function settleOrAbandon(running: Promise<unknown>, signal: AbortSignal): Promise<unknown> {
  const settled = new AbortController();
  let remove = (): void => {};
  const abandoned = new Promise<void>((resolve) => {
    const abort = (): void => void pause(SETTLE_MS, settled.signal).then(resolve);
    signal.addEventListener("abort", abort, { once: true });
    remove = () => signal.removeEventListener("abort", abort);
  });
  try {
    return await Promise.race([running, abandoned]);
  } finally {
    settled.abort();
    remove();
    running.catch(() => {});
  }
}

function failureOf(
  error: unknown,
  handler: TaskHandler,
  task: ClaimedTask,
  backoffDefaultMs: number,
): [Result["outcome"], Partial<Result>] {
  const details = { error: describeError(error) };
  const code = codeOf(error);
  if (code === "task_cancel") return ["CANCELLED", details];
  if (code === "task_backoff") {
    const { delayUntil } = error as { delayUntil?: Date };
    const usable = delayUntil instanceof Date && Number.isFinite(delayUntil.getTime());
    return [
      "FAILURE",
      { ...details, ...(usable ? { retryAt: delayUntil.toISOString() } : { delayMs: backoffDefaultMs }) },
    ];
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
  return `${Buffer.from(clean)
    .subarray(0, ERROR_BYTES - 20)
    .toString("utf8")
    .replace(/\uFFFD$/, "")} ... (cut)`;
}
