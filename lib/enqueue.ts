/** The producer's side: a task client that stores tasks, or runs them unmanaged. */
import { randomUUID } from "node:crypto";
import type * as core from "zod/v4/core";
import { pause } from "./clock.ts";
import { inLambda, type RunMethod } from "./config.ts";
import { DatabaseError } from "./database/failure.ts";
import type { Database, ProducerTransaction } from "./database/port.ts";
import { StintError } from "./errors.ts";
import { createLog } from "./log.ts";
import { encodePayload, tooLarge } from "./payload.ts";
import { enqueueTasks } from "./sql/tasks.ts";
import {
  isStorable,
  isWhole,
  type PayloadSchema,
  PRIORITIES,
  type Priority,
  type TaskDefinition,
  type TaskHandler,
} from "./task.ts";
import { activeTraceParent } from "./trace.ts";
import { type FailureHook, runUnmanaged, type UnmanagedTask } from "./unmanaged.ts";

export interface EnqueueOptions {
  /** Not before this moment. */
  readonly delayUntil?: Date;
  /** Default: the definition's. */
  readonly priority?: Priority;
  /** At most one task per (identifier, key) that has not started. 1 to 500 bytes. */
  readonly key?: string;
  /** What an enqueue with the key of a waiting task does: keep that one (default) or replace its payload, due time and priority. */
  readonly onDuplicate?: "keep" | "replace";
  /** Of all tasks of this identifier with this key one runs at a time, in the order they were stored. 1 to 500 bytes. */
  readonly serialKey?: string;
  /** The caller's open transaction: the task is stored if, and only if, it commits. */
  readonly transaction?: ProducerTransaction;
}

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
  /** Hears of an unmanaged run that failed after its enqueue had been answered. */
  readonly onFailure?: FailureHook;
}

export interface TaskClient {
  /** @throws StintError payload_invalid | payload_not_json | payload_too_large | option_invalid | delay_unsupported | isolation_unsupported | transaction_invalid | database_* */
  enqueue<S extends PayloadSchema>(
    definition: TaskDefinition<S>,
    payload: core.input<S>,
    options?: EnqueueOptions,
  ): Promise<EnqueueAnswer>;
  /** All of them or none, in as few requests as their size allows. Errors as enqueue. */
  enqueueMany<S extends PayloadSchema>(
    definition: TaskDefinition<S>,
    payloads: readonly core.input<S>[],
    options?: Omit<EnqueueOptions, "key" | "onDuplicate">,
  ): Promise<EnqueueManyAnswer>;
}

/** Most bytes of payloads in one request: the Data API takes 4 MiB, and JSON within JSON grows. */
const REQUEST_BYTES = 1_400_000;
const REQUEST_TASKS = 10_000;
const REPEAT_MS = 60_000;

/** @throws StintError handlers_missing | run_method_unsupported */
export function createTaskClient(options: TaskClientOptions): TaskClient {
  const { database, runMethod = "TASK_PROCESSOR", onFailure } = options;
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
    async enqueue(definition, payload, given = {}) {
      checkOptions(definition, given);
      const text = encodePayload(definition.identifier, definition.payload, payload);
      if (runMethod !== "TASK_PROCESSOR")
        return { status: await unmanaged([{ definition: definition as unknown as TaskDefinition, text }], given) };
      const answer = await store(database, definition as unknown as TaskDefinition, [text], given);
      if (answer.status === "queue_full") return { status: "queue_full", limit: definition.queueSize! };
      return { status: answer.status, id: answer.ids[0]! };
    },
    async enqueueMany(definition, payloads, given = {}) {
      checkOptions(definition, given);
      const texts = payloads.map((payload) => encodePayload(definition.identifier, definition.payload, payload));
      if (runMethod !== "TASK_PROCESSOR")
        return {
          status: await unmanaged(
            texts.map((text) => ({ definition: definition as unknown as TaskDefinition, text })),
            given,
          ),
        };
      if (texts.length === 0) return { status: "enqueued", ids: [] };
      const answer = await store(database, definition as unknown as TaskDefinition, texts, given);
      return answer.status === "queue_full"
        ? { status: "queue_full", limit: definition.queueSize! }
        : { status: "enqueued", ids: answer.ids };
    },
  };
}

interface Stored {
  readonly status: "enqueued" | "duplicate" | "queue_full";
  readonly ids: readonly string[];
}

