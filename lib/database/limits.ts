import type { Database } from "./port.ts";

/** Of a rollback: without an answer the transaction ends by itself, with its connection or after 3 minutes of idling. */
export const ROLLBACK_TIMEOUT_MS = 5000;

/** Milliseconds that are left of so many, at least 1; undefined where there is no limit. */
export function countdown(timeoutMs: number | undefined): () => number | undefined {
  const startedAt = performance.now();
  return () => (timeoutMs === undefined ? undefined : Math.max(1, timeoutMs - (performance.now() - startedAt)));
}

/** The same database, whose calls give up after so long where they name no limit of their own. */
export const limited = (database: Database, timeoutMs: number): Database => ({
  ...database,
  query: (statement, values, options) => database.query(statement, values, { timeoutMs, ...options }),
  transaction: (work, options) => database.transaction(work, { timeoutMs, ...options }),
});

/**
 * How long Postgres may wait for each of so many locks in what its caller gives up after `timeoutMs`, in ms. It gives up first: it does not hear of a caller
 * that is gone, and what was given up must not be done later.
 */
export const lockWaitMs = (timeoutMs: number, locks = 1): number =>
  Math.max(1, Math.ceil(Math.max(timeoutMs / 2, timeoutMs - 10_000) / locks));
