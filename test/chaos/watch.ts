/** Looks on during a run, for what can only be seen while it lasts. */
import { setTimeout as sleep } from "node:timers/promises";
import { createTaskClient } from "../../lib/index.ts";
import { attemptOf } from "./logs.ts";
import type { Broken, Counts } from "./report.ts";
import { INVOCATION } from "./scheduler.ts";
import { KINDS } from "./tasks.ts";
import type { World } from "./world.ts";

const EVERY_MS = 400;
const COUNT_EVERY_MS = 50;
/** Of a look: an overload's would cost it time. */
const MOST_HOLDS = 500;
/** Of all invocations together, after which a probe is given up. */
const MOST_EXCHANGES = 600;

export class Watch {
  readonly #world: World;
  readonly #graceMs: number;
  readonly #counts: Counts;
  /** Attempts whose holder has exchanged since. */
  readonly #held = new Map<string, string>();
  #overdue = new Set<string>();
  readonly broken: Broken[] = [];
  #stopped = false;
  #running: Promise<unknown> = Promise.resolve();

  constructor(world: World, graceMs: number, counts: Counts) {
    this.#world = world;
    this.#graceMs = graceMs;
    this.#counts = counts;
  }

  start(): void {
    const each = async (ms: number, look: () => Promise<void>): Promise<void> => {
      for (; !this.#stopped; await sleep(ms)) await look();
    };
    this.#running = Promise.all([each(EVERY_MS, () => this.look()), each(COUNT_EVERY_MS, () => this.#count())]);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async look(): Promise<void> {
    await this.#rescues();
    await this.#holds();
    await this.#suspects();
  }

  /** 11: a new number is used only once the last one is answered, so who has gone on was told. */
  untold(told: ReadonlySet<string>): Broken[] {
    this.#counts.add("holds_seen", this.#held.size);
    return [...this.#held]
      .filter(([name]) => !told.has(name))
      .map(([name, task]) => ({ invariant: 11, what: `${name} was held by one that was never told of it`, task }));
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
       WHERE h.seq > t.claim_seq LIMIT $1`,
      [MOST_HOLDS],
    );
    for (const { task, attempt } of rows) this.#held.set(attemptOf(task, attempt), task);
  }

  async #suspects(): Promise<void> {
    const crowded = await this.#world.sql<{ task: string }>(
      `SELECT CAST(min(id) FILTER (WHERE suspect_since IS NOT NULL) AS text) AS task FROM task WHERE held_by IS NOT NULL
       GROUP BY held_by HAVING count(*) > 1 AND bool_or(suspect_since IS NOT NULL)`,
    );
    for (const { task } of crowded) this.broken.push({ invariant: 7, what: "a suspect is held with others", task });
  }

  async #count(): Promise<void> {
    const [row] = await this.#world.sql<{ all: number; of_one: number }>(
      `SELECT CAST(coalesce(sum(n), 0) AS integer) AS all, CAST(coalesce(max(n), 0) AS integer) AS of_one FROM (
         SELECT count(*) AS n FROM pg_stat_activity WHERE starts_with(application_name, $1) GROUP BY application_name) one`,
      [INVOCATION],
    );
    this.#counts.most("pg_connections_max", row!.all);
    this.#counts.most("pg_connections_of_one_max", row!.of_one);
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
