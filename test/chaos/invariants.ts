/** After a run: the database, the producers' log, the operator's and the handlers' logs against each other. */
import { accountFor, type Books, STORED, type Stored } from "./accounts.ts";
import { attemptOf, type Execution } from "./logs.ts";
import { RUNS } from "./monitor.ts";
import type { Broken, Counts } from "./report.ts";
import { returnsNothing } from "./tasks.ts";
import type { World } from "./world.ts";

interface Written extends Pick<Books, "intents" | "deletions"> {
  readonly executions: readonly Execution[];
  /** Tasks, and identifiers, that an operator asked to be cancelled. */
  readonly cancelled: ReadonlySet<string>;
}

export async function checkInvariants(
  world: World,
  { executions, cancelled, ...written }: Written,
  counts: Counts,
): Promise<{ broken: Broken[]; lost: number; states: Readonly<Record<string, number>>; stored: number }> {
  const seen = await world.sql<{ invariant: number; what: string; task: string | null; invocation: string }>(
    "SELECT invariant, what, CAST(task AS text) AS task, invocation FROM chaos.violation",
  );
  const stored = await world.sql<Stored>(STORED);
  const aged = await world.sql<{ id: string }>("SELECT CAST(task AS text) AS id FROM chaos.aged");
  const { lost, states, found } = accountFor({
    ...written,
    stored,
    executions,
    aged: new Set(aged.map(({ id }) => id)),
    counted: await removedByItsCounters(world),
  });
  const runs = await world.sql<Run>(
    `SELECT CAST(task_id AS text) AS task, identifier, attempt, result, error_details AS error, result_value->>'token' AS token FROM (${RUNS}) AS r`,
  );
  counts.add("returned_nothing", runs.filter(({ result, token }) => result === "SUCCESS" && token === null).length);
  counts.add("returned_something", runs.filter(({ token }) => token !== null).length);
  return {
    broken: [
      ...seen.map(({ invariant, what, task, invocation }) => ({
        invariant,
        what: `${what} (invocation ${invocation})`,
        task: task ?? undefined,
      })),
      ...found,
      ...overlaps(executions),
      ...runsAgainstLogs(runs, executions, cancelled),
      ...(await attemptsAndCounters(world)),
      ...(await occurrences(world, counts)),
      ...(await stillHeld(world)),
    ],
    lost,
    states,
    stored: stored.length,
  };
}

/** The table came with the second release. */
async function removedByItsCounters(world: World): Promise<number> {
  const [row] = await world.sql<{ runs: number }>(
    "SELECT CAST(coalesce(sum(runs), 0) AS float8) AS runs FROM run_counter WHERE result IN ('deleted', 'purged')",
  );
  return row!.runs;
}

/** 1: of one task, and of the tasks of one serial key, no two runs believed at the same moment. */
export function overlaps(executions: readonly Execution[]): Broken[] {
  const groups = new Map<string, Execution[]>();
  const join = (key: string, execution: Execution): void => {
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [execution]);
    else group.push(execution);
  };
  for (const execution of executions) {
    join(`task ${execution.task}`, execution);
    if (execution.serial !== undefined) join(`serial key ${execution.serial}`, execution);
  }
  const broken: Broken[] = [];
  for (const [key, group] of groups) {
    group.sort((a, b) => a.startedAt - b.startedAt);
    let latest = group[0]!;
    for (const next of group.slice(1)) {
      if (next.startedAt <= latest.believedAt) {
        const us = latest.believedAt - next.startedAt;
        broken.push({
          invariant: 1,
          what: `two runs at a time of ${key}, for ${us} us (${latest.file}, ${next.file})`,
          task: next.task,
        });
      }
      if (next.believedAt > latest.believedAt) latest = next;
    }
  }
  return broken;
}

export interface Run {
  readonly task: string;
  readonly identifier: string;
  readonly attempt: number;
  readonly result: string;
  readonly error: string | null;
  /** Of what its handler returned. */
  readonly token: string | null;
}

