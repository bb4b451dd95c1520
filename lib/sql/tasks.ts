import { statement } from "../database/port.ts";

/** The Data API promises rows of 64 KB, and the ids of 10,000 tasks may take 230 KB. */
const ROW_BYTES = 40_000;

/**
 * The answer's text, to be joined, in rows of so many characters, all of them ASCII. Materialized: the function, which stores, is
 * called once. Unnesting the ids and grouping them took forty times as long as storing 10,000 tasks.
 */
const inRows = (
  call: string,
  from = "",
): string => `answered AS MATERIALIZED (SELECT CAST(${call} AS text) AS whole${from})
  SELECT substr(whole, generate_series(1, length(whole), ${ROW_BYTES}), ${ROW_BYTES}) AS answer FROM answered`;

const CALL = "{schema}.enqueue_v1(CAST(:request AS jsonb))";
const NOTIFIED = "notified AS MATERIALIZED (SELECT pg_notify(:channel, ''))";
const LIMITED = "limited AS MATERIALIZED (SELECT set_config('lock_timeout', :wait, true))";

/** Stores one task or thousands of a kind in one call. A request token makes a repetition give the first answer again. */
export const enqueueTasks = statement<{ answer: string }>()(
  "enqueue",
  { request: "json" },
  ["answer"],
  `WITH ${inRows(CALL)}`,
);

/** The same, and whoever listens at the channel hears of it once it has committed. */
export const enqueueTasksAndNotify = statement<{ answer: string }>()(
  "enqueue_and_notify",
  { request: "json", channel: "text" },
  ["answer"],
  `WITH ${NOTIFIED}, ${inRows(CALL, " FROM notified")}`,
);

/** The same with a limit, in ms, to how long it waits for who has a key, a serial key or a queue size locked. Not in a producer's transaction, whose own it would replace. */
export const enqueueTasksInTime = statement<{ answer: string }>()(
  "enqueue_in_time",
  { request: "json", wait: "text" },
  ["answer"],
  `WITH ${LIMITED}, ${inRows(CALL, " FROM limited")}`,
);

export const enqueueTasksInTimeAndNotify = statement<{ answer: string }>()(
  "enqueue_in_time_and_notify",
  { request: "json", channel: "text", wait: "text" },
  ["answer"],
  `WITH ${LIMITED}, ${NOTIFIED}, ${inRows(CALL, " FROM limited, notified")}`,
);

/** Due, unfinished, held by nobody. */
export const countWaiting = statement<{ waiting: string }>()(
  "count_waiting",
  {},
  ["waiting"],
  "SELECT CAST(count(*) AS text) AS waiting FROM {schema}.task WHERE held_by IS NULL AND scheduled_for <= clock_timestamp()",
);

export interface UnfinishedTask {
  readonly id: string;
  readonly identifier: string;
  readonly payload: unknown;
  /** 0 runs first, 100 last. */
  readonly priority: number;
  /** ISO 8601, with microseconds. */
  readonly scheduledFor: string;
  readonly key: string | null;
  readonly serialKey: string | null;
  readonly running: boolean;
}

export const readUnfinished = statement<UnfinishedTask & { payload: string }>()(
  "read_unfinished",
  { identifier: "text" },
  ["id", "identifier", "payload", "priority", "scheduledFor", "key", "serialKey", "running"],
  `SELECT CAST(id AS text) AS id, identifier, CAST(payload AS text) AS payload, CAST(priority AS integer) AS priority,
    to_json(scheduled_for) #>> '{}' AS "scheduledFor", key, serial_key AS "serialKey", held_by IS NOT NULL AS running
  FROM {schema}.task t WHERE identifier = coalesce(CAST(:identifier AS text), identifier) ORDER BY t.id LIMIT 1000`,
);
