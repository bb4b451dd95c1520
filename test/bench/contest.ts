/** One Postgres, and a fresh database for each turn: what one contestant left behind must not weigh on the next. */
import { randomUUID } from "node:crypto";
import * as z from "zod/mini";
import { type DataApi, startDataApi } from "../../infra/local/data-api/index.ts";
import { type LocalPostgres, startPostgres } from "../../infra/local/postgres.ts";
import { LOCAL } from "../../infra/local/stack.ts";
import { connectDataApi } from "../../lib/database/data-api.ts";
import { connectPg } from "../../lib/database/pg.ts";
import type { Database } from "../../lib/database/port.ts";
import { createTaskClient } from "../../lib/enqueue.ts";
import { silentLog } from "../../lib/log.ts";
import { createRegistry } from "../../lib/registry.ts";
import { migrate } from "../../lib/sql/migrate.ts";
import { defineTask } from "../../lib/task.ts";
import { runInvocation } from "../../lib/worker.ts";
import { administer } from "../support/postgres.ts";
import { rounded } from "./measure.ts";

export interface Arena {
  readonly postgres: LocalPostgres;
  /** A new, empty database; dropped after the turn. */
  inFresh<T>(turn: (database: { name: string; url: string }) => Promise<T>): Promise<T>;
}

// The stand-in takes any credentials; the SDK wants some.
process.env.AWS_ACCESS_KEY_ID ??= "bench";
process.env.AWS_SECRET_ACCESS_KEY ??= "bench";

/** Durable as in production: fsync and synchronous_commit stay on. */
export async function inArena<T>(work: (arena: Arena) => Promise<T>): Promise<T> {
  const postgres = await startPostgres({
    settings: { max_connections: "200", shared_buffers: "512MB", max_wal_size: "4GB" },
  });
  try {
    return await work({
      postgres,
      async inFresh(turn) {
        const name = `bench_${randomUUID().slice(0, 8)}`;
        await administer(postgres.url, [`CREATE DATABASE "${name}"`]);
        try {
          return await turn({ name, url: postgres.urlOf(name) });
        } finally {
          await administer(postgres.url, [`DROP DATABASE "${name}" WITH (FORCE)`]);
        }
      },
    });
  } finally {
    await postgres.stop("immediate");
  }
}

export interface Drained {
  readonly tasksPerSecond: number;
  readonly requests: number;
}

export const nothing = defineTask({ identifier: "bench.nothing", payload: z.object({ n: z.number() }) });

export interface OursOptions {
  readonly tasks: number;
  readonly batch: number;
  readonly workers: number;
  readonly through: "pg" | "data-api";
}

/** Ours: that each task ran once and its history is complete is checked, not believed. */
export function drainOurs(arena: Arena, { tasks, batch, workers, through }: OursOptions): Promise<Drained> {
  return arena.inFresh(async ({ name, url }) => {
    const setUp = connectPg({ url, schema: "task_processor" });
    let api: DataApi | undefined;
    const open: Database[] = [setUp];
    try {
      await migrate(setUp);
      const client = createTaskClient({ database: setUp, runMethod: "TASK_PROCESSOR" });
      await client.enqueueMany(
        nothing,
        Array.from({ length: tasks }, (_, n) => ({ n })),
      );
      if (through === "data-api")
        api = await startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url, database: name }] });
      const ran = new Uint8Array(tasks);
      const registry = createRegistry(
        [
          nothing.handle(async ({ n }) => {
            ran[n]! += 1;
          }),
        ],
        null,
      );
      const settings = {
        sleepIntervalMs: 50,
        graceMs: 20_000,
        queuePopSize: batch,
        backoffDefaultMs: 5000,
        invocationMs: null,
      };
      const startedAt = performance.now();
      const reports = await Promise.all(
        Array.from({ length: workers }, (_, slot) => {
          const database =
            api === undefined
              ? setUp
              : connectDataApi({ ...LOCAL, database: name, schema: "task_processor", endpoint: api.endpoint });
          if (api !== undefined) open.push(database);
          return runInvocation({ databases: [database], registry, slot, resident: false, settings, log: silentLog });
        }),
      );
      const seconds = (performance.now() - startedAt) / 1000;
      exactlyOnce("ours", ran);
      await checkHistory(url, tasks);
      return { tasksPerSecond: tasks / seconds, requests: reports.reduce((sum, report) => sum + report.requests, 0) };
    } finally {
      for (const database of open) await database.close();
      await api?.close();
    }
  });
}

export function exactlyOnce(who: string, ran: Uint8Array): void {
  const wrong = ran.findIndex((times) => times !== 1);
  if (wrong >= 0) throw new Error(`${who}: task ${wrong} of ${ran.length} ran ${ran[wrong]} times.`);
}

async function checkHistory(url: string, tasks: number): Promise<void> {
  const { default: pg } = await import("pg");
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query(
    "SELECT (SELECT count(*) FROM task_processor.task)::int AS left, (SELECT count(DISTINCT task_id) FROM task_processor.task_run WHERE result = 'SUCCESS')::int AS runs",
  );
  await client.end();
  if (rows[0].left !== 0 || rows[0].runs !== tasks)
    throw new Error(`ours: ${rows[0].left} tasks left, ${rows[0].runs} of ${tasks} runs in the history.`);
}

/** Interleaved: each contestant once a round, and who goes first changes. The median of each. */
export async function rounds<Name extends string>(
  contestants: Readonly<Record<Name, () => Promise<number>>>,
  count: number,
): Promise<Record<Name, number>> {
  const names = Object.keys(contestants) as Name[];
  const heard = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  for (let round = 0; round < count; round++)
    for (let place = 0; place < names.length; place++) {
      const name = names[(round + place) % names.length]!;
      heard[name].push(await contestants[name]());
    }
  const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
  return Object.fromEntries(names.map((name) => [name, rounded(median(heard[name]), 1)])) as Record<Name, number>;
}
