import pg from "pg";
import { startPostgres } from "../../infra/local/postgres.ts";
import { connectPg } from "../../lib/database/pg.ts";
import { readMetrics } from "../../lib/metrics.ts";
import { listTasks } from "../../lib/operator.ts";
import { migrate } from "../../lib/sql/migrate.ts";
import { readStats } from "../../lib/stats.ts";
import type { BenchOptions, Figures } from "./support/figures.ts";
import { quantile, rounded, timed } from "./support/measure.ts";

export const about =
  "What it costs to look: 1 M tasks wait, 10 M runs of the last days are kept, 20 identifiers. Milliseconds a call, over pg.";

const CHUNK = 1_000_000;
const RUN_DAYS = 3;
const IDENTIFIERS = 20;
const settings = { graceMs: 20_000, sleepIntervalMs: 2000 };

export async function bench({ quick }: BenchOptions): Promise<Figures> {
  const size = quick ? { tasks: 10_000, runs: 100_000 } : { tasks: 1_000_000, runs: 10_000_000 };
  const postgres = await startPostgres({
    settings: { fsync: "off", max_wal_size: "8GB", maintenance_work_mem: "512MB" },
  });
  const database = connectPg({ url: postgres.url, schema: "task_processor" });
  const client = new pg.Client({ connectionString: postgres.url, options: "-c search_path=task_processor" });
  try {
    await migrate(database);
    await client.connect();
    await fill(client, size);
    const databases = [database];
    return {
      ...(await looking("stats", () => readStats(databases, settings))),
      ...(await looking("metrics", () => readMetrics(databases, settings))),
      ...(await looking("a page of tasks", () => listTasks(database, {}))),
      ...(await looking("a page of succeeded tasks", () => listTasks(database, { state: "succeeded" }))),
      ...(await looking("a page of one identifier", () => listTasks(database, { identifier: "kind.7" }))),
      ...(await looking("a filter that matches nothing", () => listTasks(database, { key: "none" }))),
    };
  } finally {
    await client.end();
    await database.close();
    await postgres.stop("immediate");
  }
}

async function looking(what: string, look: () => Promise<unknown>): Promise<Figures> {
  for (let call = 0; call < 5; call++) await look();
  const times: number[] = [];
  for (let call = 0; call < 30; call++) times.push(await timed(look));
  return {
    [`${what}, median`]: rounded(quantile(times, 0.5), 1),
    [`${what}, slowest of 30`]: rounded(quantile(times, 1), 1),
  };
}

/** As after a vacuum: what an autovacuum leaves. */
async function fill(client: pg.Client, { tasks, runs }: { tasks: number; runs: number }): Promise<void> {
  await client.query(
    `INSERT INTO task (identifier, scheduled_for) SELECT 'kind.' || n % ${IDENTIFIERS}, now() - n * interval '1 millisecond' FROM generate_series(1, ${tasks}) AS n`,
  );
  await client.query(
    `INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, attempt, forgiven, failed_at, outcome)
    SELECT ${2 * runs} + n, 'kind.' || n % ${IDENTIFIERS}, '{}', 50, now(), now(), 3, 0, now(), 'FAILED' FROM generate_series(1, 50000) AS n`,
  );
  for (let from = 0; from < runs; from += CHUNK)
    await client.query(
      `INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result, task_outcome)
      SELECT n + ${tasks}, 1, 'kind.' || n % ${IDENTIFIERS}, '00000000-0000-4000-8000-000000000000', f.at - n % 997 * interval '1 millisecond', f.at, 'SUCCESS', 'SUCCEEDED'
      FROM generate_series(${from} + 1, ${from} + ${Math.min(CHUNK, runs)}) AS n
      CROSS JOIN LATERAL (SELECT now() - interval '${RUN_DAYS} days' * (1 - CAST(n AS float8) / ${runs}) AS at) AS f`,
    );
  await client.query("INSERT INTO release (id) VALUES ('r1')");
  await client.query(
    `INSERT INTO heartbeat (invocation_id, slot, release_id, seq, started_at, ended_at, last_seen_at, metrics, folded)
    SELECT gen_random_uuid(), n % 5, 'r1', 9, now() - n * interval '12 seconds', now() - n * interval '12 seconds', now() - n * interval '12 seconds', m.metrics, n > 50
    FROM generate_series(1, 14400) AS n CROSS JOIN (
      SELECT jsonb_agg(jsonb_build_array('kind.' || k, 'standard', 'success', 100, 1000, (SELECT jsonb_agg(5) FROM generate_series(1, 19)))) AS metrics FROM generate_series(0, ${IDENTIFIERS - 1}) AS k) AS m`,
  );
  await client.query("INSERT INTO slot (number, epoch) SELECT n, 1 FROM generate_series(0, 4) AS n");
  await client.query("VACUUM ANALYZE");
}
