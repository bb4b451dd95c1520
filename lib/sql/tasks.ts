import { statement } from "../database/port.ts";

/** Stores one task or thousands of a kind in one call. A request token makes a repetition give the first answer again. */
export const enqueueTasks = statement<{ answer: string }>()(
  "enqueue",
  { request: "json" },
  ["answer"],
  "SELECT CAST({schema}.enqueue_v1(CAST(:request AS jsonb)) AS text) AS answer",
);

/** Due, unfinished, held by nobody. */
export const countWaiting = statement<{ waiting: string }>()(
  "count_waiting",
  {},
  ["waiting"],
  "SELECT CAST(count(*) AS text) AS waiting FROM {schema}.task WHERE held_by IS NULL AND scheduled_for <= clock_timestamp()",
);
