/** SYNCHRONOUSLY and SEPARATE_THREAD: the task runs in the producer's process, once, unmanaged: with the process it is lost. */
import { pause } from "./clock.ts";
import type { RunMethod } from "./config.ts";
import { DatabaseError } from "./database/failure.ts";
import type { Database, ProducerTransaction } from "./database/port.ts";
import { StintError } from "./errors.ts";
import { createLog } from "./log.ts";
import { decodePayload } from "./payload.ts";
import { readTransactionId, readTransactionStatus } from "./sql/transactions.ts";
import type { TaskDefinition, TaskHandler } from "./task.ts";

export interface UnmanagedTask {
  readonly definition: TaskDefinition;
  readonly text: string;
}

/** Hears of a SEPARATE_THREAD run that failed, or was never started as nobody could say whether its transaction has committed: nobody waits for it. */
export type FailureHook = (failure: { readonly identifier: string; readonly error: unknown }) => unknown;

interface UnmanagedRun {
  readonly database: Database;
  readonly runMethod: RunMethod;
  readonly tasks: readonly UnmanagedTask[];
  readonly handlers: ReadonlyMap<string, TaskHandler>;
  readonly transaction: ProducerTransaction | undefined;
  readonly onFailure: FailureHook | undefined;
}

const COMMIT_POLL_MS = 100;
/** The longest a Data API transaction can live. */
const COMMIT_WAIT_MS = 86_400_000;

/** @throws StintError handler_missing; under SYNCHRONOUSLY whatever the handler throws */
export async function runUnmanaged({
  database,
  runMethod,
  tasks,
  handlers,
  transaction,
  onFailure,
}: UnmanagedRun): Promise<"ran" | "started"> {
  const runs = tasks.map((task) => {
    const handler = handlers.get(task.definition.identifier);
    if (handler === undefined)
      throw new StintError("handler_missing", `${task.definition.identifier}: \`handlers\` has no handler for it.`);
    return () => runOnce(handler, task);
  });
  if (runMethod === "SYNCHRONOUSLY") {
    for (const run of runs) await run();
    return "ran";
  }
  const committed = transaction === undefined ? undefined : await commitOf(database, transaction);
  const failed = (place: number, error: unknown): unknown => {
    const identifier = tasks[place]!.definition.identifier;
    if (onFailure === undefined) createLog().error("an unmanaged task failed", { identifier, error: String(error) });
    return onFailure?.({ identifier, error });
  };
  const start = async (): Promise<void> => {
    try {
      if (committed !== undefined && !(await committed())) return;
    } catch (error) {
      await Promise.all(runs.map((_, place) => failed(place, error)));
      return;
    }
    await Promise.all(runs.map((run, place) => run().catch((error: unknown) => failed(place, error))));
  };
  setImmediate(() => {
    start().catch((error: unknown) => createLog().error("unmanaged tasks were not started", { error: String(error) }));
  });
  return "started";
}

/** Asks, outside the transaction, how it ended: true once committed, false once rolled back. */
async function commitOf(database: Database, producer: ProducerTransaction): Promise<() => Promise<boolean>> {
  const [row] = await database.adopt(producer).query(readTransactionId, {});
  const id = row!.id;
  return async () => {
    for (
      const startedAt = performance.now();
      performance.now() - startedAt < COMMIT_WAIT_MS;
      await pause(COMMIT_POLL_MS)
    ) {
      const status = await statusOf(database, id);
      if (status === "committed") return true;
      if (status !== "in progress") return false;
    }
    return false;
  };
}

/** A database that is away for a while says nothing of the transaction: it is asked again. */
async function statusOf(database: Database, id: string): Promise<string | null | undefined> {
  try {
    const [now] = await database.query(readTransactionStatus, { id });
    return now?.status;
  } catch (error) {
    if (error instanceof DatabaseError && error.retry !== "never") return "in progress";
    throw error;
  }
}

async function runOnce(handler: TaskHandler, { definition, text }: UnmanagedTask): Promise<void> {
  const decoded = decodePayload(definition.payload, JSON.parse(text));
  if ("problem" in decoded) throw new StintError("payload_invalid", `${definition.identifier}: ${decoded.problem}`);
  const signal = AbortSignal.timeout(definition.timeoutMs);
  const log = createLog().with({ identifier: definition.identifier });
  const context = {
    signal,
    attempt: 1,
    taskId: "",
    deadline: new Date(Date.now() + definition.timeoutMs),
    log,
    progress: () => {},
  };
  const timedOut = new Promise<never>((_, reject) => {
    signal.addEventListener(
      "abort",
      () => reject(new StintError("aborted", `The task timed out after ${definition.timeoutMs} ms.`)),
      { once: true },
    );
  });
  await Promise.race([Promise.resolve().then(() => handler.run(decoded.payload as never, context)), timedOut]);
}
