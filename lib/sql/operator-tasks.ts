import { statement } from "../database/port.ts";

/** A page of tasks as rows of JSON; where there may be more, the last row is the next cursor, bare. */
export const listTaskRows = statement<{ row: string }>()(
  "list_tasks",
  { filter: "json", cursor: "text", limit: "bigint" },
  ["row"],
  "SELECT t.row FROM {schema}.list_tasks_v1(CAST(:filter AS jsonb), :cursor, CAST(:limit AS integer)) AS t(row)",
);

/** Rows of JSON, `[kind, value]`: task, run (newest first), payload, result. None: there is no such task. */
export const showTaskRows = statement<{ row: string }>()(
  "show_task",
  { id: "text", payload: "boolean" },
  ["row"],
  "SELECT t.row FROM {schema}.show_task_v1(CAST(:id AS bigint), :payload) AS t(row)",
);

/** One batch of an action on tasks: JSON {count, audit, next}. */
export const actOnTasks = statement<{ answer: string }>()(
  "act_on_tasks",
  { request: "json" },
  ["answer"],
  "SELECT CAST({schema}.act_on_tasks_v1(CAST(:request AS jsonb)) AS text) AS answer",
);

/** pause, resume, recurring_run, recurring_enable, recurring_disable. 0: nothing was to be done, or there is none. */
export const actOnIdentifier = statement<{ count: number }>()(
  "act_on_identifier",
  { action: "text", identifier: "text", who: "text" },
  ["count"],
  "SELECT {schema}.act_on_identifier_v1(:action, :identifier, :who) AS count",
);

export interface AuditRow {
  readonly id: string;
  readonly at: string;
  readonly who: string;
  readonly action: string;
  readonly what: string;
  readonly count: number;
}

export const readAuditRows = statement<AuditRow>()(
  "read_audit",
  { before: "text", limit: "bigint" },
  ["id", "at", "who", "action", "what", "count"],
  `SELECT CAST(id AS text) AS id, to_json(at) #>> '{}' AS at, who, action, CAST(what AS text) AS what, count
  FROM {schema}.audit WHERE id < coalesce(CAST(:before AS bigint), 9223372036854775807) ORDER BY id DESC LIMIT CAST(:limit AS integer)`,
);
