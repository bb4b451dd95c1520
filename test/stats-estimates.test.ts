/** What stats tell of more runs than they count. The sample goes by a hash of ids, which are fixed here: no chance is in it. */
import { beforeEach, expect, test } from "vitest";
import { openDatabase, reset } from "./support/database.ts";

const db = await openDatabase("pg");
beforeEach(() => reset(db));

interface Counted {
  readonly name: string;
  readonly runs: number;
  readonly failed: number;
  readonly estimated: boolean;
  readonly level: number;
}
const BUDGET = 8000;
const NOW = "CAST('2030-01-01T12:00:30Z' AS timestamptz)";

/** So many runs, each so long after the one before, from a moment before now. One in `failing` failed. */
const ran = (name: string, number: number, apart: string, before: string, failing: number) =>
  db.sql(`INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result)
    SELECT n, 1 + CAST(hashtext('${name}') & 1048575 AS int), '${name}', gen_random_uuid(), f.at - interval '1 ms', f.at, CASE WHEN n % ${failing} = 0 THEN 'FAILURE' ELSE 'SUCCESS' END
    FROM generate_series(1, ${number}) AS n CROSS JOIN LATERAL (SELECT ${NOW} - interval '${before}' + n * interval '${apart}' AS at) AS f`);

async function count(names: readonly string[], budget = BUDGET): Promise<Counted[]> {
  const rows = await db.sql<{ name: string; one: Omit<Counted, "name"> }>(
    `SELECT identifier AS name, to_jsonb(c) AS one FROM count_runs_v1($1, ${NOW} - interval '1 hour', ${NOW}, $2) AS c`,
    [names, budget],
  );
  return names.map((name) => ({ name, ...rows.find((row) => row.name === name)!.one }));
}

/** Of n sampled runs a count is off by its n-th root: three times that is met by 997 of 1000. */
const near = (found: number, truth: number, sampled: number): void =>
  expect(Math.abs(found / truth - 1)).toBeLessThan(3 / Math.sqrt(sampled));

test("a burst beyond the budget, in runs and in failures, is told from the sample; beside it what is small is exact", async () => {
  await ran("burst", 40_000, "25 microseconds", "7 minutes", 4);
  await ran("even", 5000, "600 ms", "55 minutes", 6000);
  await ran("small", 100, "10 s", "50 minutes", 10);
  for (const analyzed of [false, true]) {
    if (analyzed) await db.sql("ANALYZE task_run");
    const [burst, even, small] = await count(["burst", "even", "small"]);
    expect(burst).toMatchObject({ estimated: true, level: 16 });
    near(burst!.runs, 40_000, 40_000 / 16);
    near(burst!.failed, 10_000, 10_000 / 16);
    expect(even).toMatchObject({ runs: 5000, failed: 0 });
    expect(small).toMatchObject({ runs: 100, failed: 10, estimated: false });

    const minutes = await db.sql<{ runs: number; failed: number; estimated: boolean }>(
      `SELECT CAST(runs AS int), CAST(failed AS int), estimated FROM count_minutes_v1('{burst,even,small}', '{16,16,16}', ${NOW}, ${BUDGET}) ORDER BY minute`,
    );
    expect(minutes).toHaveLength(60);
    const [peak] = minutes.splice(52, 1);
    near(peak!.runs, 40_000, 40_000 / 16);
    near(peak!.failed, 10_000, 10_000 / 16);
    expect(peak!.estimated).toBe(true);
    expect(minutes.filter((one) => one.runs === 100 || one.runs === 106).length).toBeGreaterThan(40);
  }
});

test("failures within the budget stay exact where runs are an estimate, at every level of the sample", async () => {
  await ran("burst", 40_000, "25 microseconds", "7 minutes", 400);
  for (const budget of [4000, 1000, 200]) {
    const [burst] = await count(["burst"], budget);
    expect(burst).toMatchObject({ failed: 100, estimated: true });
    const sampled = 40_000 / burst!.level;
    expect(sampled).toBeGreaterThan(Math.min(budget, 2500) / 3);
    expect(sampled).toBeLessThan(budget * 1.2);
    near(burst!.runs, 40_000, sampled);
  }
});

test("of many that fit only in part, those that are left are no more than they are: being counted does not hang on a guess", async () => {
  const names = Array.from({ length: 60 }, (_, place) => `kind ${place}`);
  for (const name of names) await ran(name, 1000, "500 microseconds", "30 minutes", 3000);
  const counted = await count(names, 40_000);
  const estimates = counted.filter((one) => one.estimated).map((one) => one.runs);
  expect(estimates.length).toBeGreaterThan(20);
  expect(estimates.length).toBeLessThan(40);
  const mean = estimates.reduce((sum, one) => sum + one, 0) / estimates.length;
  near(mean, 1000, (estimates.length * 1000) / 16);
});
