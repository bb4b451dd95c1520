/** Looks on during a run, for what can only be seen while it lasts. */
import { setTimeout as sleep } from "node:timers/promises";
import { createTaskClient } from "../../lib/index.ts";
import type { Execution } from "./invariants.ts";
import type { Broken, Counts } from "./report.ts";
import { KINDS } from "./tasks.ts";
import type { World } from "./world.ts";

const EVERY_MS = 400;
/** Of all invocations together, after which a probe is given up. */
const MOST_EXCHANGES = 600;

export class Watch {
  readonly #world: World;
  readonly #graceMs: number;
  readonly #counts: Counts;
  /** Held for long by one that lives: it must have been told. */
  readonly #held = new Map<string, { task: string; attempt: number }>();
  #overdue = new Set<string>();
  readonly broken: Broken[] = [];
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(world: World, graceMs: number, counts: Counts) {
    this.#world = world;
    this.#graceMs = graceMs;
    this.#counts = counts;
  }

  start(): void {
    this.#running = this.#loop();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  /** 11: what a living invocation held for long was started in its process. */
  untold(executions: readonly Execution[]): Broken[] {
    const started = new Set(executions.map(({ task, attempt }) => `${task} ${attempt}`));
    return [...this.#held]
      .filter(([name]) => !started.has(name))
      .map(([, { task, attempt }]) => ({
        invariant: 11,
        what: `attempt ${attempt} was held by a living invocation and never started`,
        task,
      }));
  }

  async #loop(): Promise<void> {
    while (!this.#stopped) {
      await sleep(EVERY_MS);
      await this.#rescues();
      await this.#holds();
      const [{ connections } = { connections: 0 }] = await this.#world.sql<{ connections: number }>(
        "SELECT CAST(count(*) AS integer) AS connections FROM pg_stat_activity WHERE application_name = 'stint'",
      );
      this.#counts.most("pg_connections_max", connections);
    }
  }

  /** 5: witnesses exchange each grace/4; one that did so for half a grace period after the lease's end has overlooked it. */
  async #rescues(): Promise<void> {
    const rows = await this.#world.sql<{ id: string }>(
      `SELECT d.invocation_id AS id FROM heartbeat d WHERE d.ended_at IS NULL AND d.expired_at IS NULL AND EXISTS (
         SELECT FROM heartbeat w WHERE w.ended_at IS NULL AND w.expired_at IS NULL AND w.invocation_id <> d.invocation_id
           AND w.last_seen_at - w.seen_since >= $1 * interval '1.25 milliseconds'
           AND w.last_seen_at > d.last_seen_at + $1 * interval '1.75 milliseconds')`,
      [this.#graceMs],
    );
    const now = new Set(rows.map(({ id }) => id));
    for (const id of now)
      if (this.#overdue.has(id))
        this.broken.push({ invariant: 5, what: `invocation ${id} is silent, and a witness lets it be` });
    this.#overdue = now;
  }

  async #holds(): Promise<void> {
    const rows = await this.#world.sql<{ task: string; attempt: number }>(
      `SELECT CAST(t.id AS text) AS task, t.attempt FROM task t JOIN heartbeat h ON h.invocation_id = t.held_by
       WHERE h.last_seen_at > t.held_since + $1 * interval '2 milliseconds' AND h.expired_at IS NULL`,
      [this.#graceMs],
    );
    const crowded = await this.#world.sql<{ task: string }>(
      `SELECT CAST(min(id) FILTER (WHERE suspect_since IS NOT NULL) AS text) AS task FROM task WHERE held_by IS NOT NULL
       GROUP BY held_by HAVING count(*) > 1 AND bool_or(suspect_since IS NOT NULL)`,
    );
    for (const { task } of crowded) this.broken.push({ invariant: 7, what: "a suspect is held with others", task });
    for (const row of rows) this.#held.set(`${row.task} ${row.attempt}`, row);
  }
}

const exchangesOf = async (world: World): Promise<number> =>
  (await world.sql<{ sum: number }>("SELECT CAST(coalesce(sum(seq), 0) AS float8) AS sum FROM heartbeat"))[0]!.sum;

/** 6: counted in exchanges of an idle resident, not in time: one, or those of a second for what lies below its floor. */
export async function probe(world: World, sleepIntervalMs: number, count: number, counts: Counts): Promise<Broken[]> {
  const broken: Broken[] = [];
  const database = world.connect("pg");
  const client = createTaskClient({ database });
  for (let left = count; left > 0; left -= 1) {
    const answer = await client.enqueue(KINDS.quick, { token: "tick" });
    const id = "id" in answer ? answer.id : "";
    const before = await exchangesOf(world);
    const seats = await world.sql<{ invocation: string; seq: number }>(
      "SELECT invocation_id AS invocation, seq FROM heartbeat WHERE ended_at IS NULL AND expired_at IS NULL",
    );
    let claim: { invocation: string; seq: number } | undefined;
    while (claim === undefined && (await exchangesOf(world)) - before < MOST_EXCHANGES) {
      await sleep(20);
      [claim] = await world.sql<{ invocation: string; seq: number }>(
        "SELECT invocation, seq FROM chaos.claim WHERE task = $1",
        [id],
      );
    }
    if (claim === undefined) {
      broken.push({ invariant: 6, what: "a due task was not claimed", task: id });
      continue;
    }
    const seat = seats.find(({ invocation }) => invocation === claim.invocation);
    // Its seat may have been given up between the claim and the look.
    if (seat === undefined) continue;
    const exchanges = claim.seq - seat.seq;
    counts.add("probes");
    counts.most("probe_exchanges_max", exchanges);
    if (exchanges > 2 + Math.ceil(1000 / sleepIntervalMs))
      broken.push({ invariant: 6, what: `a due task was claimed after ${exchanges} exchanges`, task: id });
  }
  await database.close();
  return broken;
}
