import { statement } from "../database/port.ts";

/** Rows of JSON: run, identifier (counted up to `bound`, then with estimates), slot. */
export const readMetricsRows = statement<{ row: string }>()(
  "read_metrics",
  { most: "bigint", bound: "bigint" },
  ["row"],
  "SELECT m.row FROM {schema}.metrics_v1(CAST(:most AS integer), CAST(:bound AS integer)) AS m(row)",
);

/** Adds what ended invocations have counted to the lasting counters. How many invocations: ask again while it is a whole batch. */
export const foldCounters = statement<{ folded: number }>()(
  "fold_counters",
  { batch: "bigint" },
  ["folded"],
  "SELECT {schema}.fold_counters_v1(CAST(:batch AS integer)) AS folded",
);