async function store(
  database: Database,
  definition: TaskDefinition,
  texts: readonly string[],
  options: EnqueueOptions,
): Promise<Stored> {
  const chunks = split(texts);
  const encode = (chunk: readonly string[], token: string | null): string =>
    requestOf(definition, chunk, token, options);
  try {
    if (options.transaction !== undefined) {
      const transaction = database.adopt(options.transaction);
      return await storeChunks(chunks, (chunk) => transaction.query(enqueueTasks, { request: encode(chunk, null) }));
    }
    // A token makes a repetition safe: one whose first answer was lost gives that answer.
    const tokens = chunks.map(() => randomUUID());
    return await repeat(() =>
      chunks.length === 1
        ? storeChunks(chunks, (chunk) => database.query(enqueueTasks, { request: encode(chunk, tokens[0]!) }))
        : database.transaction((transaction) =>
            storeChunks(chunks, (chunk, place) =>
              transaction.query(enqueueTasks, { request: encode(chunk, tokens[place]!) }),
            ),
          ),
    );
  } catch (error) {
    throw explain(definition, error);
  }
}

/** With a limit, an error within the transaction would not undo the chunks before it in a caller's own: the first chunk asks for all. */
async function storeChunks(
  chunks: readonly string[][],
  send: (chunk: string[], place: number) => Promise<{ answer: string }[]>,
): Promise<Stored> {
  const ids: string[] = [];
  let status: Stored["status"] = "enqueued";
  for (const [place, chunk] of chunks.entries()) {
    const [row] = await send(chunk, place);
    const answer = JSON.parse(row!.answer) as Stored;
    if (answer.status === "queue_full") return answer;
    status = answer.status;
    for (const id of answer.ids) ids.push(id);
  }
  return { status, ids };
}

async function repeat<T>(work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now();
  for (let failures = 1; ; failures += 1) {
    try {
      return await work();
    } catch (error) {
      // 23505 on the token: the first request was still running and has been answered by now.
      const again =
        error instanceof DatabaseError &&
        (error.retry !== "never" || (error.sqlState === "23505" && error.constraint === "enqueue_request_pkey"));
      if (!again || performance.now() - startedAt > REPEAT_MS) throw error;
      await pause(Math.min(2000, 20 * 2 ** failures) * (0.5 + Math.random() / 2));
    }
  }
}

function split(texts: readonly string[]): string[][] {
  const chunks: string[][] = [[]];
  let bytes = 0;
  for (const text of texts) {
    const size = Buffer.byteLength(text) + 1;
    if (chunks.at(-1)!.length > 0 && (bytes + size > REQUEST_BYTES || chunks.at(-1)!.length >= REQUEST_TASKS)) {
      chunks.push([]);
      bytes = 0;
    }
    chunks.at(-1)!.push(text);
    bytes += size;
  }
  return chunks;
}

/** Payloads are JSON already: joined, not encoded again. */
function requestOf(
  definition: TaskDefinition,
  texts: readonly string[],
  token: string | null,
  options: EnqueueOptions,
): string {
  const head = JSON.stringify({
    token,
    identifier: definition.identifier,
    priority: options.priority === undefined ? definition.priority : PRIORITIES[options.priority],
    delayUntil: options.delayUntil?.toISOString() ?? null,
    maxAttempts: definition.maxAttempts,
    queueSize: definition.queueSize ?? null,
    key: options.key ?? null,
    onDuplicate: options.onDuplicate ?? "keep",
    serialKey: options.serialKey ?? null,
    traceParent: activeTraceParent(),
  });
  return `${head.slice(0, -1)},"payloads":[${texts.join(",")}]}`;
}

function checkOptions(definition: TaskDefinition<never> | TaskDefinition, options: EnqueueOptions): void {
  const check = (name: string, fits: boolean, allowed: string): void => {
    if (!fits) throw new StintError("option_invalid", `${definition.identifier}: ${name} is ${allowed}.`);
  };
  const { delayUntil, priority, key, onDuplicate, serialKey } = options;
  check(
    "delayUntil",
    delayUntil === undefined || (delayUntil instanceof Date && isWhole(delayUntil.getTime(), 0, 253_402_300_799_999)),
    "a Date before the year 10000",
  );
  check("priority", priority === undefined || Object.hasOwn(PRIORITIES, priority), Object.keys(PRIORITIES).join(", "));
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

function explain(definition: TaskDefinition, error: unknown): unknown {
  if (!(error instanceof DatabaseError)) return error;
  if (error.constraint === "payload_is_small") return tooLarge(definition.identifier);
  if (error.sqlState === "54001" || error.sqlState === "22P05" || error.sqlState === "22P02") {
    return new StintError(
      "payload_not_json",
      `${definition.identifier}: Postgres cannot store this payload: ${error.message}`,
      { cause: error },
    );
  }
  return error;
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
