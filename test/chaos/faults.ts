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

  /** Resolves when everything is as it should be. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await this.#world.dataApi.faults.clear();
    await this.#world.sql("UPDATE chaos.fault SET disk_full = 0");
    for (const [name, count] of Object.entries(await this.#world.dataApi.faults.injected()))
      this.#counts.add(`data_api.${name}`, count);
  }

  async #loop(): Promise<void> {
    while (!this.#stopped) {
      await sleep(this.#random.between(100, 1200));
      if (this.#stopped) break;
      const fault = this.#random.weighted(DATABASE_FAULTS);
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
    while (!this.#stopped) {
      const { graceMs } = this.#world;
      if (this.#random.chance(0.15)) {
        // Those behind the Data API reach nothing for longer than the grace period; those over pg go on, and take their tasks.
        this.#counts.add("data_api.partition");
        await this.#world.dataApi.faults.set({ dropBefore: 1 });
        await sleep(this.#random.between(1.2, 2.5) * graceMs);
      } else {
        await this.#world.dataApi.faults.set(this.#apiFaults());
        await sleep(this.#random.between(300, 1500));
      }
      await this.#world.dataApi.faults.clear();
      await sleep(this.#random.between(100, 800));
    }
  }

  #apiFaults(): FaultOptions {
    const seed = this.#random.below(2 ** 31);
    const often = this.#random.pick([0.03, 0.1, 0.3]);
    const one = this.#random.pick([
      "dropBefore",
      "throttle",
      "serverError",
      "statementTimeout",
      "commitThenDrop",
      "commitThenError",
      "latencyMs",
      "resumingForMs",
      "all",
    ] as const);
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
        return { seed, [one]: often };
    }
  }
}
