import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, inject } from "vitest";
import { type DataApi, startDataApi } from "../../infra/local/data-api/index.ts";
import { LOCAL } from "../../infra/local/stack.ts";
import { connectDataApi } from "../../lib/database/data-api.ts";
import { connectPg } from "../../lib/database/pg.ts";
import type { Database } from "../../lib/database/port.ts";
import { codeOf } from "../../lib/errors.ts";
import { administer, urlOf } from "./postgres.ts";

export const ADAPTERS = ["pg", "data-api"] as const;
export type AdapterName = (typeof ADAPTERS)[number];

export interface TestDatabase {
  readonly database: Database;
  readonly url: string;
  readonly endpoint: string;
  readonly dataApi: DataApi | undefined;
  /** A look at the tables, past the adapters: search_path is the schema. */
  sql<Row = Record<string, unknown>>(text: string, values?: unknown[]): Promise<Row[]>;
  /** A connection of one's own, with its own transactions. */
  client(): Promise<pg.Client>;
}

process.env.AWS_REGION ??= LOCAL.region;
process.env.AWS_ACCESS_KEY_ID ??= "test";
process.env.AWS_SECRET_ACCESS_KEY ??= "test";

/** A migrated database of this test file's own, dropped at its end. */
export async function openDatabase(adapter: AdapterName, { migrated = true } = {}): Promise<TestDatabase> {
  const server = inject("postgresUrl");
  const name = `stint_test_${randomUUID().replaceAll("-", "").slice(0, 16)}`;
  await administer(server, [`CREATE DATABASE "${name}"${migrated ? ` TEMPLATE "${inject("template")}"` : ""}`]);
  const url = urlOf(server, name);
  const dataApi =
    adapter === "pg"
      ? undefined
      : await startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url, database: name }] });
  const database =
    dataApi === undefined
      ? connectPg({ url, schema: "task_processor", maxConnections: 8 })
      : connectDataApi({ ...LOCAL, database: name, schema: "task_processor", endpoint: dataApi.endpoint });
  const pool = new pg.Pool({ connectionString: url, max: 4, options: "-c search_path=task_processor" });
  const clients: pg.Client[] = [];
  pool.on("error", () => {});
  afterAll(async () => {
    for (const client of clients) await client.end().catch(() => {});
    await pool.end();
    await database.close();
    await dataApi?.close();
    await administer(server, [`DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`]);
  });
  return {
    database,
    url,
    endpoint: dataApi?.endpoint ?? "",
    dataApi,
    async sql<Row>(text: string, values: unknown[] = []) {
      return (await pool.query(text, values)).rows as Row[];
    },
    async client() {
      const client = new pg.Client({ connectionString: url, options: "-c search_path=task_processor" });
      client.on("error", () => {});
      await client.connect();
      clients.push(client);
      return client;
    },
  };
}

const EMPTY =
  "TRUNCATE task, failed_task, task_run, slot, heartbeat, release, release_task, recurring_task, paused_identifier, serial_gap, enqueue_request, health_check, audit, run_counter RESTART IDENTITY CASCADE";

/** Empties every table, so that each test starts alone. A process that was just killed may still have a call under way, and the two may wait for each other. */
export async function reset(db: TestDatabase): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await db.sql(EMPTY);
      return;
    } catch (error) {
      if (codeOf(error) !== "40P01" || tries === 5) throw error;
    }
  }
}
