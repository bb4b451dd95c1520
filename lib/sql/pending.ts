/** How new a schema is. Apart from migrate.ts, as whoever only asks must not carry the text of all migrations. */
import { type Database, quoteIdentifier, statement } from "../database/port.ts";
import { MIGRATIONS } from "./migrations/newest.ts";

export const readApplied = statement<{ name: string; sha256: string }>()(
  "migrate_applied",
  {},
  ["name", "sha256"],
  "SELECT name, sha256 FROM {schema}.migration ORDER BY name",
);

const missing = statement<{ missing: boolean }>()(
  "migrate_missing",
  { name: "text" },
  ["missing"],
  "SELECT to_regclass(CAST(:name AS text)) IS NULL AS missing",
);

/** Migrations this release has and the database lacks, by name; all of them where there is no schema yet. */
export async function pendingMigrations(database: Database): Promise<string[]> {
  const [table] = await database.query(missing, { name: `${quoteIdentifier(database.schema)}.migration` });
  const known = table?.missing ? [] : await database.query(readApplied, {});
  return MIGRATIONS.filter((name) => !known.some((row) => row.name === name));
}
