/** Writes lib/sql/migrations/inlined.ts from the .sql files beside it: bundlers lose files. `npm run migrations`. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const folder = new URL("../lib/sql/migrations/", import.meta.url);

/** Statements stand between `-- statement` lines; comments go, as a colon in one is read as a parameter by some clients, and what lines begin with. */
const statementsOf = (text: string): string[] =>
  text
    .split(/^-- statement$/m)
    .slice(1)
    .map((part) =>
      part
        .replaceAll(/[ \t]*--.*$/gm, "")
        .replaceAll(/\n\s+/g, "\n")
        .trim()
        .replace(/;$/, ""),
    );

const files = readdirSync(folder)
  .filter((file) => file.endsWith(".sql"))
  .sort();

/** The module's text, for the .sql files as they are now. */
export function inlinedMigrations(): string {
  const migrations = files.map((file) => {
    const text = readFileSync(new URL(file, folder), "utf8");
    return {
      name: file.replace(/\.sql$/, ""),
      sha256: createHash("sha256").update(text).digest("hex"),
      statements: statementsOf(text),
    };
  });
  return [
    "// Made by `npm run migrations` from the .sql files beside it. A test holds the two equal.",
    'import type { Migration } from "../migrate.ts";',
    "",
    `export const migrations: readonly Migration[] = ${JSON.stringify(migrations, null, 2)};`,
    "",
  ].join("\n");
}

/** By name alone: a function that only wants to know how new the schema is must not carry all of its text. */
export const migrationNames = (): string =>
  [
    "// Made by `npm run migrations` from the names of the .sql files beside it. A test holds the two equal.",
    "export const MIGRATIONS = [",
    ...files.map((file) => `  ${JSON.stringify(file.replace(/\.sql$/, ""))},`),
    "];",
    "",
    "export const NEWEST_MIGRATION = MIGRATIONS.at(-1)!;",
    "",
  ].join("\n");

if (import.meta.main) {
  writeFileSync(new URL("inlined.ts", folder), inlinedMigrations());
  writeFileSync(new URL("newest.ts", folder), migrationNames());
}
