/** One attempt at a task: a handler under a timeout and an abort signal, and the result to hand in. */

import { Context } from "./attempt-context.ts";
import { delayFor } from "./backoff.ts";
import { codeOf, StintError } from "./errors.ts";
import type { Log } from "./log.ts";
import type { ClaimedTask, Result } from "./messages.ts";
import { decodePayload, encodeReport, REPORT_BYTES } from "./payload.ts";
import type { TaskHandler } from "./task.ts";
import { inSpan, isTraced } from "./trace.ts";

/** Most bytes of an error kept with a run. */
export const ERROR_BYTES = 8192;
/** How long a handler that was aborted may take to end before its place is given away. */
const SETTLE_MS = 1000;
/** A payload that does not fit may be of a newer release, whose processors are on their way: an older resident leaves within a minute. */
const UNFIT_DELAY_MS = 60_000;

/** What all attempts of an invocation at one database have in common. */
export interface AttemptSurroundings {
  /** Whether the lease still runs, asked at the last moment: one started just before may have blocked the event loop. When not, it calls `leave`. */
  readonly mayStart: () => boolean;
  /** Takes what a handler reports. */
  readonly onProgress: (task: ClaimedTask, value: unknown) => void;
  readonly backoffDefaultMs: number;
  readonly logOf: (task: ClaimedTask) => Log;
}

export interface AttemptEnd {
  readonly result: Result;
  /** What the handler threw, for the application's hook. */
  readonly error?: unknown;
}

interface Cut {
  readonly by: "lease" | "operator" | "timeout";
  readonly reason: unknown;
}

/** Runs the handler to its end, its timeout, or until it is told to leave. What most handlers never ask for, such as a signal, is made when they do. */
export class Attempt {
  readonly #handler: TaskHandler;
  readonly #task: ClaimedTask;
  readonly #around: AttemptSurroundings;
  /** Never rejects. */
  readonly done: Promise<AttemptEnd>;
  #cut: Cut | undefined;
  #over = false;
  #unfit = false;
  #controller: AbortController | undefined;
  #settle: (() => void) | undefined;
  #abandoning: NodeJS.Timeout | undefined;

  constructor(handler: TaskHandler, task: ClaimedTask, around: AttemptSurroundings) {
    this.#handler = handler;
    this.#task = task;
    this.#around = around;
    this.done = this.#run();
  }

  /** The lease is lost, or the invocation must go: whatever comes of it, the task is given back. */
  leave(reason: unknown): void {
    this.#end("lease", reason);
  }

  /** An operator has cancelled the task. */
  cancel(reason: unknown): void {
    this.#end("operator", reason);
  }

  /** A handler that heeds its signal is waited for, so that its retry never runs beside it; one that does not, is left behind after a while. */
  #end(by: Cut["by"], reason: unknown): void {
    // To leave outweighs what ended it before: the result could not be handed in as anything else.
    if (this.#over || (this.#cut !== undefined && by !== "lease")) return;
    const first = this.#cut === undefined;
    this.#cut = { by, reason };
    if (!first) return;
    this.#controller?.abort(reason);
    this.#abandoning = setTimeout(() => this.#settle?.(), SETTLE_MS);
  }

