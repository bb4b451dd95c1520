/** Handlers of several tasks at once: those of a kind that start in the same turn of the event loop, as the tasks of one claim do. */
import type { HandlerFunction, StartPermit, TaskContext } from "./task.ts";

/** One of the tasks that a batch handler is given. Each is an attempt of its own: timeout, signal, result, retries. */
export interface BatchTask<Payload> {
  readonly payload: Payload;
  readonly context: TaskContext;
  /** Ends this one before the batch does; `value` is kept as what a handler returns. What the batch comes to later does not concern it. */
  succeed(value?: unknown): void;
  /** Fails this one alone, with whatever a handler may throw. */
  fail(error: unknown): void;
}

/** When it ends, all that it has not ended itself have succeeded; when it throws, they have failed. What it returns is not kept. */
export type BatchFunction<Payload> = (tasks: readonly BatchTask<Payload>[]) => unknown;

interface Waiting<Payload> {
  readonly task: BatchTask<Payload>;
  readonly permit: StartPermit | undefined;
}

/** A handler of one task that waits for its mates: at most `batchSize` of them. */
export function gather<Payload>(run: BatchFunction<Payload>, batchSize: number): HandlerFunction<Payload> {
  /** Takes those that come in this turn, until it is full. */
  let open: Waiting<Payload>[] | undefined;

  const start = async (gathered: readonly Waiting<Payload>[]): Promise<void> => {
    if (open === gathered) open = undefined;
    // Others that were started with them may have blocked the event loop for longer than the lease.
    const tasks = gathered.filter(({ permit }) => permit?.mayStart() ?? true).map(({ task }) => task);
    try {
      if (tasks.length > 0) await run(tasks);
      for (const { task } of gathered) task.succeed();
    } catch (error) {
      for (const { task } of gathered) task.fail(error);
    }
  };

  return (payload, context, permit) =>
    new Promise((succeed, fail) => {
      if (open === undefined || open.length >= batchSize) {
        const gathered: Waiting<Payload>[] = [];
        open = gathered;
        // Called here, it runs under the span of its first task, however many come.
        queueMicrotask(() => void start(gathered));
      }
      open.push({ task: { payload, context, succeed, fail }, permit });
    });
}
