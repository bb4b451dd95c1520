/** A task definition is a contract: importable by a producer without its handler. */
import type * as core from "zod/v4/core";
import { type Backoff, checkBackoff } from "./backoff.ts";
import { type BatchFunction, gather } from "./batch.ts";
import { StintError } from "./errors.ts";
import type { Log } from "./log.ts";

/** Smaller runs first. */
export const PRIORITIES = { HIGHEST: 0, HIGH: 25, NORMAL: 50, LOW: 75, LOWER: 100 } as const;
export type Priority = keyof typeof PRIORITIES;

export type PayloadSchema = core.$ZodType;

export interface TaskOptions<S extends PayloadSchema> {
  /** 1 to 200 bytes of UTF-8, unique in the application, such as `invoices.send`. It is stored with each task: keep it for ever. */
  readonly identifier: string;
  /** A zod schema (classic or mini) of JSON. Checked at enqueue and again before the handler sees it. */
  readonly payload: S;
  /** Default NORMAL. */
  readonly priority?: Priority;
  /** Default 60,000; after that the signal aborts and the run is a FAILURE. At most TASK_PROCESSOR_INVOCATION_MS less its drain reserve. */
  readonly timeoutMs?: number;
  /** Default 3, at most 1000. */
  readonly maxAttempts?: number;
  /** At most so many unfinished tasks of this identifier; unlimited by default. */
  readonly queueSize?: number;
  /** At most so many run at a time, over all invocations; unlimited by default. */
  readonly concurrency?: number;
  /** Default: exponential from 2 s to 1 h, with jitter. */
  readonly backoff?: Backoff;
}

export interface TaskDefinition<S extends PayloadSchema = PayloadSchema> {
  readonly identifier: string;
  readonly payload: S;
  readonly priority: number;
  readonly timeoutMs: number;
  readonly maxAttempts: number;
  readonly queueSize: number | undefined;
  readonly concurrency: number | undefined;
  readonly backoff: Backoff | undefined;
  /** Names the function that runs tasks of this kind. Only the processor imports the result. */
  handle(run: (payload: core.output<S>, context: TaskContext) => unknown): TaskHandler;
  /**
   * Names the function that runs several tasks of this kind at once: those that were claimed together, at most `batchSize` (1 to 2000;
   * default: all). A task that runs alone is a batch of one.
   */
  handleBatch(run: BatchFunction<core.output<S>>, options?: { readonly batchSize?: number }): TaskHandler;
}

export interface TaskContext {
  /** Aborts at the timeout, when the task is cancelled, when the lease is lost. */
  readonly signal: AbortSignal;
  /** 1 for the first attempt. */
  readonly attempt: number;
  readonly taskId: string;
  /** When the signal aborts at the latest. */
  readonly deadline: Date;
  readonly log: Log;
  /**
   * Keeps the last value with the running task: JSON of at most 4 KiB. Sent with the next exchange, so as often as you like.
   * @throws StintError option_invalid
   */
  progress(value: unknown): void;
}

/** Asked at the last moment: whether the lease still runs, and the task has not been cancelled. */
export interface StartPermit {
  mayStart(): boolean;
}

/** What it returns is kept with the run where it is JSON of at most 4 KiB; else it is not. */
export type HandlerFunction<Payload> = (payload: Payload, context: TaskContext, permit?: StartPermit) => unknown;

export interface TaskHandler {
  readonly definition: TaskDefinition;
  readonly run: HandlerFunction<never>;
}

export const DEFAULT_TIMEOUT_MS = 60_000;
export const DEFAULT_MAX_ATTEMPTS = 3;
/** As TASK_PROCESSOR_QUEUE_POP_SIZE at the most. */
const MOST_BATCH = 2000;

/** @throws StintError definition_invalid, naming the option and what is allowed */
export function defineTask<S extends PayloadSchema>(options: TaskOptions<S>): TaskDefinition<S> {
  const {
    identifier,
    payload,
    priority = "NORMAL",
    timeoutMs = DEFAULT_TIMEOUT_MS,
    maxAttempts = DEFAULT_MAX_ATTEMPTS,
    queueSize,
    concurrency,
    backoff,
  } = options;
  checkIdentifier(identifier);
  const check = (name: string, fits: boolean, allowed: string): void => {
    if (!fits) throw new StintError("definition_invalid", `${identifier}: ${name} is ${allowed}.`);
  };
  check("payload", typeof (payload as { _zod?: unknown } | undefined)?._zod === "object", "a zod schema");
  check("priority", Object.hasOwn(PRIORITIES, priority), Object.keys(PRIORITIES).join(", "));
  check("timeoutMs", isWhole(timeoutMs, 1, 86_400_000), "a whole number of milliseconds from 1 to 86,400,000");
  check("maxAttempts", isWhole(maxAttempts, 1, 1000), "a whole number from 1 to 1000");
  check(
    "queueSize",
    queueSize === undefined || isWhole(queueSize, 1, 1_000_000_000),
    "a whole number from 1 to 1,000,000,000",
  );
  check(
    "concurrency",
    concurrency === undefined || isWhole(concurrency, 1, 1_000_000),
    "a whole number from 1 to 1,000,000",
  );
  checkBackoff(identifier, backoff);
  const handlerOf = (run: HandlerFunction<core.output<S>>): TaskHandler =>
    Object.freeze({ definition: definition as unknown as TaskDefinition, run });
  const definition: TaskDefinition<S> = Object.freeze({
    identifier,
    payload,
    priority: PRIORITIES[priority],
    timeoutMs,
    maxAttempts,
    queueSize,
    concurrency,
    backoff,
    handle: (run: (payload: core.output<S>, context: TaskContext) => unknown): TaskHandler => {
      check("handle", typeof run === "function", "given a function");
      return handlerOf((given, context) => run(given, context));
    },
    handleBatch: (run: BatchFunction<core.output<S>>, { batchSize = MOST_BATCH } = {}): TaskHandler => {
      check("handleBatch", typeof run === "function", "given a function");
      check("batchSize", isWhole(batchSize, 1, MOST_BATCH), `a whole number from 1 to ${MOST_BATCH}`);
      return handlerOf(gather(run, batchSize));
    },
  });
  return definition;
}

export const isWhole = (value: unknown, from: number, to: number): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= from && value <= to;

function checkIdentifier(identifier: unknown): void {
  if (typeof identifier !== "string" || !isStorable(identifier, 200)) {
    throw new StintError(
      "definition_invalid",
      `identifier is 1 to 200 bytes of UTF-8 without NUL, not ${JSON.stringify(identifier)}.`,
    );
  }
}

/** Text that Postgres takes as it is: well-formed, without NUL, 1 to `mostBytes` bytes. */
export const isStorable = (text: string, mostBytes: number): boolean =>
  text.length > 0 && text.isWellFormed() && !text.includes("\0") && Buffer.byteLength(text) <= mostBytes;
