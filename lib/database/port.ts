/**
 * What Stint needs of a database: run one statement, complete in itself; several of them in a transaction.
 * Adapters: the RDS Data API (data-api.ts) and pg (pg.ts). Nothing is kept in a session between two calls.
 */

/** The declared type of a parameter: both adapters bind exactly these, as Aurora's Data API does. */
export type ParameterType = "text" | "bigint" | "double" | "boolean" | "uuid" | "json";

type Native = { text: string; bigint: number; double: number; boolean: boolean; uuid: string; json: string };

export type Parameters = Record<string, ParameterType>;

export type Values<P extends Parameters> = { readonly [K in keyof P]: Native[P[K]] | null };

/**
 * A named statement. `{schema}` stands for the quoted schema. Parameters are `:name`; columns come back by position as text,
 * number (int4, float8), boolean or null: anything else is cast to text in the statement.
 */
export interface Statement<P extends Parameters = Parameters, Row = unknown> {
  readonly name: string;
  readonly sql: string;
  readonly parameters: P;
  readonly columns: readonly (keyof Row & string)[];
}

export const statement =
  <Row extends object>() =>
  <const P extends Parameters>(
    name: string,
    parameters: P,
    columns: readonly (keyof Row & string)[],
    sql: string,
  ): Statement<P, Row> => ({ name, sql, parameters, columns });

/** An open transaction of this database: what `transaction` hands out, or a producer's own (see `adopt`). */
export interface Transaction {
  readonly adapter: "data-api" | "pg";
  query<P extends Parameters, Row>(statement: Statement<P, Row>, values: Values<P>): Promise<Row[]>;
}

export interface QueryOptions {
  /** Give up waiting after so long: the outcome is then unknown. */
  readonly timeoutMs?: number;
}

export interface Database {
  readonly adapter: "data-api" | "pg";
  /** The Postgres schema that holds Stint's tables, unquoted. */
  readonly schema: string;
  /**
   * Runs one statement in a transaction of its own. Never repeated by the adapter: see failure.ts for what a failure means.
   * @throws StintError database_unavailable | database_outcome_unknown | database_failed | schema_missing
   */
  query<P extends Parameters, Row>(
    statement: Statement<P, Row>,
    values: Values<P>,
    options?: QueryOptions,
  ): Promise<Row[]>;
  /** Runs `work` in one READ COMMITTED transaction; rolls back when it throws. The time is for all of it, the commit too. */
  transaction<T>(work: (transaction: Transaction) => Promise<T>, options?: QueryOptions): Promise<T>;
  /**
   * A producer's open transaction, to enqueue in: a pg client, or `{ transactionId }` of the Data API.
   * @throws StintError transaction_invalid when it is not one of this adapter's
   */
  adopt(transaction: ProducerTransaction): Transaction;
  close(): Promise<void>;
}

/** A pg client with an open transaction (anything with pg's `query`), or a Data API transaction. */
export type ProducerTransaction =
  | { query(text: string, values: unknown[]): Promise<{ rows: unknown[] }> }
  | { readonly transactionId: string };

/** The schema's name as an SQL identifier. */
export const quoteIdentifier = (name: string): string => `"${name.replaceAll('"', '""')}"`;
