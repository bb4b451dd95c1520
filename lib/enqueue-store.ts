/** How payloads get into the database: as few requests as their size allows, each repeatable. */
import { randomUUID } from "node:crypto";
import { pause } from "./clock.ts";
import { DatabaseError } from "./database/failure.ts";
import { lockWaitMs } from "./database/limits.ts";
import type { Database, ProducerTransaction, QueryOptions } from "./database/port.ts";
import { StintError } from "./errors.ts";
import { tooLarge } from "./payload.ts";
import { enqueueTasks, enqueueTasksAndNotify, enqueueTasksInTime, enqueueTasksInTimeAndNotify } from "./sql/tasks.ts";
import { PRIORITIES, type Priority, type TaskDefinition } from "./task.ts";
import { activeTraceParent, isPropagated } from "./trace.ts";

export interface EnqueueOptions {
  /** Not before this moment. */
  readonly delayUntil?: Date;
  /** Default: the definition's. */
  readonly priority?: Priority;
  /** Default: the definition's. 1 to 1000. */
  readonly maxAttempts?: number;
  /** At most one task per (identifier, key) that has not started. 1 to 500 bytes. */
  readonly key?: string;
  /** What an enqueue with the key of a waiting task does: keep that one (default) or replace its payload, due time, priority and attempts. */
  readonly onDuplicate?: "keep" | "replace";
  /** Of all tasks of this identifier with this key one runs at a time, in the order they were stored. 1 to 500 bytes. */
  readonly serialKey?: string;
  /** The caller's open transaction: the task is stored if, and only if, it commits. */
  readonly transaction?: ProducerTransaction;
}

/** Most bytes of payloads in one request: the Data API takes 4 MiB, and JSON within JSON grows. */
const REQUEST_BYTES = 1_400_000;
const REQUEST_TASKS = 10_000;

/** How long an enqueue takes at the most. */
export interface Limits {
  /** Repeated for so long: a paused Aurora resumes within it. */
  readonly repeatMs: number;
  /** An attempt waits for so long: AWS ends a call after 45 s, and the rest of the time is for asking again. */
  readonly attemptMs: number;
  /** An attempt has so long however late it begins: cut off sooner, it would leave in doubt what was not. */
  readonly leastMs: number;
  /** And so long more for each further request of its transaction. */
  readonly furtherMs: number;
}

const LIMITS: Limits = { repeatMs: 60_000, attemptMs: 50_000, leastMs: 1000, furtherMs: 10_000 };

export interface Stored {
  readonly status: "enqueued" | "duplicate" | "queue_full";
  readonly ids: readonly string[];
}

/**
 * All of them or none, within a minute (see Limits); in a transaction of the producer's its own time limits hold.
 * @throws StintError payload_too_large | payload_not_json | database_outcome_unknown: they may be stored | database_*: they are not
 */
export async function store(
  database: Database,
  definition: TaskDefinition,
  texts: readonly string[],
  options: EnqueueOptions,
  notify: boolean,
  limits: Limits = LIMITS,
): Promise<Stored> {
  const chunks = split(texts);
  const traceParent = isPropagated() ? await activeTraceParent() : null;
  const channel = database.schema;
  const send = async (
    to: Pick<Database, "query">,
    request: string,
    given?: QueryOptions,
    wait?: string,
  ): Promise<{ answer: string }[]> => {
    try {
      if (wait !== undefined)
        return await (notify
          ? to.query(enqueueTasksInTimeAndNotify, { request, channel, wait }, given)
          : to.query(enqueueTasksInTime, { request, wait }, given));
      return await (notify
        ? to.query(enqueueTasksAndNotify, { request, channel }, given)
        : to.query(enqueueTasks, { request }, given));
    } catch (error) {
      throw explain(definition, error);
    }
  };
  const encode = (chunk: readonly string[], token: string | null): string =>
    requestOf(definition, chunk, { token, traceParent, asksFor: chunk === chunks[0] ? texts.length : null }, options);
  if (options.transaction !== undefined) {
    const transaction = database.adopt(options.transaction);
    return await storeChunks(chunks, (chunk) => send(transaction, encode(chunk, null)));
  }
  // A token makes a repetition safe: one whose first answer was lost gives that answer.
  const tokens = chunks.map(() => randomUUID());
  const leastMs = limits.leastMs + limits.furtherMs * (chunks.length - 1);
  // Given up, it must not be stored later: its caller may enqueue anew. Of a transaction nothing stays without its commit.
  const locks = [options.key, options.serialKey, definition.queueSize].filter((one) => one !== undefined).length;
  return await repeat((leftMs) => {
    const timeoutMs = Math.max(leastMs, Math.min(limits.attemptMs, leftMs));
    return chunks.length === 1
      ? storeChunks(chunks, (chunk) =>
          send(
            database,
            encode(chunk, tokens[0]!),
            { timeoutMs },
            locks > 0 ? String(lockWaitMs(timeoutMs, locks)) : undefined,
          ),
        )
      : database.transaction(
          (transaction) => storeChunks(chunks, (chunk, place) => send(transaction, encode(chunk, tokens[place]!))),
          { timeoutMs },
        );
  }, limits.repeatMs);
}

