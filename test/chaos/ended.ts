/** The end of a run: all has ended, or what is known of why not. */
import { setTimeout as sleep } from "node:timers/promises";
import { linesOf } from "./logs.ts";
import type { Broken } from "./report.ts";
import type { World } from "./world.ts";

/** So many exchanges of invocations without a mishap, and nothing has changed: it never will. Not a time: the machine may be busy. */
const STUCK_EXCHANGES = 600;
/** So long without any exchange, though ticks come every few seconds: nobody can. */
const SILENT_MS = 60_000;

/** 6, 8: without faults the queue runs empty. */
export async function allEnded(world: World, write: (line: string) => void): Promise<Broken[]> {
  let last = "";
  let changedAt = 0;
  let exchanges = -1;
  let exchangedAt = performance.now();
  for (;;) {
    const askedAt = performance.now();
    const [row] = await world.sql<{ left: string; runs: string; exchanges: number }>(
      `SELECT (SELECT count(*) FROM task WHERE occurrence IS NULL) AS left, (SELECT count(*) FROM task_run WHERE occurrence IS NULL) AS runs,
         (SELECT CAST(coalesce(sum(seq), 0) AS float8) FROM heartbeat) AS exchanges`,
    );
    if (row!.left === "0") return [];
    const now = `${row!.left} ${row!.runs}`;
    if (now !== last) changedAt = row!.exchanges;
    last = now;
    if (row!.exchanges !== exchanges) exchangedAt = askedAt;
    exchanges = row!.exchanges;
    if (exchanges - changedAt > STUCK_EXCHANGES || askedAt - exchangedAt > SILENT_MS) {
      write(`stuck: ${row!.left} tasks are left`);
      const stuck = await world.sql<{ task: string; what: string }>(
        "SELECT CAST(id AS text) AS task, CAST(to_jsonb(t) AS text) AS what FROM task t ORDER BY id LIMIT 20",
      );
      return stuck.map(({ task, what }) => ({ invariant: 6, what: `never ended: ${what}`, task }));
    }
    // To count a million takes a while.
    await sleep(Math.min(5000, Math.max(300, 20 * (performance.now() - askedAt))));
  }
}

/** All that is known of the first tasks concerned. */
export async function history(world: World, broken: readonly Broken[], write: (line: string) => void): Promise<void> {
  const concerned = [...new Set(broken.flatMap(({ task }) => task ?? []))].slice(0, 5);
  for (const { invariant, what, task } of broken.slice(0, 50))
    write(`broken ${invariant}: ${what}${task === undefined ? "" : ` (task ${task})`}`);
  for (const task of concerned) {
    write(`\ntask ${task}`);
    for (const [table, id] of [
      ["task", "id"],
      ["failed_task", "id"],
      ["task_run", "task_id"],
      ["chaos.claim", "task"],
      ["chaos.violation", "task"],
    ]) {
      for (const { row } of await world.sql<{ row: object }>(
        `SELECT to_jsonb(t) AS row FROM ${table} t WHERE ${id} = $1`,
        [task],
      ))
        write(`  ${table} ${JSON.stringify(row)}`);
    }
    for (const { row } of await world.sql<{ row: object }>(
      "SELECT to_jsonb(h) AS row FROM heartbeat h WHERE invocation_id IN (SELECT invocation FROM chaos.claim WHERE task = $1)",
      [task],
    ))
      write(`  heartbeat ${JSON.stringify(row)}`);
    for (const line of linesOf(world, task)) write(`  ${line}`);
  }
}
