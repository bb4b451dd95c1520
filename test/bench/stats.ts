/** What it costs to look: 1 M tasks wait, 10 M runs of the last days are kept, 20 identifiers. Milliseconds a call, over pg. */
import pg from "pg";
import { startPostgres } from "../../infra/local/postgres.ts";
import { connectPg } from "../../lib/database/pg.ts";
import { readMetrics } from "../../lib/metrics.ts";
import { listTasks } from "../../lib/operator.ts";
import { migrate } from "../../lib/sql/migrate.ts";
import { readStats } from "../../lib/stats.ts";
import { rounded } from "./measure.ts";
import type { Figures } from "./run.ts";

const TASKS = 1_000_000;
const RUNS = 10_000_000;
const RUN_DAYS = 3;
const IDENTIFIERS = 20;
const settings = { graceMs: 20_000, sleepIntervalMs: 2000 };

export async function bench(): Promise<Figures> {
  const postgres = await startPostgres({
    settings: { fsync: "off", max_wal_size: "8GB", maintenance_work_mem: "512MB" },
  });
  const database = connectPg({ url: postgres.url, schema: "task_processor" });
  const client = new pg.Client({ connectionString: postgres.url, options: "-c search_path=task_processor" });
  try {
    await migrate(database);
    await client.connect();
    await fill(client);
    const databases = [database];
    return {
      ...(await timed("stats", () => readStats(databases, settings))),
      ...(await timed("metrics", () => readMetrics(databases, settings))),
      ...(await timed("a page of tasks", () => listTasks(database, {}))),
      ...(await timed("a page of succeeded tasks", () => listTasks(database, { state: "succeeded" }))),
      ...(await timed("a page of one identifier", () => listTasks(database, { identifier: "kind.7" }))),
      ...(await timed("a filter that matches nothing", () => listTasks(database, { key: "none" }))),
    };
  } finally {
    await client.end();
    await database.close();
    await postgres.stop("immediate");
  }
}

async function timed(what: string, look: () => Promise<unknown>): Promise<Figures> {
  for (let call = 0; call < 5; call++) await look();
  const times: number[] = [];
  for (let call = 0; call < 30; call++) {
    const startedAt = performance.now();
    await look();
    times.push(performance.now() - startedAt);
  }
  times.sort((a, b) => a - b);
  return { [`${what}, median`]: rounded(times[15]!, 1), [`${what}, slowest of 30`]: rounded(times[29]!, 1) };
}

/** As after a vacuum: what an autovacuum leaves. */
async function fill(client: pg.Client): Promise<void> {
  await client.query(
    `INSERT INTO task (identifier, scheduled_for) SELECT 'kind.' || n % ${IDENTIFIERS}, now() - n * interval '1 millisecond' FROM generate_series(1, ${TASKS}) AS n`,
  );
  await client.query(
    `INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, attempt, forgiven, failed_at, outcome)
    SELECT ${2 * RUNS} + n, 'kind.' || n % ${IDENTIFIERS}, '{}', 50, now(), now(), 3, 0, now(), 'FAILED' FROM generate_series(1, 50000) AS n`,
  );
  for (let from = 0; from < RUNS; from += 1_000_000)
    await client.query(
      `INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result, task_outcome)
      SELECT n + ${TASKS}, 1, 'kind.' || n % ${IDENTIFIERS}, '00000000-0000-4000-8000-000000000000', f.at - n % 997 * interval '1 millisecond', f.at, 'SUCCESS', 'SUCCEEDED'
      FROM generate_series(${from} + 1, ${from} + 1000000) AS n
      CROSS JOIN LATERAL (SELECT now() - interval '${RUN_DAYS} days' * (1 - CAST(n AS float8) / ${RUNS}) AS at) AS f`,
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