/** The first chunk asks the queue's limit for all of them, so that a full queue never leaves a part: the caller's transaction may go on. */
async function storeChunks(
  chunks: readonly string[][],
  send: (chunk: string[], place: number) => Promise<{ answer: string }[]>,
): Promise<Stored> {
  const ids: string[] = [];
  let status: Stored["status"] = "enqueued";
  for (const [place, chunk] of chunks.entries()) {
    const rows = await send(chunk, place);
    const answer = JSON.parse(rows.map((row) => row.answer).join("")) as Stored;
    if (answer.status === "queue_full") return answer;
    status = answer.status;
    for (const id of answer.ids) ids.push(id);
  }
  return { status, ids };
}

async function repeat<T>(work: (leftMs: number) => Promise<T>, repeatMs: number): Promise<T> {
  const startedAt = performance.now();
  const leftMs = (): number => repeatMs - (performance.now() - startedAt);
  let lost: DatabaseError | undefined;
  for (let failures = 1; ; failures += 1) {
    try {
      return await work(leftMs());
    } catch (error) {
      // What the payload is refused for, the attempts before were refused for too.
      if (!(error instanceof DatabaseError)) throw error;
      // The first request was still running and has been answered by now.
      const overtaken = error.sqlState === "23505" && error.constraint === "enqueue_request_pkey";
      if (error.retry === "unknown" || overtaken) lost ??= error;
      const waitMs = Math.min(2000, 20 * 2 ** failures) * (0.5 + Math.random() / 2);
      const again = (error.retry !== "never" || overtaken) && waitMs < leftMs();
      if (!again) throw lost === undefined || error.retry === "unknown" ? error : inDoubt(lost, error);
      await pause(waitMs);
    }
  }
}

/** A later attempt that never ran says nothing of the one whose answer was lost. */
const inDoubt = (lost: DatabaseError, last: DatabaseError): DatabaseError =>
  new DatabaseError(
    "database_outcome_unknown",
    `It may be stored: an answer was lost (${lost.message}), and asking again told nothing (${last.message}).`,
    "unknown",
    undefined,
    last,
  );

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
  { token, traceParent, asksFor }: { token: string | null; traceParent: string | null; asksFor: number | null },
  options: EnqueueOptions,
): string {
  const head = JSON.stringify({
    token,
    identifier: definition.identifier,
    priority: options.priority === undefined ? definition.priority : PRIORITIES[options.priority],
    delayUntil: options.delayUntil?.toISOString() ?? null,
    maxAttempts: options.maxAttempts ?? definition.maxAttempts,
    queueSize: asksFor === null ? null : (definition.queueSize ?? null),
    count: asksFor,
    key: options.key ?? null,
    onDuplicate: options.onDuplicate ?? "keep",
    serialKey: options.serialKey ?? null,
    traceParent,
  });
  return `${head.slice(0, -1)},"payloads":[${texts.join(",")}]}`;
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
