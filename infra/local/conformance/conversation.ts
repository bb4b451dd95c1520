import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
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
  readonly arns: { readonly resourceArn: string; readonly secretArn: string };
  readonly #database: string;

  constructor({ endpoint, region, resourceArn, secretArn, database }: Target, schema: string, limits: Limits) {
    this.#client = new RDSDataClient({ maxAttempts: 1, ...(endpoint && { endpoint }), ...(region && { region }) });
    this.arns = { resourceArn, secretArn };
    this.#database = database;
    this.schema = schema;
    this.limits = limits;
  }

  execute(sql: string, values: Values = {}, more: More = {}) {
    return this.#client.send(this.#command(sql, values, more));
  }

  /** The answer's body as it came: the SDK reads one field of a value, and would hide a second. */
  async onTheWire(sql: string): Promise<unknown> {
    const command = this.#command(sql);
    let body = "";
    command.middlewareStack.add(
      (next) => async (args) => {
        const result = await next(args);
        const response = result.response as { body: Readable | Uint8Array };
        body = await text(response.body as Readable);
        response.body = Buffer.from(body);
        return result;
      },
      { step: "deserialize", priority: "low" },
    );
    await this.#client.send(command);
    return JSON.parse(body, keepDigits);
  }

  unsigned(sql: string) {
    const command = this.#command(sql);
    command.middlewareStack.add(
      (next) => (args) => {
        delete (args.request as { headers: Record<string, string> }).headers.authorization;
        return next(args);
      },
      { step: "finalizeRequest", priority: "low" },
    );
    return this.#client.send(command);
  }

  #command(sql: string, values: Values = {}, more: More = {}) {
    const input = { ...this.arns, database: this.#database, parameters: parametersOf(values), ...more };
    return new ExecuteStatementCommand({ ...input, sql: this.#named(sql) });
  }

  batch(sql: string, sets: Values[], transactionId?: string) {
    const input = { ...this.arns, database: this.#database, parameterSets: sets.map(parametersOf), transactionId };
    return this.#client.send(new BatchExecuteStatementCommand({ ...input, sql: this.#named(sql) }));
  }

  async begin(): Promise<string> {
    const command = new BeginTransactionCommand({ ...this.arns, database: this.#database });
    return (await this.#client.send(command)).transactionId!;
  }

  commit(transactionId: string) {
    return this.#client.send(new CommitTransactionCommand({ ...this.arns, transactionId }));
  }

  rollback(transactionId: string) {
    return this.#client.send(new RollbackTransactionCommand({ ...this.arns, transactionId }));
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
    const shown = JSON.stringify(answer, (key, value) => {
      if (key === "$metadata") return undefined;
      if (key === "transactionId") return "(an id)";
      if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString("base64") };
      return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
    });
    const mine = [this.schema, this.arns.resourceArn, this.arns.secretArn];
    const names = ["SCHEMA", "CLUSTER", "SECRET"];
    const text = mine.reduce((seen, name, at) => seen.replaceAll(name, names[at]!), shown);
    return JSON.parse(text.replaceAll(accountAndRegion, "$1REGION:ACCOUNT:"));
  }
}

const accountAndRegion = /(arn:aws[\w-]*:\w+:)[\w-]*:\d*:/g;

/** What JavaScript cannot hold is shown as text. */
function keepDigits(_: string, value: unknown, context?: { source?: string }): unknown {
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? context?.source : value;
}

function errorOf(thrown: unknown) {
  const error = thrown as Error & { code?: string; $metadata?: { httpStatusCode?: number } };
  return {
    error: error.name === "Error" ? error.code : error.name,
    status: error.$metadata?.httpStatusCode,
    message: error.message.replace(/^Transaction .* is not found$/, "Transaction (an id) is not found"),
  };
}
