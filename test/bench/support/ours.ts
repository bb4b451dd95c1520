/** Our side of the bench: a migrated database, tasks in it, invocations that drain it. */
import pg from "pg";
import * as z from "zod/mini";
import { LOCAL } from "../../../infra/local/stack.ts";
import { connectDataApi } from "../../../lib/database/data-api.ts";
import { connectPg } from "../../../lib/database/pg.ts";
import type { Database } from "../../../lib/database/port.ts";
import { createTaskClient } from "../../../lib/enqueue.ts";
import { silentLog } from "../../../lib/log.ts";
import { createRegistry } from "../../../lib/registry.ts";
import { migrate } from "../../../lib/sql/migrate.ts";
import { defineTask, type TaskHandler } from "../../../lib/task.ts";
import { type InvocationOptions, type InvocationReport, runInvocation } from "../../../lib/worker.ts";
import { type Arena, type FreshDatabase, filled, type Statistics } from "./arena.ts";
import { type Clocked, clocked } from "./clock.ts";
import { serveDataApi } from "./servers.ts";
import { Tally } from "./tally.ts";

// The stand-in takes any credentials; the SDK wants some.
process.env.AWS_ACCESS_KEY_ID ??= "bench";
process.env.AWS_SECRET_ACCESS_KEY ??= "bench";

export const SCHEMA = "task_processor";
export const nothing = defineTask({ identifier: "bench.nothing", payload: z.object({ n: z.number() }) });

export interface Ours extends FreshDatabase {
  /** Over pg. */
  readonly database: Database;
  /** One connection, past the adapters; search_path is the schema. */
  readonly client: pg.Client;
}

export const inOurs = <T>(arena: Arena, work: (ours: Ours) => Promise<T>): Promise<T> =>
  arena.inFresh(async (fresh) => {
    const database = connectPg({ url: fresh.url, schema: SCHEMA });
    const client = new pg.Client({ connectionString: fresh.url, options: `-c search_path=${SCHEMA}` });
    try {
      await migrate(database);
      await client.connect();
      return await work({ ...fresh, database, client });
    } finally {
      await client.end();
      await database.close();
    }
  });

/** Databases side by side, by name: contestants of one interleaved measurement. */
export function inOursEach<T>(
  arena: Arena,
  names: readonly string[],
  work: (each: Readonly<Record<string, Ours>>) => Promise<T>,
  each: Readonly<Record<string, Ours>> = {},
): Promise<T> {
  const [name, ...rest] = names;
  if (name === undefined) return work(each);
  return inOurs(arena, (ours) => inOursEach(arena, rest, work, { ...each, [name]: ours }));
}

export interface Filling {
  readonly count: number;
  readonly identifier?: string;
  /** SQL over n, 0 to count - 1. */
  readonly payload?: string;
  readonly scheduledFor?: string;
  readonly priority?: string;
}

/** Tasks due in the order of n, by one statement on the server: for tables whose size is what is measured. */
export async function fill(
  { client }: Pick<Ours, "client">,
  {
    count,
    identifier = nothing.identifier,
    payload = "jsonb_build_object('n', n)",
    scheduledFor = "now() - interval '1 hour' + n * interval '1 microsecond'",
    priority = "50",
  }: Filling,
): Promise<void> {
  await client.query(
    `INSERT INTO task (identifier, payload, scheduled_for, priority)
    SELECT $1, ${payload}, ${scheduledFor}, ${priority} FROM generate_series(0, CAST($2 AS bigint) - 1) AS n`,
    [identifier, count],
  );
}

export const settingsOf = (queuePopSize: number, sleepIntervalMs = 50) => ({
  sleepIntervalMs,
  graceMs: 20_000,
  queuePopSize,
  backoffDefaultMs: 5000,
  invocationMs: null,
});

/** An invocation for one database that leaves when nothing is due. */
export const invoke = (
  database: Database,
  handlers: readonly TaskHandler[],
  options: Pick<InvocationOptions, "slot" | "settings"> & Partial<InvocationOptions>,
): Promise<InvocationReport> =>
  runInvocation({
    databases: [database],
    registry: createRegistry(handlers, null),
    resident: false,
    log: silentLog,
    ...options,
  });

export interface DrainOptions {
  readonly tasks: number;
  /** The queue pop size. */
  readonly batch: number;
  readonly workers: number;
  readonly through: "pg" | "data-api";
  readonly statistics?: Statistics;
}

export interface Drained extends Clocked {
  readonly requests: number;
}

/** No-op tasks, from the start of the workers to the end of the last one. */
export const drainOurs = (
  arena: Arena,
  { tasks, batch, workers, through, statistics = "of all" }: DrainOptions,
): Promise<Drained> =>
  inOurs(arena, async (ours) => {
    await filled(statistics, ours, async () => {
      await createTaskClient({ database: ours.database }).enqueueMany(
        nothing,
        Array.from({ length: tasks }, (_, n) => ({ n })),
      );
    });
    const tally = new Tally("ours", tasks);
    const handlers = [nothing.handle(({ n }) => tally.run(n))];
    return await connected(ours, through, workers, async (databases) => {
      let requests = 0;
      const took = await clocked(arena.postmaster, tasks, async () => {
        const reports = await Promise.all(
          databases.map((database, slot) => invoke(database, handlers, { slot, settings: settingsOf(batch) })),
        );
        requests = reports.reduce((sum, report) => sum + report.requests, 0);
      });
      tally.check();
      await checkHistory(ours, tasks);
      return { ...took, requests };
    });
  });

/** A database handle for each worker: one pool over pg, a client each over the Data API as in functions of their own. */
async function connected<T>(
  { database, name, url }: Ours,
  through: "pg" | "data-api",
  workers: number,
  work: (databases: readonly Database[]) => Promise<T>,
): Promise<T> {
  if (through === "pg") return await work(Array.from({ length: workers }, () => database));
  const api = await serveDataApi(url);
  const clients = Array.from({ length: workers }, () =>
    connectDataApi({ ...LOCAL, database: name, schema: SCHEMA, endpoint: api.endpoint }),
  );
  try {
    return await work(clients);
  } finally {
    for (const client of clients) await client.close();
    await api.stop();
  }
}

/** @throws Error unless no task is left and each has one successful run */
export async function checkHistory({ client }: Pick<Ours, "client">, tasks: number): Promise<void> {
  const { rows } = await client.query(
    `SELECT CAST((SELECT count(*) FROM task) AS integer) AS left,
      CAST((SELECT count(DISTINCT task_id) FROM task_run WHERE result = 'SUCCESS') AS integer) AS runs`,
  );
  if (rows[0].left !== 0 || rows[0].runs !== tasks)
    throw new Error(`ours: ${rows[0].left} tasks left, ${rows[0].runs} of ${tasks} runs in the history.`);
}
