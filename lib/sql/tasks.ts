import { statement } from "../database/port.ts";

/** Stores one task or thousands of a kind in one call. A request token makes a repetition give the first answer again. */
export const enqueueTasks = statement<{ answer: string }>()(
  "enqueue",
  { request: "json" },
  ["answer"],
  "SELECT CAST({schema}.enqueue_v1(CAST(:request AS jsonb)) AS text) AS answer",
);

/** The same, and whoever listens at the channel hears of it once it has committed. */
export const enqueueTasksAndNotify = statement<{ answer: string }>()(
  "enqueue_and_notify",
  { request: "json", channel: "text" },
  ["answer"],
  `WITH notified AS MATERIALIZED (SELECT pg_notify(:channel, ''))
  SELECT CAST({schema}.enqueue_v1(CAST(:request AS jsonb)) AS text) AS answer FROM notified`,
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
