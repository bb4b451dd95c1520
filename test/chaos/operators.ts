/** An operator who acts meanwhile, and clean-up. Each deletion is written down with what was told of it. */
import { setTimeout as sleep } from "node:timers/promises";
import { cleanUp } from "../../lib/clean-up.ts";
import type { Database } from "../../lib/database/port.ts";
import { codeOf } from "../../lib/errors.ts";
import { type ActionInput, createOperator, type Operator } from "../../lib/operate.ts";
import type { Random } from "./random.ts";
import type { Counts } from "./report.ts";
import { KINDS } from "./tasks.ts";
import type { World } from "./world.ts";

const ACTS = {
  cancel: 30,
  cancel_matching: 5,
  delete: 25,
  retry: 20,
  run_now: 8,
  set_priority: 8,
  clean_up: 10,
} as const;

/** As many of the last tasks: some wait, some run, some have ended. */
const LATEST = 40;
const RETENTION = {
  enabled: true,
  retentionDays: 7,
  recurringRetentionDays: 7,
  includeFailedTasks: true,
  batchSize: 5,
  runTime: "00:00",
  runEverySeconds: 1,
};

export class Operators {
  /** Of those asked to be deleted: gone, as it was told, or unsure. */
  readonly deletions = new Map<string, "gone" | "unsure">();
  /** Tasks asked to be cancelled, and identifiers all of whose tasks were. */
  readonly cancelled = new Set<string>();
  readonly #world: World;
  readonly #random: Random;
  readonly #counts: Counts;
  readonly #ids: readonly string[];
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  /** @param ids of tasks, growing as they are stored */
  constructor(world: World, random: Random, counts: Counts, ids: readonly string[]) {
    this.#world = world;
    this.#random = random;
    this.#counts = counts;
    this.#ids = ids;
  }

  start(): void {
    this.#running = this.#loop();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #loop(): Promise<void> {
    const databases = [this.#world.connect("pg"), this.#world.connect("data-api")];
    const deal = this.#random.deal(ACTS);
    while (!this.#stopped) {
      await sleep(this.#random.between(20, 250));
      const database = this.#random.pick(databases);
      try {
        await this.#do(deal.next(), database);
      } catch (error) {
        this.#counts.add(`operator.refused.${codeOf(error) ?? "other"}`);
      }
    }
    for (const database of databases) await database.close();
  }

  async #do(act: keyof typeof ACTS, database: Database): Promise<void> {
    const operator = createOperator({ databases: [database], who: "chaos" });
    if (act === "clean_up") return await this.#cleanUp(database);
    const ids = act === "retry" ? await this.#failed() : this.#some(this.#ids.slice(-LATEST));
    if (ids.length === 0) return;
    if (act === "delete") return await this.#delete(operator, ids);
    // Before it is asked: it may be done without an answer.
    if (act === "cancel") for (const id of ids) this.cancelled.add(id);
    if (act === "cancel_matching") this.cancelled.add(KINDS.slow.identifier);
    const { count } = await operator.act(this.#actionOf(act, ids));
    this.#counts.add(`operator.${act}`, count);
  }

  #actionOf(act: Exclude<keyof typeof ACTS, "clean_up" | "delete">, ids: string[]): ActionInput {
    const waits = { filter: { state: "scheduled" } } as const;
    switch (act) {
      case "cancel_matching":
        return { action: "cancel", filter: { identifier: KINDS.slow.identifier } };
      case "run_now":
        return { action: act, ...waits };
      case "set_priority":
        return { action: act, ...waits, priority: this.#random.pick([0, 50, 100]) };
      default:
        return { action: act, ids };
    }
  }

  async #delete(operator: Operator, ids: readonly string[]): Promise<void> {
    const asked = ids.filter((id) => !this.deletions.has(id));
    if (asked.length === 0) return;
    for (const id of asked) this.deletions.set(id, "unsure");
    const { count } = await operator.act({ action: "delete", ids: asked });
    this.#counts.add("operator.delete", count);
    if (count === asked.length) for (const id of asked) this.deletions.set(id, "gone");
    if (count === 0) for (const id of asked) this.deletions.delete(id);
  }

  /** Of tasks of any age some are made old by moving rows; only what has ended and is old may go. */
  async #cleanUp(database: Database): Promise<void> {
    const ids = [...this.#some(this.#ids), ...this.#some(this.#ids), ...(await this.#failed())];
    await this.#world.sql(
      `WITH one AS (
        SELECT CAST(unnest(CAST($1 AS text[])) AS bigint) AS id
        UNION SELECT task_id FROM (SELECT task_id FROM task_run WHERE occurrence IS NOT NULL ORDER BY finished_at DESC LIMIT 1) latest),
      runs AS (UPDATE task_run SET finished_at = finished_at - interval '8 days' FROM one WHERE task_id = one.id),
      failed AS (UPDATE failed_task f SET failed_at = failed_at - interval '8 days' FROM one WHERE f.id = one.id RETURNING f.id)
      INSERT INTO chaos.aged SELECT id FROM failed ON CONFLICT DO NOTHING`,
      [ids],
    );
    const removed = await cleanUp(database, RETENTION, AbortSignal.timeout(5000));
    this.#counts.add("operator.clean_up_runs", removed.task_run! + removed.recurring_run!);
    this.#counts.add("operator.clean_up_failed", removed.failed_task!);
  }

  async #failed(): Promise<string[]> {
    const rows = await this.#world.sql<{ id: string }>(
      "SELECT CAST(id AS text) AS id FROM failed_task ORDER BY failed_at DESC LIMIT $1",
      [LATEST],
    );
    return this.#some(rows.map(({ id }) => id));
  }

  #some(ids: readonly string[]): string[] {
    if (ids.length === 0) return [];
    return [...new Set(Array.from({ length: this.#random.below(4) + 1 }, () => this.#random.pick(ids)))];
  }
}