  /** Made when it is asked for. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#cut !== undefined) this.#controller.abort(this.#cut.reason);
    }
    return this.#controller.signal;
  }

  async #run(): Promise<AttemptEnd> {
    const task = this.#task;
    const { id, attempt } = task;
    const startedAt = performance.now();
    const finish = (outcome: Result["outcome"], more?: Partial<Result>): Result => ({
      id,
      attempt,
      outcome,
      startedAt,
      finishedAt: performance.now(),
      ...more,
    });
    try {
      const value = encodeReport(await (isTraced() ? inSpan(task, () => this.#execute()) : this.#execute()));
      return { result: value === undefined ? finish("SUCCESS") : finish("SUCCESS", { value }) };
    } catch (error) {
      if (this.#cut?.by === "lease") return { result: finish("RELEASED") };
      if (this.#cut?.by === "operator") return { result: finish("CANCELLED", { error: describeError(error) }), error };
      const [outcome, more] = failureOf(error, this.#handler, task, this.#around.backoffDefaultMs);
      if (this.#unfit) more.delayMs = Math.max(UNFIT_DELAY_MS, more.delayMs ?? 0);
      return { result: finish(outcome, more), error };
    } finally {
      this.#over = true;
      clearTimeout(this.#abandoning);
    }
  }

  async #execute(): Promise<unknown> {
    const { timeoutMs, payload: schema } = this.#handler.definition;
    const decoded = decodePayload(schema, this.#task.payload);
    this.#unfit = "problem" in decoded;
    if ("problem" in decoded)
      throw new StintError("payload_invalid", `The stored payload does not fit its schema. ${decoded.problem}`);
    const timer = setTimeout(
      () => this.#end("timeout", new StintError("aborted", `The task timed out after ${timeoutMs} ms.`)),
      timeoutMs,
    );
    try {
      const context = new Context(this, this.#task, this.#around.logOf, Date.now() + timeoutMs);
      // After those that were started with it: each of them may have blocked the event loop.
      await undefined;
      if (this.mayStart()) {
        const value = await this.#settled(this.#handler.run(decoded.payload as never, context, this));
        if (this.#cut === undefined) return value;
      }
    } catch (error) {
      if (this.#cut === undefined) throw error;
    } finally {
      clearTimeout(timer);
    }
    throw (this.#cut as Cut | undefined)?.reason;
  }

  /** As StartPermit: whoever finds the lease at its end tells all attempts to leave. */
  mayStart(): boolean {
    return this.#cut === undefined && this.#around.mayStart() && this.#cut === undefined;
  }

  /** As the handler settles, or at once when it is left behind. */
  #settled(running: unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#settle = () => resolve(undefined);
      Promise.resolve(running).then(resolve, reject);
    });
  }

  /** Told by the handler, as long as it is its own. */
  report(value: unknown): void {
    const kept = encodeReport(value);
    if (kept === undefined)
      throw new StintError("option_invalid", `progress takes JSON of at most ${REPORT_BYTES} bytes.`);
    if (this.#cut === undefined) this.#around.onProgress(this.#task, kept);
  }
}

function failureOf(
  error: unknown,
  handler: TaskHandler,
  task: ClaimedTask,
  backoffDefaultMs: number,
): [Result["outcome"], { error: string; delayMs?: number; retryAt?: string }] {
  const details = { error: describeError(error) };
  const code = codeOf(error);
  if (code === "task_cancel") return ["CANCELLED", details];
  if (code === "task_backoff") {
    const retryAt = retryAtOf(error);
    return ["FAILURE", { ...details, ...(retryAt === undefined ? { delayMs: backoffDefaultMs } : { retryAt }) }];
  }
  return ["FAILURE", { ...details, delayMs: delayFor(handler.definition.backoff, Math.max(1, task.used)) }];
}

/** The moment an error asks for, where it names one. */
function retryAtOf(error: unknown): string | undefined {
  try {
    const { delayUntil } = error as { delayUntil?: unknown };
    return delayUntil instanceof Date ? new Date(delayUntil.getTime()).toISOString() : undefined;
  } catch {
    return undefined;
  }
}

/** Text that can be stored, whatever was thrown. Never throws. */
export const describeError = (error: unknown): string =>
  storable(textOf(error) ?? "Thrown: something that has no text");

/** What was thrown is the application's: each look at it may throw again, or give something that is no text. */
function textOf(error: unknown): string | undefined {
  const looks = [
    (): unknown => error instanceof Error && error.stack,
    (): unknown => error instanceof Error && `${error.name}: ${error.message}`,
    (): unknown => `Thrown: ${String(error)}`,
  ];
  for (const look of looks) {
    try {
      const text = look();
      if (typeof text === "string" && text !== "") return text;
    } catch {
      // The next one says less.
    }
  }
  return undefined;
}

/** Without NUL and lone surrogates, at most ERROR_BYTES. */
export function storable(text: string): string {
  const clean = text.replaceAll("\0", "\uFFFD").toWellFormed();
  if (Buffer.byteLength(clean) <= ERROR_BYTES) return clean;
  return `${Buffer.from(clean)
    .subarray(0, ERROR_BYTES - 20)
    .toString("utf8")
    .replace(/\uFFFD$/, "")} ... (cut)`;
}
