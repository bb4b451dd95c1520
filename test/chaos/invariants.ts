/** After a run: the database, the producers' log and the handlers' logs against each other. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Intent } from "./producers.ts";
import type { Broken, Counts } from "./report.ts";
import type { World } from "./world.ts";

/** One start of a handler, as its process logged it. Microseconds. */
export interface Execution {
  readonly file: string;
  readonly task: string;
  readonly identifier: string;
  readonly attempt: number;
  readonly token: string;
  readonly serial: string | undefined;
  readonly startedAt: number;
  /** The last moment at which it is known to have believed in its lease. */
  believedAt: number;
  ended: boolean;
}

interface Line {
  message: string;
  task?: string;
  identifier: string;
  attempt: number;
  invocation?: string;
  at: number;
  token: string;
  serial?: string;
  left?: string;
  code?: string;
  maxRssKb?: number;
}

/** Only the last line of a process can be torn, by a kill in the middle of its write: what it was to say was never followed by anything. */
function* textsIn(world: World): Generator<[file: string, text: string]> {
  for (const file of readdirSync(world.folder).filter((name) => name.startsWith("invocation-"))) {
    const texts = readFileSync(join(world.folder, file), "utf8").split("\n");
    texts.pop();
    for (const text of texts) yield [file, text];
  }
}

/** Every line of the handlers' logs about one task. */
export const linesOf = (world: World, task: string): string[] =>
  [...textsIn(world)].filter(([, text]) => text.includes(`"task":"${task}"`)).map((line) => line.join(" "));

export function readLogs(world: World, counts: Counts): Execution[] {
  const executions: Execution[] = [];
  // An attempt number is claimed once, so its lines stand in one file.
  const open = new Map<string, Execution>();
  for (const [file, text] of textsIn(world)) {
    const line = JSON.parse(text) as Line;
    if (line.message === "left") {
      counts.add(`left.${line.left}`);
      counts.most("invocation_rss_max_kb", line.maxRssKb ?? 0);
    }
    if (line.message === "refused") counts.add(`left.refused_${line.code ?? "other"}`);
    if (line.task === undefined) continue;
    const name = `${file} ${line.task} ${line.attempt}`;
    if (line.message === "start") {
      const { task, identifier, attempt, token, serial, at } = line;
      const execution = {
        file,
        task,
        identifier,
        attempt,
        token,
        serial,
        startedAt: at,
        believedAt: at,
        ended: false,
      };
      open.set(name, execution);
      executions.push(execution);
    }
    const execution = open.get(name);
    if (execution === undefined) continue;
    if (line.message === "believes") execution.believedAt = Math.max(execution.believedAt, line.at);
    // An end says nothing of the lease: what comes after another's block runs before any timer can fire.
    if (line.message === "end") execution.ended = true;
  }
  return executions;
}

export interface Stored {
  readonly id: string;
  readonly state: "unfinished" | "SUCCEEDED" | "FAILED" | "CANCELLED";
  readonly token: string | null;
}

const STORED = `
  SELECT CAST(id AS text) AS id, 'unfinished' AS state, payload->>'token' AS token FROM task
  UNION ALL SELECT CAST(id AS text), outcome, payload->>'token' FROM failed_task
  UNION ALL SELECT CAST(task_id AS text), task_outcome, result_value->>'token' FROM task_run WHERE task_outcome = 'SUCCEEDED'`;

export async function checkInvariants(
  world: World,
  intents: ReadonlyMap<string, Intent>,
  executions: readonly Execution[],
): Promise<{ broken: Broken[]; lost: number; states: Record<string, number>; stored: number }> {
  const seen = await world.sql<{ invariant: number; what: string; task: string | null; invocation: string }>(
    "SELECT invariant, what, CAST(task AS text) AS task, invocation FROM chaos.violation",
  );
  const broken: Broken[] = seen.map(({ invariant, what, task, invocation }) => ({
    invariant,
    what: `${what} (invocation ${invocation})`,
    task: task ?? undefined,
  }));
  const stored = await world.sql<Stored>(STORED);
  const { lost, found } = accountFor(stored, intents, executions);
  broken.push(
    ...found,
    ...overlaps(executions),
    ...(await runsAgainstLogs(world, executions)),
    ...(await countersAndOccurrences(world)),
  );
  const states: Record<string, number> = {};
  for (const { state } of stored) states[state.toLowerCase()] = (states[state.toLowerCase()] ?? 0) + 1;
  return { broken, lost, states, stored: stored.length };
}

