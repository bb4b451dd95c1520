import {
  BeginTransactionCommand,
  CommitTransactionCommand,
  ExecuteStatementCommand,
  type Field,
  RDSDataClient,
  RollbackTransactionCommand,
  type SqlParameter,
} from "@aws-sdk/client-rds-data";
import { StintError } from "../errors.ts";
import { failureOfDataApi } from "./failure.ts";
import { countdown, ROLLBACK_TIMEOUT_MS } from "./limits.ts";
import { textFor } from "./parameters.ts";
import type {
  Database,
  Parameters,
  ParameterType,
  ProducerTransaction,
  Statement,
  Transaction,
  Values,
} from "./port.ts";

export interface DataApiOptions {
  readonly resourceArn: string;
  readonly secretArn: string;
  /** The database's name. */
  readonly database: string;
  readonly schema: string;
  /** An endpoint of one's own, such as the stand-in's; else AWS_ENDPOINT_URL_RDS_DATA or AWS. */
  readonly endpoint?: string;
  readonly region?: string;
}

/** A call is ended by AWS after 45 s; a little more, so that its own answer is heard. */
const CALL_TIMEOUT_MS = 50_000;

/** The RDS Data API adapter. One HTTP request a statement. The SDK's own retries are off: it cannot know what may be repeated. */
export function connectDataApi(options: DataApiOptions): Database {
  const client = new RDSDataClient({
    maxAttempts: 1,
    ...(options.endpoint !== undefined && { endpoint: options.endpoint }),
    ...(options.region !== undefined && { region: options.region }),
  });
  const cluster = { resourceArn: options.resourceArn, secretArn: options.secretArn };
  const texts = new Map<Statement, string>();
  /** Once it was, credentials are set up. */
  let answered = false;

  const sqlOf = (statement: Statement): string => {
    let sql = texts.get(statement);
    if (sql === undefined) {
      sql = textFor(statement.sql, options.schema);
      texts.set(statement, sql);
    }
    return sql;
  };

  async function send<T>(work: (signal: AbortSignal) => Promise<T>, timeoutMs = CALL_TIMEOUT_MS): Promise<T> {
    try {
      // Whole: Node refuses a fraction, which would look like a call without an answer.
      const answer = await work(AbortSignal.timeout(Math.ceil(Math.min(timeoutMs, CALL_TIMEOUT_MS))));
      answered = true;
      return answer;
    } catch (cause) {
      const failure = failureOfDataApi(cause, answered);
      answered ||= failure.sqlState !== undefined;
      throw failure;
    }
  }

  async function execute<P extends Parameters, Row>(
    statement: Statement<P, Row>,
    values: Values<P>,
    transactionId?: string,
    timeoutMs?: number,
  ): Promise<Row[]> {
    const command = new ExecuteStatementCommand({
      ...cluster,
      database: options.database,
      sql: sqlOf(statement as unknown as Statement),
      parameters: Object.entries(statement.parameters).map(([name, type]) =>
        parameterOf(name, type, values[name] as never),
      ),
      ...(transactionId !== undefined && { transactionId }),
    });
    const { records = [] } = await send((abortSignal) => client.send(command, { abortSignal }), timeoutMs);
    return records.map(
      (record) =>
        Object.fromEntries(statement.columns.map((column, place) => [column, columnOf(record[place])])) as Row,
    );
  }

  const wrap = (transactionId: string, leftMs?: () => number | undefined): Transaction => ({
    adapter: "data-api",
    query: (statement, values) => execute(statement, values, transactionId, leftMs?.()),
  });

  return {
    adapter: "data-api",
    schema: options.schema,
    query: (statement, values, { timeoutMs } = {}) => execute(statement, values, undefined, timeoutMs),
    async transaction(work, { timeoutMs } = {}) {
      const leftMs = countdown(timeoutMs);
      const begin = new BeginTransactionCommand({ ...cluster, database: options.database });
      const { transactionId = "" } = await send((abortSignal) => client.send(begin, { abortSignal }), leftMs());
      try {
        const result = await work(wrap(transactionId, leftMs));
        const commit = new CommitTransactionCommand({ ...cluster, transactionId });
        await send((abortSignal) => client.send(commit, { abortSignal }), leftMs());
        return result;
      } catch (cause) {
        const rollback = new RollbackTransactionCommand({ ...cluster, transactionId });
        await send((abortSignal) => client.send(rollback, { abortSignal }), ROLLBACK_TIMEOUT_MS).catch(() => {});
        throw cause;
      }
    },
    adopt(producer: ProducerTransaction) {
      if (!("transactionId" in producer) || typeof producer.transactionId !== "string") {
        throw new StintError(
          "transaction_invalid",
          "transaction: { transactionId } of the Data API is expected, as the tasks are reached through it.",
        );
      }
      return wrap(producer.transactionId);
    },
    async close() {
      client.destroy();
    },
  };
}

/** No type hints: the statements cast, as a null has no type whatever its hint. */
function parameterOf(name: string, type: ParameterType, value: string | number | boolean | null): SqlParameter {
  if (value === null || value === undefined) return { name, value: { isNull: true } };
  if (type === "bigint") return { name, value: { longValue: value as number } };
  if (type === "double") return { name, value: { doubleValue: value as number } };
  if (type === "boolean") return { name, value: { booleanValue: value as boolean } };
  return { name, value: { stringValue: value as string } };
}

const columnOf = (field: Field | undefined): string | number | boolean | null => {
  if (field === undefined || field.isNull) return null;
  return field.stringValue ?? field.longValue ?? field.doubleValue ?? field.booleanValue ?? null;
};