/** 2: an attempt is started at most once, and what is recorded is what the handlers say. */
export function runsAgainstLogs(
  runs: readonly Run[],
  executions: readonly Execution[],
  cancelled: ReadonlySet<string>,
): Broken[] {
  const broken: Broken[] = [];
  const add = (what: string, task: string): void => void broken.push({ invariant: 2, what, task });
  const byAttempt = new Map<string, Execution>();
  for (const execution of executions) {
    const name = attemptOf(execution.task, execution.attempt);
    if (byAttempt.has(name)) add(`attempt ${execution.attempt} was started twice`, execution.task);
    byAttempt.set(name, execution);
  }
  for (const { task, identifier, attempt, result, error, token } of runs) {
    const execution = byAttempt.get(attemptOf(task, attempt));
    if (result === "SUCCESS" && !execution?.ended) add(`attempt ${attempt} succeeded without an end`, task);
    const returned = result === "SUCCESS" && execution && !returnsNothing(task) ? execution.token : null;
    if (token !== returned) add(`attempt ${attempt} returned ${returned}, and ${token} is kept`, task);
    if (result !== "FAILURE" || execution !== undefined || error?.startsWith("abandoned. ")) continue;
    // It was told of the task and of the cancel by the same answer.
    const asked = cancelled.has(task) || cancelled.has(identifier);
    if (asked && error?.includes("was cancelled by an operator")) continue;
    add(`attempt ${attempt} failed without a start`, task);
  }
  return broken;
}

/** 2, 7: an invocation's counters are its runs; what failed has used its attempts, all of them. */
export async function attemptsAndCounters(world: World): Promise<Broken[]> {
  const counters = await world.sql<{ id: string; what: string }>(`
    SELECT h.invocation_id AS id, format('%s succeeded and %s failed by its counters, %s and %s by its runs', h.succeeded, h.failed, r.succeeded, r.failed) AS what
    FROM heartbeat h LEFT JOIN (
      SELECT invocation_id, count(*) FILTER (WHERE result = 'SUCCESS') AS succeeded,
        count(*) FILTER (WHERE result = 'FAILURE' AND error_details NOT LIKE 'abandoned. %') AS failed
      FROM (${RUNS}) AS runs GROUP BY 1) r USING (invocation_id)
    WHERE (h.succeeded, h.failed) <> (coalesce(r.succeeded, 0), coalesce(r.failed, 0))`);
  const bounds = await world.sql<{ id: string; identifier: string; used: number }>(
    `SELECT CAST(id AS text) AS id, identifier, attempt - forgiven AS used FROM failed_task
     WHERE outcome = 'FAILED' AND attempt - forgiven <> max_attempts`,
  );
  return [
    ...counters.map(({ id, what }) => ({ invariant: 2, what: `invocation ${id}: ${what}` })),
    ...bounds.map(({ id, identifier, used }) => ({
      invariant: 7,
      what: `${identifier} failed after ${used} attempts`,
      task: id,
    })),
  ];
}

/** 9: of all tasks that were ever stored. */
export async function occurrences(world: World, counts: Counts): Promise<Broken[]> {
  const rows = await world.sql<{ occurrence: string; id: string; tasks: number }>(`
    SELECT CAST(occurrence AS text) AS occurrence, CAST(max(task) AS text) AS id, CAST(count(*) AS integer) AS tasks
    FROM chaos.stored WHERE occurrence IS NOT NULL GROUP BY occurrence`);
  counts.add("occurrences", rows.length);
  if (rows.length === 0) return [{ invariant: 9, what: "no occurrence of a schedule of every second" }];
  return rows
    .filter(({ tasks }) => tasks > 1)
    .map(({ occurrence, id }) => ({ invariant: 9, what: `occurrence ${occurrence} twice`, task: id }));
}

/** 3: when all have gone, their tasks are nobody's. */
export async function stillHeld(world: World): Promise<Broken[]> {
  const held = await world.sql<{ id: string; what: string }>(`
    SELECT CAST(t.id AS text) AS id, format('held by %s, which has ended or expired', t.held_by) AS what
    FROM task t LEFT JOIN heartbeat h ON h.invocation_id = t.held_by
    WHERE t.held_by IS NOT NULL AND (h.invocation_id IS NULL OR h.ended_at IS NOT NULL OR h.expired_at IS NOT NULL)`);
  return held.map(({ id, what }) => ({ invariant: 3, what, task: id }));
}
