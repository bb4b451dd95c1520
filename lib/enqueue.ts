/** The producer's side: a task client that stores tasks, or runs them unmanaged. */
import type * as core from "zod/v4/core";
import { inLambda, type RunMethod } from "./config.ts";
import type { Database } from "./database/port.ts";
import { type EnqueueOptions, store } from "./enqueue-store.ts";
import { StintError } from "./errors.ts";
import { createLog } from "./log.ts";
import { encodePayload } from "./payload.ts";
import { type ProducerWake, throttleWake } from "./producer-wake.ts";
import { isStorable, isWhole, type PayloadSchema, PRIORITIES, type TaskDefinition, type TaskHandler } from "./task.ts";
import { type FailureHook, runUnmanaged, type UnmanagedTask } from "./unmanaged.ts";

export type EnqueueAnswer =
  | { readonly status: "enqueued"; readonly id: string }
  | { readonly status: "duplicate"; readonly id: string }
  | { readonly status: "queue_full"; readonly limit: number }
  | { readonly status: "ran" }
  | { readonly status: "started" };

export type EnqueueManyAnswer =
  | { readonly status: "enqueued"; readonly ids: readonly string[] }
  | { readonly status: "queue_full"; readonly limit: number }
  | { readonly status: "ran" }
  | { readonly status: "started" };

export interface TaskClientOptions {
  readonly database: Database;
  /** Default TASK_PROCESSOR: the task is stored. */
  readonly runMethod?: RunMethod;
  /** For the two unmanaged methods only: `() => import("./handlers.ts")`, a module whose exports are handlers or lists of them. */
  readonly handlers?: () => Promise<unknown>;
  /**
   * Calls a processor after a task that is due has been stored, where nobody polls: at most once a second. Answered before enqueue is,
   * as a function is frozen with its response. With a transaction of yours, call `wake()` after it has committed.
   */
  readonly wake?: ProducerWake;
  /**
   * Has Postgres notify the containers that listen (`run-task-processor --listen`) when a task that is due commits, in a transaction of
   * yours too. Default false: commits that notify queue one behind the other.
   */
  readonly notify?: boolean;
  /** Hears of an unmanaged run that failed after its enqueue had been answered. */
  readonly onFailure?: FailureHook;
}

export interface TaskClient {
  /**
   * Takes a minute at the most: so long is a database waited for that is away or does not answer. After database_outcome_unknown
   * the task may be stored: another enqueue would store it again, with the same key only if the first has started.
   * @throws StintError payload_invalid | payload_not_json | payload_too_large | option_invalid | delay_unsupported | isolation_unsupported | transaction_invalid | database_*
   */
  enqueue<S extends PayloadSchema>(
    definition: TaskDefinition<S>,
    payload: core.input<S>,
    options?: EnqueueOptions,
  ): Promise<EnqueueAnswer>;
  /** All of them or none, in as few requests as their size allows; for each beyond the first it may take 10 s more. Errors as enqueue; a key is for one task. */
  enqueueMany<S extends PayloadSchema>(
    definition: TaskDefinition<S>,
    payloads: readonly core.input<S>[],
    options?: Omit<EnqueueOptions, "key" | "onDuplicate">,
  ): Promise<EnqueueManyAnswer>;
  /** Calls a processor by the client's option `wake`, at most once a second; without it, nothing. Never throws. */
  wake(): Promise<void>;
}

