/** What an operator reads and does, whoever asks: HTTP, pages, the command line. */
import type { Database } from "./database/port.ts";
import { StintError } from "./errors.ts";
import type { Action, ActionAnswer, Audit, TaskDetail, TaskFilter, TaskSummary, Tasks } from "./operator-schema.ts";
import { actOnIdentifier, actOnTasks, listTaskRows, readAuditRows, showTaskRows } from "./sql/operator-tasks.ts";
import { utc } from "./stats.ts";

/** Tasks of one transaction: a worker never waits for more. */
const BATCH = 500;
/** Of one request; what is left is asked for again. */
const ACT_MS = 15_000;
const MOST_AUDITED_IDS = 100;

/** The last one is where producers write. @throws StintError option_invalid */
export function databaseAt(databases: readonly Database[], place: number | undefined): Database {
  const database = place === undefined ? databases.at(-1) : databases[place];
  if (database === undefined) {
    throw new StintError("option_invalid", `database is from 0 to ${databases.length - 1}.`);
  }
  return database;
}

/** A page of tasks, newest first. @throws StintError option_invalid for a cursor of another list */
export async function listTasks(
  database: Database,
  filter: TaskFilter,
  { cursor, limit = 50 }: { cursor?: string | undefined; limit?: number } = {},
): Promise<Tasks> {
  const wanted = filter.state === "succeeded" ? /^\d{1,17}\.\d{1,18}$/ : /^\d{1,18}$/;
  if (cursor !== undefined && !wanted.test(cursor))
    throw new StintError("option_invalid", "cursor is what next said, with the same filter.");
  const rows = await database.query(listTaskRows, { filter: JSON.stringify(filter), cursor: cursor ?? null, limit });
  const next = rows.at(-1)?.row;
  const more = next !== undefined && !next.startsWith("{");
  return {
    tasks: (more ? rows.slice(0, -1) : rows).map(({ row }) => summaryOf(JSON.parse(row))),
    next: more ? next : null,
  };
}

type Described = TaskDetail["task"];

/** One task with its runs; null when there is none, or retention has removed it. */
export async function showTask(
  database: Database,
  id: string,
  { payload = false }: { payload?: boolean } = {},
): Promise<TaskDetail | null> {
  const rows = (await database.query(showTaskRows, { id, payload })).map(
    ({ row }) => JSON.parse(row) as [string, unknown],
  );
  const task = rows.find(([kind]) => kind === "task")?.[1] as Described | undefined;
  const runs = rows.filter(([kind]) => kind === "run").map(([, run]) => runOf(run as TaskDetail["runs"][number]));
  if (task === undefined) return null;
  const found = (wanted: string): object => {
    const row = rows.find(([kind]) => kind === wanted);
    return row === undefined ? {} : { [wanted === "result" ? "resultValue" : wanted]: row[1] };
  };
  const { occurrence, traceParent, holder, progress, payloadBytes } = task;
  return {
    task: { ...summaryOf(task), occurrence: utc(occurrence), traceParent, holder, progress, payloadBytes },
    runs,
    ...found("payload"),
    ...found("result"),
  };
}

const runOf = (run: TaskDetail["runs"][number]) => ({
  ...run,
  startedAt: utc(run.startedAt),
  finishedAt: utc(run.finishedAt),
});

function summaryOf(task: TaskSummary): TaskSummary {
  const { id, identifier, state, priority, key, serialKey, attempt, attemptsUsed, maxAttempts, error } = task;
  return {
    id,
    identifier,
    state,
    priority,
    scheduledFor: utc(task.scheduledFor),
    createdAt: utc(task.createdAt),
    key,
    serialKey,
    attempt,
    attemptsUsed,
    maxAttempts,
    heldSince: utc(task.heldSince),
    finishedAt: utc(task.finishedAt),
    error,
  };
}

/** Newest first. */
export async function readAudit(
  database: Database,
  { cursor, limit = 50 }: { cursor?: string | undefined; limit?: number } = {},
): Promise<Audit> {
  const rows = await database.query(readAuditRows, { before: cursor ?? null, limit: limit + 1 });
  const entries = rows.slice(0, limit).map((row) => ({ ...row, at: utc(row.at), what: JSON.parse(row.what) }));
  return { entries, next: rows.length > limit ? entries.at(-1)!.id : null };
}

/**
 * Does it, in bounded batches of guarded calls, each a transaction; one row in the audit log.
 * @param who the token's name
 * @throws StintError option_invalid
 */
export async function performAction(
  databases: readonly Database[],
  action: Action,
  who: string,
  { actMs = ACT_MS, batch = BATCH }: { actMs?: number; batch?: number } = {},
): Promise<ActionAnswer> {
  const { action: name } = action;
  const database = databaseAt(databases, action.database);
  if ("identifier" in action) {
    const values = { action: name, identifier: action.identifier, who };
    // A pause holds wherever tasks of that identifier are.
    const everywhere = (name === "pause" || name === "resume") && action.database === undefined;
    let count = 0;
    for (const one of everywhere ? databases : [database])
      count = Math.max(count, (await one.query(actOnIdentifier, values))[0]!.count);
    return { action: name, dryRun: false, count, done: true };
  }
  if ((action.ids === undefined) === (action.filter === undefined))
    throw new StintError("option_invalid", "Give ids or filter, one of the two.");
  if (action.filter?.state === "succeeded")
    throw new StintError("option_invalid", "filter.state: nothing can be done to succeeded tasks.");
  return await actInBatches(database, action, who, actMs, batch);
}

type OnTasks = Exclude<Action, { identifier: string }>;

async function actInBatches(
  database: Database,
  action: OnTasks,
  who: string,
  actMs: number,
  batch: number,
): Promise<ActionAnswer> {
  const { action: name, ids, filter, dryRun, database: _, ...values } = action;
  const what = { ...(ids ? { ids: ids.slice(0, MOST_AUDITED_IDS), number: ids.length } : { filter }), ...values };
  const until = performance.now() + actMs;
  const lists = ids === undefined ? [undefined] : chunks(ids, batch);
  let [count, audit, done] = [0, null as string | null, true];
  for (const list of lists) {
    let after: string | null = null;
    do {
      if (performance.now() > until) {
        done = false;
        break;
      }
      const request = {
        action: name,
        ...values,
        dryRun,
        who,
        what,
        audit,
        after,
        batch,
        ...(list ? { ids: list } : { filter }),
      };
      const [row] = await database.query(actOnTasks, { request: JSON.stringify(request) });
      const answer = JSON.parse(row!.answer) as { count: number; audit?: string; next: string | null };
      count += answer.count;
      audit = answer.audit ?? audit;
      after = answer.next;
    } while (after !== null);
  }
  return { action: name, dryRun, count, done };
}

const chunks = (ids: readonly string[], size: number): string[][] =>
  Array.from({ length: Math.ceil(ids.length / size) }, (_, n) => ids.slice(n * size, (n + 1) * size));
