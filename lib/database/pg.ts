import type pg from "pg";
import { StintError } from "../errors.ts";
import { failureOfPg } from "./failure.ts";
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

  async function borrow(): Promise<pg.PoolClient> {
    try {
      return await (await connected()).connect();
    } catch (cause) {
      throw failureOfPg(cause);
    }
  }

  async function query<P extends Parameters, Row>(
    statement: Statement<P, Row>,
    values: Values<P>,
    { timeoutMs }: QueryOptions = {},
  ): Promise<Row[]> {
    const client = await borrow();
    let timer: NodeJS.Timeout | undefined;
    let broken = true;
    try {
      const answer = run(client, statement as unknown as Statement<Parameters, Row>, values);
      const rows = await (timeoutMs === undefined
        ? answer
        : Promise.race([
            answer,
            new Promise<never>((_, reject) => {
              timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
            }),
          ]));
      broken = false;
      return rows;
    } catch (cause) {
      const failure = failureOfPg(cause);
      broken = failure.sqlState === undefined;
      throw failure;
    } finally {
      clearTimeout(timer);
      client.release(broken);
    }
  }

  async function transaction<T>(work: (transaction: Transaction) => Promise<T>): Promise<T> {
    const client = await borrow();
    let broken = true;
    try {
      await client.query("BEGIN ISOLATION LEVEL READ COMMITTED");
      const result = await work(wrap(client));
      await client.query("COMMIT");
      broken = false;
      return result;
    } catch (cause) {
      await client.query("ROLLBACK").then(
        () => {
          broken = false;
        },
        () => {},
      );
      throw cause instanceof StintError ? cause : failureOfPg(cause);
    } finally {
      client.release(broken);
    }
  }

  const wrap = (client: PgLike): Transaction => ({
    adapter: "pg",
    async query(statement, values) {
      try {
        return await run(client, statement as unknown as Statement<Parameters, never>, values);
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

const ignore = (): void => {};
