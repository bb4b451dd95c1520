/** What happens to the database and to the Data API, one thing after the other, each for a while. */
import { renameSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { FaultOptions } from "../../infra/local/data-api/options.ts";
import type { Random } from "./random.ts";
import type { Counts } from "./report.ts";
import type { World } from "./world.ts";

const DATABASE_FAULTS = {
  connections_cut: 30,
  one_connection_cut: 30,
  statement_cancelled: 30,
  disk_full: 15,
  old_snapshot: 8,
  immediate_restart: 6,
  failover: 4,
} as const;

const API_FAULTS = {
  dropBefore: 1,
  throttle: 1,
  serverError: 1,
  statementTimeout: 1,
  commitThenDrop: 1,
  commitThenError: 1,
  latencyMs: 1,
  resumingForMs: 1,
  all: 1,
  partition: 1.6,
} as const;

const OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
const FAILOVER_MS = 2000;

export class DatabaseFaults {
  readonly #world: World;
  readonly #random: Random;
  readonly #counts: Counts;
  #stopped = false;
  #running: Promise<unknown> = Promise.resolve();

  constructor(world: World, random: Random, counts: Counts) {
    this.#world = world;
    this.#random = random;
    this.#counts = counts;
  }

  start(): void {
    this.#running = Promise.all([this.#loop(), this.#dataApi()]);
  }

  /** Resolves when each fault has been there and everything is as it should be. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await this.#world.dataApi.faults.clear();
    await this.#world.sql("UPDATE chaos.fault SET disk_full = 0");
    for (const [name, count] of Object.entries(await this.#world.dataApi.faults.injected()))
      this.#counts.add(`data_api.${name}`, count);
  }

  async #loop(): Promise<void> {
    const deal = this.#random.deal(DATABASE_FAULTS);
    while (!this.#stopped || deal.left > 0) {
      await sleep(this.#random.between(100, 1200));
      const fault = deal.next();
      this.#counts.add(`database.${fault}`);
      await this.#strike(fault);
    }
  }

  async #strike(fault: keyof typeof DATABASE_FAULTS): Promise<void> {
    const { sql, postgres } = this.#world;
    switch (fault) {
      case "connections_cut":
        await sql(`SELECT pg_terminate_backend(pid) ${OTHERS}`);
        break;
      case "one_connection_cut":
        await sql(
          `SELECT pg_terminate_backend(pid) FROM (SELECT pid ${OTHERS} ORDER BY state = 'active' DESC, random() LIMIT 1) one`,
        );
        break;
      case "statement_cancelled":
        // What a statement timeout does, 57014, at any moment of a call.
        for (let times = 20; times > 0; times -= 1) {
          await sql(`SELECT pg_cancel_backend(pid) ${OTHERS} AND state = 'active'`);
          await sleep(this.#random.between(1, 20));
        }
        break;
      case "disk_full":
        await sql("UPDATE chaos.fault SET disk_full = $1", [this.#random.pick([0.05, 0.3, 1])]);
        await sleep(this.#random.between(100, 800));
        await sql("UPDATE chaos.fault SET disk_full = 0");
        break;
      case "old_snapshot":
        await this.#holdSnapshot();
        break;
      case "immediate_restart":
        await postgres.restart("immediate");
        break;
      case "failover":
        await this.#failover();
    }
  }

  async #holdSnapshot(): Promise<void> {
    const client = new pg.Client({ connectionString: this.#world.postgres.url });
    client.on("error", () => {});
    try {
      await client.connect();
      await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
      await client.query("SELECT count(*) FROM task_processor.task");
    } catch {
      return;
    }
    // Other faults go on meanwhile, and may end it.
    void sleep(this.#random.between(2000, 6000)).then(() => client.end().catch(() => {}));
  }

  /** The old writer is gone, the new one not yet there: connections are cut, and refused for two seconds. */
  async #failover(): Promise<void> {
    const { sql, postgres } = this.#world;
    const socket = join(decodeURIComponent(/@([^:/]+)/.exec(postgres.url)![1]!), ".s.PGSQL.5432");
    renameSync(socket, `${socket}.away`);
    await sql(`SELECT pg_terminate_backend(pid) ${OTHERS}`).catch(() => {});
    await sleep(FAILOVER_MS);
    renameSync(`${socket}.away`, socket);
  }

  async #dataApi(): Promise<void> {
    const deal = this.#random.deal(API_FAULTS);
    const { faults } = this.#world.dataApi;
    while (!this.#stopped || deal.left > 0) {
      const first = deal.left > 0;
      const fault = deal.next();
      if (fault === "partition") {
        // Those behind the Data API reach nothing for longer than the grace period; those over pg go on, and take their tasks.
        this.#counts.add("data_api.partition");
        await faults.set({ dropBefore: 1 });
        await sleep(this.#random.between(1.2, 2.5) * this.#world.graceMs);
      } else {
        const times = async (): Promise<number> => (await faults.injected())[fault] ?? 0;
        const before = await times();
        await faults.set(this.#apiFaults(fault, first));
        do await sleep(this.#random.between(300, 1200));
        while (first && fault !== "all" && (await times()) === before);
      }
      await faults.clear();
      await sleep(this.#random.between(50, 400));
    }
  }

  #apiFaults(one: Exclude<keyof typeof API_FAULTS, "partition">, first: boolean): FaultOptions {
    const seed = this.#random.below(2 ** 31);
    switch (one) {
      case "latencyMs":
        return { seed, latencyMs: this.#random.between(10, 300) };
      case "resumingForMs":
        return { seed, resumingForMs: this.#random.between(100, 1000) };
      case "all":
        return {
          seed,
          latencyMs: 20,
          dropBefore: 0.03,
          throttle: 0.03,
          serverError: 0.03,
          statementTimeout: 0.03,
          commitThenDrop: 0.05,
          commitThenError: 0.05,
        };
      default:
        return { seed, [one]: first ? 0.3 : this.#random.pick([0.03, 0.1, 0.3]) };
    }
  }
}
