import { randomBytes } from "node:crypto";
import { type ApiError, databaseError, fromPostgres, transactionNotFound, validation } from "./errors.ts";
import type { Login, Pool } from "./pool.ts";
import type { Request } from "./request.ts";
import type { PostgresFailure, Session } from "./session.ts";

const longestMs = 24 * 60 * 60 * 1000;

export interface Transaction {
  id: string;
  resourceArn: string;
  secretArn: string;
  login: Login;
  pool: Pool;
  session: Session;
  /** Null while a call runs in it. */
  idle: NodeJS.Timeout | null;
  longest: NodeJS.Timeout;
}

/** Work for after the answer: what it costs is not the caller's to wait for. */
export type Later = (work: () => void) => void;

/** Open transactions by id. One that is left alone is rolled back, and then nobody knows it. */
export class Transactions {
  readonly #open = new Map<string, Transaction>();
  readonly #idleMs: number;

  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  async begin({ resourceArn, secretArn }: Request, login: Login, pool: Pool): Promise<string> {
    const session = await pool.take(login);
    try {
      await session.command("BEGIN ISOLATION LEVEL READ COMMITTED");
    } catch (failure) {
      await pool.giveBack(session);
      throw fromPostgres(failure as PostgresFailure);
    }
    const id = randomBytes(120).toString("base64");
    const longest = setTimeout(() => this.#drop(id), longestMs).unref();
    const transaction: Transaction = { id, resourceArn, secretArn, login, pool, session, idle: null, longest };
    this.#open.set(id, transaction);
    this.#rest(transaction);
    return id;
  }

  /** The transaction, for one call. Give it back with `rest` or end it with `end`. */
  use({ transactionId: id = "", resourceArn, secretArn, database }: Request): Transaction {
    const transaction = this.#open.get(id);
    if (transaction?.resourceArn !== resourceArn || transaction.secretArn !== secretArn) throw transactionNotFound(id);
    if (database !== undefined && database !== transaction.login.database)
      throw validation("Database name is not the same as the transaction's database");
    // Also one that ran into its time limit and went on, see continueAfterTimeout.
    if (transaction.session.busy || transaction.idle === null) throw stillRunning();
    if (transaction.session.transactionEnded) {
      this.#drop(id);
      throw transactionNotFound(id);
    }
    clearTimeout(transaction.idle);
    transaction.idle = null;
    return transaction;
  }

  /** Until the next call, unless the statement was a COMMIT or the like: nobody knows the transaction any more then. */
  rest(transaction: Transaction, later: Later): void {
    if (!this.#open.has(transaction.id)) return;
    if (transaction.session.transactionEnded) later(() => this.#drop(transaction.id));
    else this.#rest(transaction);
  }

  /** @returns what ends the session's use, to be called after the answer */
  async end(transaction: Transaction, command: "COMMIT" | "ROLLBACK"): Promise<() => void> {
    this.#forget(transaction);
    const giveBack = () => void transaction.pool.giveBack(transaction.session);
    // Postgres would answer this COMMIT with a ROLLBACK and no error.
    const doomed = command === "COMMIT" && transaction.session.aborted;
    try {
      await transaction.session.command(doomed ? "ROLLBACK" : command);
      if (doomed) throw aborted();
    } catch (failure) {
      giveBack();
      throw "status" in (failure as object) ? failure : fromPostgres(failure as PostgresFailure);
    }
    return giveBack;
  }

  #rest(transaction: Transaction): void {
    transaction.idle = setTimeout(() => this.#drop(transaction.id), this.#idleMs).unref();
  }

  #drop(id: string): void {
    const transaction = this.#open.get(id);
    if (!transaction) return;
    this.#forget(transaction);
    if (transaction.session.busy) transaction.session.destroy();
    else void transaction.pool.giveBack(transaction.session);
  }

  #forget(transaction: Transaction): void {
    if (transaction.idle) clearTimeout(transaction.idle);
    clearTimeout(transaction.longest);
    this.#open.delete(transaction.id);
  }

  close(): void {
    for (const id of [...this.#open.keys()]) this.#drop(id);
  }
}

const stillRunning = (): ApiError => databaseError("Transaction is still running a query");

const aborted = (): ApiError =>
  databaseError(
    "ERROR: current transaction is aborted, commands ignored until end of transaction block; SQLState: 25P02",
  );