/** 8: every id told is somewhere, once; what was rolled back is nowhere; a token is one task. */
function accountFor(
  stored: readonly Stored[],
  intents: ReadonlyMap<string, Intent>,
  executions: readonly Execution[],
): { lost: number; found: Broken[] } {
  const found: Broken[] = [];
  const add = (what: string, task?: string): void => void found.push({ invariant: 8, what, task });
  const states = new Map<string, string>();
  const idsOfToken = new Map<string, Set<string>>();
  const name = (token: string, id: string): void => {
    const ids = idsOfToken.get(token) ?? new Set<string>();
    idsOfToken.set(token, ids.add(id));
  };
  for (const { id, state, token } of stored) {
    if (states.has(id)) add(`a task is both ${states.get(id)} and ${state}`, id);
    states.set(id, state);
    if (token !== null && token !== "tick") name(token, id);
  }
  for (const { token, task } of executions) {
    if (token !== "tick") name(token, task);
    if (!states.has(task)) add("a task ran that is not in the database", task);
  }
  let lost = 0;
  for (const { token, fate, id } of intents.values()) {
    const ids = idsOfToken.get(token);
    if (fate === "stored" && (!states.has(id!) || !ids?.has(id!))) {
      lost += 1;
      add(`a task was told to be stored and is not: token ${token}`, id);
    }
    if (fate === "shares_key" && id !== undefined && !states.has(id)) {
      lost += 1;
      add(`a keyed task was told to be stored and is not: token ${token}`, id);
    }
    if (fate === "not_stored" && ids !== undefined) add(`rolled back, and there: token ${token}`, [...ids][0]);
    if (ids !== undefined && ids.size > 1) add(`stored ${ids.size} times: token ${token}`, [...ids].at(-1));
  }
  for (const [token, ids] of idsOfToken) if (!intents.has(token)) add(`nobody's: token ${token}`, [...ids][0]);
  return { lost, found };
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

/** 2, 7: an attempt is started at most once, and what is recorded is what the handlers say. */
async function runsAgainstLogs(world: World, executions: readonly Execution[]): Promise<Broken[]> {
  const broken: Broken[] = [];
  const byAttempt = new Map<string, Execution>();
  for (const execution of executions) {
    const name = `${execution.task} ${execution.attempt}`;
    if (byAttempt.has(name))
      broken.push({ invariant: 2, what: `attempt ${execution.attempt} was started twice`, task: execution.task });
    byAttempt.set(name, execution);
  }
  const runs = await world.sql<{ task: string; attempt: number; result: string; error: string | null }>(
    "SELECT CAST(task_id AS text) AS task, attempt, result, error_details AS error FROM task_run",
  );
  for (const { task, attempt, result, error } of runs) {
    const execution = byAttempt.get(`${task} ${attempt}`);
    if (result === "SUCCESS" && !execution?.ended)
      broken.push({ invariant: 2, what: `attempt ${attempt} succeeded without an end`, task });
    if (result === "FAILURE" && execution === undefined && !error?.startsWith("abandoned. "))
      broken.push({ invariant: 2, what: `attempt ${attempt} failed without a start`, task });
  }
  const bounds = await world.sql<{ id: string; identifier: string; used: number }>(
    `SELECT CAST(id AS text) AS id, identifier, attempt - forgiven AS used FROM failed_task
     WHERE outcome = 'FAILED' AND attempt - forgiven <> max_attempts`,
  );
  for (const { id, identifier, used } of bounds)
    broken.push({ invariant: 7, what: `${identifier} failed after ${used} attempts`, task: id });
  return broken;
}

async function countersAndOccurrences(world: World): Promise<Broken[]> {
  const counters = await world.sql<{ id: string; what: string }>(`
    SELECT h.invocation_id AS id, format('%s succeeded and %s failed by its counters, %s and %s by its runs', h.succeeded, h.failed, r.succeeded, r.failed) AS what
    FROM heartbeat h LEFT JOIN (
      SELECT invocation_id, count(*) FILTER (WHERE result = 'SUCCESS') AS succeeded,
        count(*) FILTER (WHERE result = 'FAILURE' AND error_details NOT LIKE 'abandoned. %') AS failed
      FROM task_run GROUP BY 1) r USING (invocation_id)
    WHERE (h.succeeded, h.failed) <> (coalesce(r.succeeded, 0), coalesce(r.failed, 0))`);
  const twice = await world.sql<{ occurrence: string; id: string }>(`
    SELECT CAST(occurrence AS text) AS occurrence, CAST(max(id) AS text) AS id FROM (
      SELECT id, occurrence FROM task WHERE occurrence IS NOT NULL UNION SELECT id, occurrence FROM failed_task WHERE occurrence IS NOT NULL
      UNION SELECT task_id, occurrence FROM task_run WHERE occurrence IS NOT NULL) o
    GROUP BY occurrence HAVING count(*) > 1`);
  const held = await world.sql<{ id: string; what: string }>(`
    SELECT CAST(t.id AS text) AS id, format('held by %s, which has ended or expired', t.held_by) AS what
    FROM task t LEFT JOIN heartbeat h ON h.invocation_id = t.held_by
    WHERE t.held_by IS NOT NULL AND (h.invocation_id IS NULL OR h.ended_at IS NOT NULL OR h.expired_at IS NOT NULL)`);
  return [
    ...counters.map(({ id, what }) => ({ invariant: 2, what: `invocation ${id}: ${what}` })),
    ...twice.map(({ occurrence, id }) => ({ invariant: 9, what: `occurrence ${occurrence} twice`, task: id })),
    ...held.map(({ id, what }) => ({ invariant: 3, what, task: id })),
  ];
}
