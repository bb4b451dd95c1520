import type pg from "pg";
import { StintError } from "../errors.ts";
import { DatabaseError, failureOfConnecting, failureOfPg } from "./failure.ts";
import { countdown, ROLLBACK_TIMEOUT_MS } from "./limits.ts";
import { positional } from "./parameters.ts";
import type {
  Database,
  Parameters,
  ProducerTransaction,
  QueryOptions,
  Statement,
  Transaction,
  Values,
} from "./port.ts";

export interface PgOptions {
  /** A Postgres URL; TLS by its parameters (`sslmode`, `sslrootcert`). */
  readonly url: string;
  readonly schema: string;
  /** Most connections at a time (default 10). */
  readonly maxConnections?: number;
}

const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 30_000;

/** The pg adapter. The library is loaded, and a connection made, at the first statement. */
export function connectPg(options: PgOptions): Database {
  let pool: Promise<pg.Pool> | undefined;
  const texts = new Map<object, { text: string; names: string[] }>();

  const open = async (): Promise<pg.Pool> => {
    const { default: library } = await import("pg");
    const made = new library.Pool({
      connectionString: options.url,
      max: options.maxConnections ?? 10,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      idleTimeoutMillis: IDLE_TIMEOUT_MS,
      application_name: "stint",
    });
    // An idle connection that breaks is replaced at the next statement; without a listener it would end the process.
    made.on("error", ignore);
    // For its whole life: between being lent and being used, in one packet, nobody else listens.
    made.on("connect", (client) => client.on("error", ignore));
    return made;
  };
  const connected = (): Promise<pg.Pool> => {
    pool ??= open();
    return pool;
  };

  async function run<Row>(
    client: PgLike,
    statement: Statement<Parameters, Row>,
    values: Record<string, unknown>,
  ): Promise<Row[]> {
    let prepared = texts.get(statement);
    if (prepared === undefined) {
      prepared = positional(statement as Statement, options.schema);
      texts.set(statement, prepared);
    }
    const result = await client.query(
      prepared.text,
      prepared.names.map((name) => values[name] ?? null),
    );
    return result.rows as Row[];
  }

  async function borrow(timeoutMs: number | undefined): Promise<pg.PoolClient> {
    const lent = connected().then((pool) => pool.connect());
    try {
      return await within(lent, timeoutMs);
    } catch (cause) {
      // It may come yet.
      lent.then((client) => client.release(), ignore);
      throw failureOfConnecting(cause);
    }
  }

  async function query<P extends Parameters, Row>(
    statement: Statement<P, Row>,
    values: Values<P>,
    { timeoutMs }: QueryOptions = {},
  ): Promise<Row[]> {
    const leftMs = countdown(timeoutMs);
    const client = await borrow(leftMs());
    let broken = true;
    try {
      const rows = await within(run(client, statement as unknown as Statement<Parameters, Row>, values), leftMs());
      broken = false;
      return rows;
    } catch (cause) {
      const failure = failureOfPg(cause);
      broken = failure.retry === "unknown";
      throw failure;
    } finally {
      client.release(broken);
    }
  }

  async function transaction<T>(
    work: (transaction: Transaction) => Promise<T>,
    { timeoutMs }: QueryOptions = {},
  ): Promise<T> {
    const leftMs = countdown(timeoutMs);
    const client = await borrow(leftMs());
    let broken = true;
    try {
      await command(client, "BEGIN ISOLATION LEVEL READ COMMITTED", leftMs());
      const result = await work(wrap(client, leftMs));
      await command(client, "COMMIT", leftMs());
      broken = false;
      return result;
    } catch (cause) {
      // A ROLLBACK would queue behind what is not answered. Postgres rolls back what loses its connection.
      const silent = cause instanceof DatabaseError && cause.retry === "unknown";
      if (!silent) broken = await command(client, "ROLLBACK", ROLLBACK_TIMEOUT_MS).then(no, yes);
      throw cause;
    } finally {
      client.release(broken);
    }
  }

  const wrap = (client: PgLike, leftMs?: () => number | undefined): Transaction => ({
    adapter: "pg",
    async query(statement, values) {
      try {
        return await within(run(client, statement as unknown as Statement<Parameters, never>, values), leftMs?.());
      } catch (cause) {
        throw failureOfPg(cause);
      }
    },
  });

  return {
    adapter: "pg",
    schema: options.schema,
    query,
    transaction,
    adopt(producer: ProducerTransaction) {
      if (!("query" in producer) || typeof producer.query !== "function") {
        throw new StintError(
          "transaction_invalid",
          "transaction: a pg client with an open transaction is expected, as the tasks are reached through pg.",
        );
      }
      return wrap(producer);
    },
    async close() {
      const ending = pool;
      pool = undefined;
      await (await ending)?.end();
    },
  };
}

type PgLike = { query(text: string, values: unknown[]): Promise<{ rows: unknown[] }> };

async function command(client: pg.PoolClient, text: string, timeoutMs: number | undefined): Promise<void> {
  try {
    await within(client.query(text), timeoutMs);
  } catch (cause) {
    throw failureOfPg(cause);
  }
}

/** The work goes on, so the connection that does it is good for nothing else. */
function within<T>(work: Promise<T>, timeoutMs: number | undefined): Promise<T> {
  if (timeoutMs === undefined) return work;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

const ignore = (): void => {};
const yes = (): boolean => true;
const no = (): boolean => false;
