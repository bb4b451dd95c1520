import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { inlinedMigrations, migrationNames } from "../infra/inline-migrations.ts";
import { connectPg } from "../lib/database/pg.ts";
import { type Migration, migrate } from "../lib/sql/migrate.ts";
import { migrations } from "../lib/sql/migrations/inlined.ts";
import { pendingMigrations } from "../lib/sql/pending.ts";
import { describeSchema } from "./support/catalog.ts";
import { ADAPTERS, openDatabase } from "./support/database.ts";
import { register, Speaker } from "./support/exchange.ts";

const names = migrations.map((migration) => migration.name);

describe.each(ADAPTERS)("migrations over %s", async (adapter) => {
  test("are applied once, each, and twice is no error", async () => {
    const { database } = await openDatabase(adapter, { migrated: false });
    expect(await pendingMigrations(database)).toEqual(names);
    expect(await migrate(database)).toEqual({ applied: names, newer: [] });
    expect(await migrate(database)).toEqual({ applied: [], newer: [] });
    expect(await pendingMigrations(database)).toEqual([]);
  });

  test("are safe when several start together", async () => {
    const { database } = await openDatabase(adapter, { migrated: false });
    const reports = await Promise.all([1, 2, 3].map(() => migrate(database)));
    expect(reports.flatMap((report) => report.applied).sort()).toEqual(names);
  });

  test("refuse a file that was applied and has changed since", async () => {
    const { database } = await openDatabase(adapter);
    const changed = migrations.map((migration, place) =>
      place === 1 ? { ...migration, sha256: "0".repeat(64) } : migration,
    );
    await expect(migrate(database, changed)).rejects.toMatchObject({
      code: "migration_changed",
      message: expect.stringContaining(names[1]!),
    });
  });

  test("leave nothing of one that fails, and say what a newer release has applied", async () => {
    const { database, sql } = await openDatabase(adapter);
    const broken: Migration = {
      name: "9000_broken",
      sha256: "b",
      statements: ["CREATE TABLE half (n integer)", "CREATE TABLE half (n integer)"],
    };
    await expect(migrate(database, [...migrations, broken])).rejects.toMatchObject({ sqlState: "42P07" });
    expect(await sql("SELECT to_regclass('half') AS half")).toEqual([{ half: null }]);
    const newer: Migration = { name: "9001_newer", sha256: "n", statements: ["CREATE TABLE newer (n integer)"] };
    await migrate(database, [...migrations, newer]);
    expect(await migrate(database)).toEqual({ applied: [], newer: ["9001_newer"] });
  });
});

test("what waits and what has failed since release 0.1.0 keeps its payload, as it was told before", async () => {
  const db = await openDatabase("pg", { migrated: false });
  await migrate(
    db.database,
    migrations.filter(({ name }) => name < "0005"),
  );
  const payloads = [
    { n: 12.5, text: 'é😀 "\\ \u2028', deep: [{ none: null }, true, []] },
    { text: "x".repeat(40_000) },
    {},
  ];
  for (const payload of payloads) await db.sql("SELECT enqueue_task('note', $1)", [JSON.stringify(payload)]);
  await db.sql(
    `INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, attempt, forgiven, max_attempts, failed_at, outcome)
    SELECT 1000 + id, identifier, payload, priority, scheduled_for, created_at, 3, 0, 3, now(), 'FAILED' FROM task`,
  );
  const before = await db.sql("SELECT id, bytes, CAST(payload AS text) AS payload FROM task ORDER BY id");
  expect((await migrate(db.database)).applied).toEqual(names.filter((name) => name >= "0005"));
  expect(await db.sql("SELECT id, bytes, CAST(payload AS text) AS payload FROM task ORDER BY id")).toEqual(before);
  expect(await db.sql("SELECT payload FROM failed_task ORDER BY id")).toEqual(payloads.map((payload) => ({ payload })));
  await register(db, "new", { note: {} });
  const { tasks } = await new Speaker(db, { release: "new" }).say({ want: 10 });
  expect(tasks.map(({ payload }) => payload)).toEqual(payloads);
});

test("another schema's name serves a second application in the same database", async () => {
  const { url, sql } = await openDatabase("pg");
  const database = connectPg({ url, schema: "second_app" });
  await migrate(database);
  await database.close();
  expect(await sql("SELECT count(*)::int AS n FROM second_app.task")).toEqual([{ n: 0 }]);
  const [row] = await sql<{ setting: string }>(
    "SELECT array_to_string(proconfig, ' ') AS setting FROM pg_proc WHERE oid = 'second_app.exchange_v2'::regproc",
  );
  expect(row!.setting).toContain('search_path="second_app", pg_temp');
});

test("the inlined migrations are the files", () => {
  const made = (file: string) => readFileSync(new URL(`../lib/sql/migrations/${file}`, import.meta.url), "utf8");
  expect(made("inlined.ts")).toBe(inlinedMigrations());
  expect(made("newest.ts")).toBe(migrationNames());
});

test("no statement holds a colon: some clients of the Data API take what follows for a parameter", () => {
  for (const { statements } of migrations) for (const statement of statements) expect(statement).not.toContain(":");
});

test("schema.sql is what the migrations make", async () => {
  const migrated = await openDatabase("pg");
  const bare = await openDatabase("pg", { migrated: false });
  const client = await bare.client();
  await client.query(
    'CREATE SCHEMA task_processor; SELECT set_config($$search_path$$, $$"task_processor", pg_temp$$, false)',
  );
  await client.query(readFileSync(new URL("../lib/sql/schema.sql", import.meta.url), "utf8"));
  const other = await migrated.client();
  await other.query("SET search_path = task_processor, pg_temp");
  const expected = await describeSchema(other);
  expect(expected.size).toBeGreaterThan(100);
  expect(await describeSchema(client)).toEqual(expected);
});
