import { executeAnswer } from "./answers.ts";
import { ApiError, databaseError, fromPostgres, multistatement, notFound, statementTimeout } from "./errors.ts";
import type { Cluster } from "./options.ts";
import { bind } from "./parameters.ts";
import type { Login, Pool } from "./pool.ts";
import type { Operation, Request } from "./request.ts";
import type { PostgresFailure, Result, Session } from "./session.ts";
import { readStatement } from "./statement.ts";
import type { Later, Transactions } from "./transactions.ts";

export interface Backend {
  clusters: Map<string, { cluster: Cluster; pool: Pool }>;
  transactions: Transactions;
  statementTimeoutMs: number;
}

/** A cancelled statement that has not ended after this costs the connection. */
const cancelMs = 5_000;

/** @returns the answer's body, as JSON text */
export async function perform(operation: Operation, request: Request, backend: Backend, later: Later): Promise<string> {
  const { resourceArn } = request;
  const { cluster, pool } = backend.clusters.get(resourceArn) ?? {};
  if (!cluster || !pool) throw notFound(`DB cluster ${resourceArn} is not found`);
  const login = loginFor(cluster, request);
  switch (operation) {
    case "ExecuteStatement": {
      const statement = checked(request.sql, () => bind(request.sql, request.parameters));
      return withSession(backend, pool, login, request, later, async (session) =>
        executeAnswer(request, await inTime(session.run([statement]), session, request, backend), session),
      );
    }
    case "BatchExecuteStatement": {
      const sets = request.parameterSets.length > 0 ? request.parameterSets : [[]];
      const statements = checked(request.sql, () => sets.map((set) => bind(request.sql, set)));
      await withSession(backend, pool, login, request, later, (session) =>
        inTime(session.run(statements, false), session, request, backend),
      );
      return JSON.stringify({ updateResults: request.parameterSets.map(() => ({ generatedFields: [] })) });
    }
    case "BeginTransaction":
      return JSON.stringify({ transactionId: await backend.transactions.begin(request, login, pool) });
    case "CommitTransaction":
    case "RollbackTransaction": {
      const commit = operation === "CommitTransaction";
      const transaction = backend.transactions.use(request);
      later(await backend.transactions.end(transaction, commit ? "COMMIT" : "ROLLBACK"));
      return JSON.stringify({ transactionStatus: commit ? "Transaction Committed" : "Rollback Complete" });
    }
  }
}

const ownDatabases = new WeakMap<Cluster, string>();

function ownDatabase(cluster: Cluster): string {
  const known = ownDatabases.get(cluster);
  if (known !== undefined) return known;
  const { pathname } = new URL(cluster.url.replace("@/", "@localhost/"));
  const own = decodeURIComponent(pathname.slice(1)) || "postgres";
  ownDatabases.set(cluster, own);
  return own;
}

function loginFor(cluster: Cluster, { secretArn, database }: Request): Login {
  // Half a surrogate pair cannot be sent: it becomes the replacement character, as in any other text.
  const named = (database ?? cluster.database ?? ownDatabase(cluster)).toWellFormed();
  if (named.includes("\0"))
    throw databaseError('FATAL: invalid byte sequence for encoding "UTF8": 0x00; SQLState: 22021');
  if (!cluster.secrets) return { database: named, user: undefined, password: undefined };
  const secret = Object.hasOwn(cluster.secrets, secretArn) ? cluster.secrets[secretArn] : undefined;
  if (!secret) throw new ApiError("SecretsErrorException", 400, "The secret provided wasn't found.");
  return { database: named, user: secret.user, password: secret.password };
}

function checked<T>(sql: string, work: () => T): T {
  // Postgres's protocol ends a text at its first NUL: what follows would be read as protocol.
  if (sql.includes("\0"))
    throw databaseError('ERROR: invalid byte sequence for encoding "UTF8": 0x00; SQLState: 22021');
  if (readStatement(sql).several) throw multistatement();
  return work();
}

/** The transaction's session, or one that serves this call only. */
async function withSession<T>(
  { transactions }: Backend,
  pool: Pool,
  login: Login,
  request: Request,
  later: Later,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  if (request.transactionId !== undefined) {
    const transaction = transactions.use(request);
    try {
      return await work(transaction.session);
    } catch (failure) {
      throw asApiError(failure);
    } finally {
      transactions.rest(transaction, later);
    }
  }
  const session = await pool.take(login);
  try {
    return await work(session);
  } catch (failure) {
    throw asApiError(failure);
  } finally {
    later(() => void session.settled().then(() => pool.giveBack(session)));
  }
}

const asApiError = (failure: unknown) =>
  failure instanceof Error && !("severity" in failure) ? failure : fromPostgres(failure as PostgresFailure);

async function inTime(
  running: Promise<Result>,
  session: Session,
  { continueAfterTimeout }: Request,
  { statementTimeoutMs }: Backend,
): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(resolve, statementTimeoutMs, "late");
  });
  const first = await Promise.race([running, late]).finally(() => clearTimeout(timer));
  if (first !== "late") return first;
  running.catch(() => {});
  if (!continueAfterTimeout) await cancelled(session);
  throw statementTimeout(session.processId);
}

async function cancelled(session: Session): Promise<void> {
  const giveUp = setTimeout(() => session.destroy(), cancelMs);
  session.cancel();
  await session.settled();
  clearTimeout(giveUp);
}
