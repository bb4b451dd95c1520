/** How the processor function wakes others on AWS. The clients are loaded when the first call is made: a cold start goes without. */
import type { Config } from "./config.ts";
import { type ArrangeOptions, arrangeNextWake } from "./next-wake.ts";
import type { Wake } from "./wake.ts";

/** Calls invocations of a function for free slots. */
export function wakeThrough({ numThreads, lambdaEndpoint }: Config, functionName: string): Wake {
  let loaded: ReturnType<typeof load> | undefined;
  const load = async () => {
    const { lambdaWake } = await import("./wake-lambda.ts");
    return lambdaWake(functionName, lambdaEndpoint === undefined ? {} : { endpoint: lambdaEndpoint });
  };
  return {
    slots: numThreads,
    call: async (slot) => {
      loaded ??= load();
      await (await loaded)({ slot, woken: true });
    },
  };
}

/**
 * Works, and sees to it that somebody is called when there is something to do after it, or if it dies: asked before it claims, and again
 * before its first task starts, for what came meanwhile. One that finds nothing to do is guarded by nobody: each call would lead to the
 * next for ever, and the database never rest.
 */
export async function arrangingWakes<T>(
  { graceMs, sqsEndpoint }: Config,
  queueUrl: string,
  options: Pick<ArrangeOptions, "databases" | "release" | "log">,
  work: (beforeWork: () => Promise<void>) => Promise<T>,
): Promise<T> {
  const { MOST_DELAY_MS, queueWake } = await import("./wake-queue.ts");
  const send = queueWake(queueUrl, sqsEndpoint === undefined ? {} : { endpoint: sqsEndpoint });
  const arrange = (beginning: boolean, more: { waitMs?: number } = {}) =>
    arrangeNextWake({ ...options, graceMs, send, mostMs: MOST_DELAY_MS, beginning, ...more });
  await arrange(true);
  try {
    return await work(() => arrange(false));
  } finally {
    // No lease runs any more, and what is under way when the function answers may never end.
    await arrange(false, { waitMs: graceMs / 2 });
  }
}
