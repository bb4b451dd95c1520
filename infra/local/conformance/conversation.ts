import { setTimeout as sleep } from "node:timers/promises";
import {
  BatchExecuteStatementCommand,
  BeginTransactionCommand,
  CommitTransactionCommand,
  ExecuteStatementCommand,
  type ExecuteStatementCommandInput,
  type Field,
  RDSDataClient,
  RollbackTransactionCommand,
  type SqlParameter,
} from "@aws-sdk/client-rds-data";

/** A Data API to ask: the stand-in's, or a cluster's. */
export interface Target {
  /** Without it, AWS's own of the region. */
  readonly endpoint?: string | undefined;
  readonly region?: string | undefined;
  readonly resourceArn: string;
  readonly secretArn: string;
  readonly database: string;
}

/** AWS's are the defaults; a stand-in may have shorter ones. */
export interface Limits {
  readonly statementMs: number;
  readonly idleMs: number;
}

export type Values = Record<string, Field | [Field, SqlParameter["typeHint"]]>;
export type More = Partial<ExecuteStatementCommandInput>;

const wakeMs = 90_000;
const parametersOf = (values: Values): SqlParameter[] =>
  Object.entries(values).map(([name, value]) =>
    Array.isArray(value) ? { name, value: value[0], typeHint: value[1] } : { name, value },
  );

/** Talks to one target through the SDK. `{s}` in a statement stands for a schema of this run's own. */
export class Conversation {
  readonly schema: string;
  readonly limits: Limits;
  readonly #client: RDSDataClient;
  readonly #arns: { resourceArn: string; secretArn: string };
  readonly #database: string;

  constructor({ endpoint, region, resourceArn, secretArn, database }: Target, schema: string, limits: Limits) {
    this.#client = new RDSDataClient({ maxAttempts: 1, ...(endpoint && { endpoint }), ...(region && { region }) });
    this.#arns = { resourceArn, secretArn };
    this.#database = database;
    this.schema = schema;
    this.limits = limits;
  }

  execute(sql: string, values: Values = {}, more: More = {}) {
    const input = { ...this.#arns, database: this.#database, parameters: parametersOf(values), ...more };
    return this.#client.send(new ExecuteStatementCommand({ ...input, sql: this.#named(sql) }));
  }

  batch(sql: string, sets: Values[], transactionId?: string) {
    const input = { ...this.#arns, database: this.#database, parameterSets: sets.map(parametersOf), transactionId };
    return this.#client.send(new BatchExecuteStatementCommand({ ...input, sql: this.#named(sql) }));
  }

  async begin(): Promise<string> {
    const command = new BeginTransactionCommand({ ...this.#arns, database: this.#database });
    return (await this.#client.send(command)).transactionId!;
  }

  commit(transactionId: string) {
    return this.#client.send(new CommitTransactionCommand({ ...this.#arns, transactionId }));
  }

  rollback(transactionId: string) {
    return this.#client.send(new RollbackTransactionCommand({ ...this.#arns, transactionId }));
  }

  /** What one call shows: its answer, or its error, without what differs from call to call. */
  async see(work: () => Promise<unknown>): Promise<unknown> {
    return this.#comparable(await work().catch(errorOf));
  }

  async setUp(statements: readonly string[]): Promise<void> {
    await this.#wakeUp();
    for (const statement of statements) await this.execute(statement);
  }

  async tearDown(): Promise<void> {
    try {
      await this.execute("DROP SCHEMA IF EXISTS {s} CASCADE");
    } finally {
      this.#client.destroy();
    }
  }

  async #wakeUp(): Promise<void> {
    for (const deadline = Date.now() + wakeMs; ; ) {
      try {
        await this.execute("SELECT 1");
        return;
      } catch (error) {
        if ((error as Error).name !== "DatabaseResumingException" || Date.now() > deadline) throw error;
        await sleep(2_000);
      }
    }
  }

  #named(sql: string): string {
    return sql.replaceAll("{s}", this.schema);
  }

  #comparable(answer: unknown): unknown {
    const text = JSON.stringify(answer, (key, value) => {
      if (key === "$metadata") return undefined;
      if (key === "transactionId") return "(an id)";
      if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString("base64") };
      return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
    });
    return JSON.parse(text.replaceAll(this.schema, "SCHEMA"));
  }
}

function errorOf(thrown: unknown) {
  const error = thrown as Error & { code?: string; $metadata?: { httpStatusCode?: number } };
  return {
    error: error.name === "Error" ? error.code : error.name,
    status: error.$metadata?.httpStatusCode,
    message: error.message.replace(/^Transaction .* is not found$/, "Transaction (an id) is not found"),
  };
}
