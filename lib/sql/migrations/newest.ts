// Made by `npm run migrations` from the names of the .sql files beside it. A test holds the two equal.
export const MIGRATIONS = [
  "0001_tables",
  "0002_enqueue",
  "0003_exchange",
  "0004_operate",
  "0005_exchange",
  "0006_operator",
  "0007_roles",
  "0009_wake",
  "0010_claim",
];

export const NEWEST_MIGRATION = MIGRATIONS.at(-1)!;
