import type pg from "pg";
import { ApiError, fromPostgres, unavailable } from "./errors.ts";
import { type PostgresFailure, Session } from "./session.ts";
import type { PostgresType } from "./types.ts";

export interface Login {
  database: string;
  user: string | undefined;
  password: string | undefined;
}

export interface PoolOptions {
  url: string;
  maxConnections: number;
  rotate: boolean;
  waitMs: number;
}

/** Idle sessions go soon: they keep a database from being dropped or used as a template. */
const idleMs = 5_000;

/** A session whose statements were longer than this has plans that are worth keeping. */
const plansMs = 1;
/**
 * What DISCARD ALL does, but for the plans, which nobody sees. To make those of a large function again costs
 * milliseconds a call; beside a small statement DISCARD ALL is the cheaper of the two.
 */
const discardAllButPlans = [
  "CLOSE ALL",
  "SET SESSION AUTHORIZATION DEFAULT",
  "RESET ALL",
  "DEALLOCATE ALL",
  "UNLISTEN *",
  "SELECT pg_catalog.pg_advisory_unlock_all()",
  "DISCARD TEMP",
  "DISCARD SEQUENCES",
].join("; ");

interface Idle {
  session: Session;
  key: string;
  since: number;
}

interface Waiting {
  key: string;
  login: Login;
  resolve(session: Session): void;
  reject(error: unknown): void;
  timer: NodeJS.Timeout;
}

/** The Postgres connections of one cluster, over all its databases and users. */
export class Pool {
  readonly #options: PoolOptions;
  readonly #all = new Map<Session, string>();
  readonly #types = new Map<string, Map<number, PostgresType>>();
  /** Longest idle first. */
  readonly #idle: Idle[] = [];
  readonly #waiting: Waiting[] = [];
  #opening = 0;
  #lastUsed: Session | undefined;
  readonly #sweep: NodeJS.Timeout;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#sweep = setInterval(() => this.#closeIdle(Date.now() - idleMs), 1_000).unref();
  }

  take(login: Login): Promise<Session> {
    const key = JSON.stringify([login.database, login.user, login.password]);
    const idle = this.#waiting.length === 0 ? this.#takeIdle(key) : undefined;
    if (idle) return Promise.resolve(idle);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        reject(waitedTooLong());
      }, this.#options.waitMs);
      const waiting: Waiting = { key, login, resolve, reject, timer };
      this.#waiting.push(waiting);
      this.#serve();
    });
  }

  /** In the order of arrival, as far as there are sessions or room for them. */
  #serve(): void {
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      const idle = this.#takeIdle(next.key);
      const room = idle || this.#size < this.#options.maxConnections || this.#makeRoom();
      if (!room) return;
      this.#waiting.shift();
      clearTimeout(next.timer);
      if (idle) next.resolve(idle);
      else this.#open(next.key, next.login).then(next.resolve, next.reject);
    }
  }

  /** With rotation, no call gets the session of the call before it, unless there is no other to be had. */
  #takeIdle(key: string): Session | undefined {
    const mayRepeat = !this.#options.rotate || this.#size >= this.#options.maxConnections;
    // The latest of the others: its caches are warm, and what a burst has opened closes after it.
    const at = this.#idle.findLastIndex((idle) => idle.key === key && (mayRepeat || idle.session !== this.#lastUsed));
    if (at < 0) return undefined;
    this.#lastUsed = this.#idle.splice(at, 1)[0]!.session;
    return this.#lastUsed;
  }

  /** Closes an idle session, which is one of another database or user. */
  #makeRoom(): boolean {
    const idle = this.#idle.shift();
    if (!idle) return false;
    this.#all.delete(idle.session);
    idle.session.onGone = () => {};
    idle.session.destroy();
    return true;
  }

  get #size(): number {
    return this.#all.size + this.#opening;
  }

  async #open(key: string, login: Login): Promise<Session> {
    const types = this.#types.get(login.database) ?? new Map<number, PostgresType>();
    this.#types.set(login.database, types);
    const session = new Session(configFor(this.#options.url, login), types);
    this.#opening++;
    try {
      await session.connect();
    } catch (error) {
      session.destroy();
      this.#opening--;
      this.#serve();
      throw connectFailure(error as PostgresFailure);
    }
    this.#opening--;
    this.#all.set(session, key);
    session.onGone = () => this.#forget(session);
    if (session.broken) this.#forget(session);
    this.#lastUsed = session;
    return session;
  }

  #forget(session: Session): void {
    this.#all.delete(session);
    const at = this.#idle.findIndex((idle) => idle.session === session);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#serve();
  }

  /** Called after the answer was sent: makes the session as new, then gives it to the next call. */
  async giveBack(session: Session): Promise<void> {
    if (session.broken) return;
    try {
      if (session.inTransaction) await session.command("ROLLBACK");
      if (this.#options.rotate) await session.command(session.longestMs > plansMs ? discardAllButPlans : "DISCARD ALL");
      session.longestMs = 0;
    } catch {
      session.destroy();
      return;
    }
    const key = this.#all.get(session);
    if (key === undefined) return;
    this.#idle.push({ session, key, since: Date.now() });
    this.#serve();
  }

  #closeIdle(before: number): void {
    for (const { session } of this.#idle.filter(({ since }) => since < before)) session.destroy();
  }

  close(): void {
    clearInterval(this.#sweep);
    for (const session of [...this.#all.keys()]) session.destroy();
    for (const waiting of this.#waiting.splice(0)) {
      clearTimeout(waiting.timer);
      waiting.reject(unavailable());
    }
  }
}

const waitedTooLong = () =>
  new ApiError("StatementTimeoutException", 400, "Request timed out waiting for a connection", { dbConnectionId: 0 });

function configFor(url: string, { database, user, password }: Login): pg.ClientConfig {
  // pg lets the connection string win over everything beside it, so the URL itself is changed.
  const changed = new URL(url.replace(/@\//, "@localhost/"));
  changed.pathname = `/${encodeURIComponent(database)}`;
  if (user !== undefined) changed.username = encodeURIComponent(user);
  if (user !== undefined) changed.password = encodeURIComponent(password ?? "");
  return { connectionString: changed.href };
}

/** A server that answers says why it refuses; one that does not is unavailable. */
function connectFailure(error: PostgresFailure): ApiError {
  return error.severity === undefined ? unavailable() : fromPostgres(error);
}
