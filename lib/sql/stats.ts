import { statement } from "../database/port.ts";

/** Rows of JSON, `[kind, value]`: at, truncated, identifier, minute, slot, paused, recurring. Bounded whatever the number of tasks. */
export const readStatsRows = statement<{ row: string }>()(
  "read_stats",
  { most: "bigint" },
  ["row"],
  "SELECT s.row FROM {schema}.stats_v1(CAST(:most AS integer)) AS s(row)",
);

/** Rows of JSON: the recurring ones of the above alone. */
export const readRecurringRows = statement<{ row: string }>()(
  "read_recurring_stats",
  {},
  ["row"],
  "SELECT s.row FROM {schema}.recurring_stats_v1() AS s(row)",
);
