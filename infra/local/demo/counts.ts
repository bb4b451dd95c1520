/** What the database says of the tasks: nothing here is counted by the demo itself. */
import { type Database, statement } from "../../../lib/database/port.ts";

export interface KindCount {
  readonly identifier: string;
  /** Tasks, in whatever state. */
  readonly enqueued: number;
  readonly succeeded: number;
  readonly failed: number;
  /** Tasks with more than one run. */
  readonly retried: number;
  readonly runs: number;
  readonly waiting: number;
  readonly running: number;
}

/** The demo's own: a built-in schedule may come due meanwhile. */
const OWN = "NOT starts_with(identifier, 'task_processor.')";

/** A task is in one of three places: unfinished, failed for good, or its last run says that it succeeded. */
const TASKS = `(
  SELECT id, identifier, CASE WHEN held_by IS NULL THEN 'waiting' ELSE 'running' END AS state FROM {schema}.task
  UNION ALL SELECT id, identifier, 'failed' FROM {schema}.failed_task
  UNION ALL SELECT task_id, identifier, 'succeeded' FROM {schema}.task_run WHERE task_outcome = 'SUCCEEDED')`;

const countTasks = statement<KindCount>()(
  "demo_count_tasks",
  {},
  ["identifier", "enqueued", "succeeded", "failed", "retried", "runs", "waiting", "running"],
  `WITH runs AS (SELECT task_id, count(*) AS runs FROM {schema}.task_run GROUP BY task_id)
   SELECT identifier,
     CAST(count(*) AS integer),
     CAST(count(*) FILTER (WHERE state = 'succeeded') AS integer),
     CAST(count(*) FILTER (WHERE state = 'failed') AS integer),
     CAST(count(*) FILTER (WHERE runs > 1) AS integer),
     CAST(coalesce(sum(runs), 0) AS integer),
     CAST(count(*) FILTER (WHERE state = 'waiting') AS integer),
     CAST(count(*) FILTER (WHERE state = 'running') AS integer)
   FROM ${TASKS} AS tasks LEFT JOIN runs ON runs.task_id = tasks.id
   WHERE ${OWN}
   GROUP BY identifier ORDER BY identifier`,
);

const findTasks = statement<{ found: number }>()(
  "demo_find_tasks",
  { ids: "json" },
  ["found"],
  `SELECT CAST(count(*) AS integer) FROM json_array_elements_text(CAST(:ids AS json)) AS told (id)
   WHERE CAST(told.id AS bigint) IN (SELECT id FROM ${TASKS} AS tasks)`,
);

const findSucceeded = statement<{ id: string }>()(
  "demo_find_succeeded",
  {},
  ["id"],
  `SELECT CAST(task_id AS text) FROM {schema}.task_run WHERE task_outcome = 'SUCCEEDED' AND ${OWN}`,
);

const readVersion = statement<{ version: string }>()(
  "demo_version",
  {},
  ["version"],
  "SELECT split_part(current_setting('server_version'), ' ', 1)",
);

const countInvocations = statement<{ invocations: number; slots: number; orders: number }>()(
  "demo_count_invocations",
  {},
  ["invocations", "slots", "orders"],
  `SELECT CAST(count(*) AS integer), CAST(count(DISTINCT slot) AS integer), (SELECT CAST(count(*) AS integer) FROM shop_order)
   FROM {schema}.heartbeat`,
);

export const countByKind = (database: Database): Promise<KindCount[]> => database.query(countTasks, {});

/** How many of these ids the database has in any state. */
export async function found(database: Database, ids: readonly string[]): Promise<number> {
  return (await database.query(findTasks, { ids: JSON.stringify(ids) }))[0]!.found;
}

export async function succeededIds(database: Database): Promise<string[]> {
  return (await database.query(findSucceeded, {})).map(({ id }) => id);
}

export async function versionOf(database: Database): Promise<string> {
  return (await database.query(readVersion, {}))[0]!.version;
}

export async function invocationsIn(database: Database) {
  return (await database.query(countInvocations, {}))[0]!;
}

export function sumOf(kinds: readonly KindCount[]): Omit<KindCount, "identifier"> {
  const sum = (pick: (kind: KindCount) => number): number => kinds.reduce((total, kind) => total + pick(kind), 0);
  return {
    enqueued: sum((kind) => kind.enqueued),
    succeeded: sum((kind) => kind.succeeded),
    failed: sum((kind) => kind.failed),
    retried: sum((kind) => kind.retried),
    runs: sum((kind) => kind.runs),
    waiting: sum((kind) => kind.waiting),
    running: sum((kind) => kind.running),
  };
}