/** @throws StintError option_invalid | handlers_missing | run_method_unsupported */
export function createTaskClient(options: TaskClientOptions): TaskClient {
  const { database, runMethod = "TASK_PROCESSOR", notify = false, onFailure } = options;
  const refuse = (message: string): never => {
    throw new StintError("option_invalid", message);
  };
  if (typeof database?.query !== "function") refuse("database is what connectDatabase gives.");
  if (!["TASK_PROCESSOR", "SEPARATE_THREAD", "SYNCHRONOUSLY"].includes(runMethod)) {
    refuse(`runMethod is TASK_PROCESSOR, SEPARATE_THREAD or SYNCHRONOUSLY, not ${JSON.stringify(runMethod)}.`);
  }
  if (options.handlers !== undefined && typeof options.handlers !== "function")
    refuse("handlers is a function: () => import(...).");
  if (runMethod !== "TASK_PROCESSOR" && options.handlers === undefined) {
    throw new StintError(
      "handlers_missing",
      `TASK_RUN_METHOD=${runMethod} runs tasks in this process and needs \`handlers\`; TASK_RUN_METHOD=TASK_PROCESSOR stores them instead.`,
    );
  }
  if (runMethod === "SEPARATE_THREAD" && inLambda()) {
    throw new StintError(
      "run_method_unsupported",
      "TASK_RUN_METHOD=SEPARATE_THREAD cannot work in Lambda, which freezes with the response: use TASK_PROCESSOR.",
    );
  }
  if (runMethod === "SEPARATE_THREAD") {
    createLog().warn(
      "TASK_RUN_METHOD=SEPARATE_THREAD: tasks run unmanaged in this process and are lost with it; TASK_PROCESSOR stores them.",
    );
  }
  let loaded: Promise<ReadonlyMap<string, TaskHandler>> | undefined;
  const load = (): Promise<ReadonlyMap<string, TaskHandler>> => {
    loaded ??= options.handlers!().then(handlersIn);
    return loaded;
  };

  const wake = options.wake === undefined ? async (): Promise<void> => {} : throttleWake(options.wake);
  const isDue = ({ delayUntil }: EnqueueOptions): boolean =>
    delayUntil === undefined || delayUntil.getTime() <= Date.now();
  /** Not before its transaction has committed, which only its owner knows. */
  const wakeFor = async (given: EnqueueOptions): Promise<void> => {
    if (given.transaction === undefined && isDue(given)) await wake();
  };

  const unmanaged = async (tasks: UnmanagedTask[], { delayUntil, transaction }: EnqueueOptions) => {
    if (delayUntil !== undefined && delayUntil.getTime() > Date.now()) {
      throw new StintError(
        "delay_unsupported",
        `delayUntil needs TASK_RUN_METHOD=TASK_PROCESSOR: ${runMethod} stores nothing.`,
      );
    }
    return await runUnmanaged({ database, runMethod, tasks, handlers: await load(), transaction, onFailure });
  };

  return {
    wake,
    async enqueue(definition, payload, given = {}) {
      checkOptions(definition, given);
      const text = encodePayload(definition.identifier, definition.payload, payload);
      if (runMethod !== "TASK_PROCESSOR")
        return { status: await unmanaged([{ definition: definition as unknown as TaskDefinition, text }], given) };
      const answer = await store(
        database,
        definition as unknown as TaskDefinition,
        [text],
        given,
        notify && isDue(given),
      );
      await wakeFor(given);
      if (answer.status === "queue_full") return { status: "queue_full", limit: definition.queueSize! };
      return { status: answer.status, id: answer.ids[0]! };
    },
    async enqueueMany(definition, payloads, given = {}) {
      if (!Array.isArray(payloads)) refuse("payloads is an array.");
      checkOptions(definition, given);
      const { key, onDuplicate } = given as EnqueueOptions;
      if (key !== undefined || onDuplicate !== undefined)
        refuse(`${definition.identifier}: key and onDuplicate are for one task: use enqueue.`);
      const texts = payloads.map((payload) => encodePayload(definition.identifier, definition.payload, payload));
      if (runMethod !== "TASK_PROCESSOR")
        return {
          status: await unmanaged(
            texts.map((text) => ({ definition: definition as unknown as TaskDefinition, text })),
            given,
          ),
        };
      if (texts.length === 0) return { status: "enqueued", ids: [] };
      const answer = await store(
        database,
        definition as unknown as TaskDefinition,
        texts,
        given,
        notify && isDue(given),
      );
      await wakeFor(given);
      return answer.status === "queue_full"
        ? { status: "queue_full", limit: definition.queueSize! }
        : { status: "enqueued", ids: answer.ids };
    },
  };
}

function checkOptions(definition: TaskDefinition<never> | TaskDefinition, options: EnqueueOptions): void {
  if (typeof options !== "object" || options === null || options.transaction === null)
    throw new StintError("option_invalid", `${definition.identifier}: options is an object, and transaction a client.`);
  const check = (name: string, fits: boolean, allowed: string): void => {
    if (!fits) throw new StintError("option_invalid", `${definition.identifier}: ${name} is ${allowed}.`);
  };
  const { delayUntil, priority, maxAttempts, key, onDuplicate, serialKey } = options;
  check(
    "delayUntil",
    delayUntil === undefined || (delayUntil instanceof Date && isWhole(delayUntil.getTime(), 0, 253_402_300_799_999)),
    "a Date before the year 10000",
  );
  check("priority", priority === undefined || Object.hasOwn(PRIORITIES, priority), Object.keys(PRIORITIES).join(", "));
  check("maxAttempts", maxAttempts === undefined || isWhole(maxAttempts, 1, 1000), "a whole number from 1 to 1000");
  check(
    "key",
    key === undefined || (typeof key === "string" && isStorable(key, 500)),
    "1 to 500 bytes of UTF-8 without NUL",
  );
  check(
    "serialKey",
    serialKey === undefined || (typeof serialKey === "string" && isStorable(serialKey, 500)),
    "1 to 500 bytes of UTF-8 without NUL",
  );
  check(
    "onDuplicate",
    onDuplicate === undefined || onDuplicate === "keep" || onDuplicate === "replace",
    "keep or replace",
  );
  check("onDuplicate", onDuplicate === undefined || key !== undefined, "of use with a key only");
}

function handlersIn(module: unknown): ReadonlyMap<string, TaskHandler> {
  const handlers = Object.values(module as object)
    .flat(2)
    .filter(
      (value): value is TaskHandler =>
        typeof value === "object" && value !== null && "definition" in value && "run" in value,
    );
  return new Map(handlers.map((handler) => [handler.definition.identifier, handler]));
}
