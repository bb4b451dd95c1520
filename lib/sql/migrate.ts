import { type Database, quoteIdentifier, type Statement, statement, type Transaction } from "../database/port.ts";
import { StintError } from "../errors.ts";
import { migrations as own } from "./migrations/inlined.ts";
import { readApplied } from "./pending.ts";
import { secureSchema } from "./roles.ts";

export interface Migration {
  readonly name: string;
  readonly sha256: string;
  readonly statements: readonly string[];
}

export interface MigrationReport {
  /** What was applied now, in order. */
  readonly applied: readonly string[];
  /** What the database has from a newer release; it keeps serving this one. */
  readonly newer: readonly string[];
}

const plain = (name: string, sql: string): Statement<Record<never, never>, Record<string, string>> =>
  statement<Record<string, string>>()(name, {}, [], sql);

/** One migrator at a time; the search path for this transaction only. */
const lock = statement<{ locked: string }>()(
  "migrate_lock",
  { name: "text" },
  ["locked"],
  "SELECT CAST(pg_advisory_xact_lock(hashtextextended(:name, 0)) AS text) AS locked",
);

const enter = statement<{ path: string }>()(
  "migrate_enter",
  { path: "text" },
  ["path"],
  "SELECT set_config('search_path', CAST(:path AS text), true) AS path",
);

const makeSchema = plain("migrate_schema", "CREATE SCHEMA IF NOT EXISTS {schema}");

const makeTable = plain(
  "migrate_table",
  "CREATE TABLE IF NOT EXISTS {schema}.migration (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())",
);

const recordApplied = statement<{ name: string }>()(
  "migrate_record",
  { name: "text", sha256: "text" },
  ["name"],
  "INSERT INTO {schema}.migration (name, sha256) VALUES (:name, :sha256) RETURNING name",
);

/**
 * Applies what the database lacks, each migration in a transaction of its own, once, whoever else starts at the same moment.
 * @throws StintError migration_changed when a migration that was applied reads otherwise now
 */
export async function migrate(database: Database, migrations: readonly Migration[] = own): Promise<MigrationReport> {
  const applied: string[] = [];
  let newer: string[] = [];
  for (const migration of migrations) {
    await database.transaction(async (transaction) => {
      const known = await prepare(database, transaction);
      newer = known.map((row) => row.name).filter((name) => !migrations.some((one) => one.name === name));
      refuseChanged(known, migrations);
      if (known.some((row) => row.name === migration.name)) return;
      await transaction.query(enter, { path: `${quoteIdentifier(database.schema)}, pg_temp` });
      for (const [place, sql] of migration.statements.entries()) {
        await transaction.query(plain(`${migration.name}.${place + 1}`, sql), {});
      }
      await transaction.query(recordApplied, { name: migration.name, sha256: migration.sha256 });
      applied.push(migration.name);
    });
  }
  // Also when nothing was applied: roles may have been made since.
  await database.transaction(async (transaction) => {
    await transaction.query(lock, { name: `stint migrate ${database.schema}` });
    await secureSchema(transaction, database.schema);
  });
  return { applied, newer };
}

async function prepare(database: Database, transaction: Transaction): Promise<{ name: string; sha256: string }[]> {
  await transaction.query(lock, { name: `stint migrate ${database.schema}` });
  await transaction.query(makeSchema, {});
  await transaction.query(makeTable, {});
  return await transaction.query(readApplied, {});
}

function refuseChanged(known: { name: string; sha256: string }[], migrations: readonly Migration[]): void {
  for (const row of known) {
    const mine = migrations.find((one) => one.name === row.name);
    if (mine !== undefined && mine.sha256 !== row.sha256) {
      throw new StintError(
        "migration_changed",
        `Migration ${row.name} was applied to this database with other contents (sha256 ${row.sha256.slice(0, 12)}, now ${mine.sha256.slice(0, 12)}). Restore the file; put changes into a new migration.`,
      );
    }
  }
}
