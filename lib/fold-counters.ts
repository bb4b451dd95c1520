/** Apart from metrics.ts, so that the processor's bundle holds no Prometheus library. */
import type { Database } from "./database/port.ts";
import { foldCounters } from "./sql/metrics.ts";

const FOLD_BATCH = 200;

/** Adds what ended invocations have counted to the lasting counters. Stops with the signal. How many invocations. */
export async function foldEnded(database: Database, signal: AbortSignal): Promise<number> {
  for (let total = 0; ; ) {
    signal.throwIfAborted();
    const [row] = await database.query(foldCounters, { batch: FOLD_BATCH });
    total += row!.folded;
    if (row!.folded < FOLD_BATCH) return total;
  }
}
