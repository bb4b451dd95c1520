/** One Postgres for a whole test run, with a migrated template database. STINT_TEST_DATABASE_URL names another server. */
import pg from "pg";
import type { TestProject } from "vitest/node";
import { startPostgres } from "../../infra/local/postgres.ts";
import { connectPg } from "../../lib/database/pg.ts";
import { migrate } from "../../lib/sql/migrate.ts";

declare module "vitest" {
  interface ProvidedContext {
    postgresUrl: string;
    template: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env.STINT_TEST_DATABASE_URL;
  const own =
    given === undefined ? await startPostgres({ settings: { fsync: "off", max_connections: "300" } }) : undefined;
  const url = given ?? own!.url;
  const template = `stint_test_template_${process.pid}`;
  await administer(url, [`CREATE DATABASE "${template}"`]);
  const database = connectPg({ url: urlOf(url, template), schema: "task_processor" });
  await migrate(database);
  await database.close();
  project.provide("postgresUrl", url);
  project.provide("template", template);
  return async () => {
    await administer(url, [`DROP DATABASE IF EXISTS "${template}" WITH (FORCE)`]);
    await own?.stop("immediate");
  };
}

/** The same server, another database. */
export function urlOf(url: string, database: string): string {
  const [head, query] = url.split("?");
  return `${head!.replace(/(postgres(?:ql)?:\/\/[^/]*)\/?[^/]*$/, `$1/${database}`)}${query === undefined ? "" : `?${query}`}`;
}

export async function administer(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
