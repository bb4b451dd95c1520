/** Invariant 8: enqueued = unfinished + succeeded + failed + cancelled + deleted + purged, task by task. */
import type { Intent } from "./intents.ts";
import type { Execution } from "./logs.ts";
import type { Operators } from "./operators.ts";

import type { Broken } from "./report.ts";

export interface Stored {
  readonly id: string;
  /** Null: it was stored once, and is nowhere. Purged: it succeeded, and clean-up has removed its runs. */
  readonly state: "unfinished" | "SUCCEEDED" | "FAILED" | "CANCELLED" | "PURGED" | null;
  /** Of the payload it was first stored with. Null: nobody has seen it being stored. */
  readonly token: string | null;
  /** Of the payload it has now, or of what it returned, where that is kept. */
  readonly last: string | null;
}

export const STORED = `
  SELECT CAST(coalesce(s.task, f.id) AS text) AS id, f.state, s.token, f.token AS last FROM chaos.stored s FULL JOIN (
    SELECT id, 'unfinished' AS state, payload->>'token' AS token FROM task
    UNION ALL SELECT id, outcome, payload->>'token' FROM failed_task
    UNION ALL SELECT task_id, 'SUCCEEDED', result_value->>'token' FROM task_run WHERE task_outcome = 'SUCCEEDED'
    UNION ALL SELECT task_id, 'PURGED', result_value->>'token' FROM chaos.purged_run WHERE task_outcome = 'SUCCEEDED') f ON f.id = s.task`;

export interface Books {
  readonly stored: readonly Stored[];
  readonly intents: ReadonlyMap<string, Intent>;
  readonly executions: readonly Pick<Execution, "token" | "task">[];
  readonly deletions: Operators["deletions"];
  /** Failed tasks that clean-up may have removed. */
  readonly aged: ReadonlySet<string>;
  /** Tasks that the product says were deleted or purged. */
  readonly counted: number;
}

export interface Account {
  readonly lost: number;
  readonly states: Readonly<Record<string, number>>;
  readonly found: readonly Broken[];
}

export function accountFor({ stored, intents, executions, deletions, aged, counted }: Books): Account {
  const found: Broken[] = [];
  const lost = new Set<string>();
  const add = (what: string, task?: string): void => void found.push({ invariant: 8, what, task });
  const states = new Map<string, string>();
  const idsOfToken = new Map<string, Set<string>>();
  const name = (token: string | null, id: string): void => {
    if (token === null || token === "tick") return;
    const ids = idsOfToken.get(token) ?? new Set<string>();
    idsOfToken.set(token, ids.add(id));
  };
  let gone = 0;
  for (const { id, state, token, last } of stored) {
    name(token, id);
    name(last, id);
    if (states.has(id)) add(`a task is both ${states.get(id)} and ${state}`, id);
    if (state !== null && deletions.get(id) === "gone") add(`a task was told to be deleted, and is ${state}`, id);
    if (state === null) {
      gone += 1;
      // Retention keeps what failed lately: only what was made old may be gone without having been asked for.
      if (deletions.has(id)) states.set(id, "deleted");
      else if (aged.has(id)) states.set(id, "purged");
      else {
        lost.add(id);
        add(`a task was stored, and is nowhere: token ${token}`, id);
      }
    } else states.set(id, state.toLowerCase());
  }
  if (gone - lost.size !== counted)
    add(`${gone} tasks are gone, ${lost.size} of them lost; its own counters say: ${counted}`);
  for (const { token, task } of executions) {
    name(token, task);
    if (!states.has(task)) add("a task ran that is not in the database", task);
  }
  for (const { token, fate, id } of intents.values()) {
    const ids = idsOfToken.get(token);
    if (fate === "stored" && (!states.has(id!) || !ids?.has(id!))) {
      lost.add(id!);
      add(`a task was told to be stored and is not: token ${token}`, id);
    }
    if (fate === "shares_key" && id !== undefined && !states.has(id)) {
      lost.add(id);
      add(`a keyed task was told to be stored and is not: token ${token}`, id);
    }
    if (fate === "not_stored" && ids !== undefined) add(`rolled back, and there: token ${token}`, [...ids][0]);
    if (ids !== undefined && ids.size > 1) add(`stored ${ids.size} times: token ${token}`, [...ids].at(-1));
  }
  for (const [token, ids] of idsOfToken) if (!intents.has(token)) add(`nobody's: token ${token}`, [...ids][0]);
  const counts: Record<string, number> = {};
  for (const state of states.values()) counts[state] = (counts[state] ?? 0) + 1;
  return { lost: lost.size, states: counts, found };
}
