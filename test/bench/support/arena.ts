/** One Postgres, and a fresh database for each turn: what one contestant left behind must not weigh on the next. */
import { randomUUID } from "node:crypto";
import pg from "pg";
import { startPostgres } from "../../../infra/local/postgres.ts";
import { pause } from "../../../lib/clock.ts";
import { administer } from "../../support/postgres.ts";

export interface FreshDatabase {
  readonly name: string;
  readonly url: string;
  /** As autovacuum leaves it, at a moment of our choice. */
  vacuum(): Promise<void>;
}

/**
 * What a planner knows of the tasks: taken when all of them were there, as of a backlog that has stood for a minute; or when there was none, as
 * of a queue that keeps up until many come at once.
 */
export type Statistics = "of all" | "of none";

export async function filled(
  statistics: Statistics,
  { vacuum }: Pick<FreshDatabase, "vacuum">,
  fill: () => Promise<void>,
): Promise<void> {
  if (statistics === "of none") await vacuum();
  await fill();
  if (statistics === "of all") await vacuum();
}

export interface Arena {
  /** The process id of Postgres. */
  readonly postmaster: number;
  /** A new, empty database; dropped after the turn. */
  inFresh<T>(turn: (database: FreshDatabase) => Promise<T>): Promise<T>;
}

/** The same for all. Durable as in production: fsync and synchronous_commit stay on. Of 24 GB the manual would have a quarter as shared buffers. */
export const POSTGRES_SETTINGS = { max_connections: "200", shared_buffers: "2GB", max_wal_size: "4GB" };

export async function inArena<T>(
  work: (arena: Arena) => Promise<T>,
  settings: Record<string, string> = {},
): Promise<T> {
  const postgres = await startPostgres({ settings: { ...POSTGRES_SETTINGS, ...settings } });
  try {
    return await work({
      postmaster: postgres.pid,
      async inFresh(turn) {
        const name = `bench_${randomUUID().slice(0, 8)}`;
        await administer(postgres.url, [`CREATE DATABASE "${name}"`]);
        try {
          const url = postgres.urlOf(name);
          return await turn({ name, url, vacuum: () => administer(url, ["VACUUM ANALYZE"]) });
        } finally {
          await left(postgres.url, name);
          await administer(postgres.url, [`DROP DATABASE "${name}" WITH (FORCE)`]);
        }
      },
    });
  } finally {
    await postgres.stop("immediate");
  }
}

/** A peer that has stopped may still be closing connections; one that is cut off there throws where nobody listens. */
async function left(url: string, name: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (let tries = 0; tries < 100; tries++) {
      const { rowCount } = await client.query("SELECT FROM pg_stat_activity WHERE datname = $1", [name]);
      if (rowCount === 0) return;
      await pause(50);
    }
  } finally {
    await client.end();
  }
}
