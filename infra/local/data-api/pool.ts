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

  async take(login: Login): Promise<Session> {
    const key = JSON.stringify([login.database, login.user, login.password]);
    const at = this.#idle.findIndex((idle) => idle.key === key && this.#mayUse(idle.session));
    if (at >= 0) return this.#used(this.#idle.splice(at, 1)[0]!.session);
    if (this.#size < this.#options.maxConnections || this.#makeRoom(key))
      return this.#used(await this.#open(key, login));
    return this.#wait(key, login);
  }

  /** With rotation, no call gets the session of the call before it, unless there is no other to be had. */
  #mayUse(session: Session): boolean {
    return !this.#options.rotate || session !== this.#lastUsed || this.#size >= this.#options.maxConnections;
  }

  #used(session: Session): Session {
    this.#lastUsed = session;
    return session;
  }

  get #size(): number {
    return this.#all.size + this.#opening;
  }

  /** Closes an idle session of another database or user. */
  #makeRoom(key: string): boolean {
    const at = this.#idle.findIndex((idle) => idle.key !== key);
    if (at < 0) return false;
    this.#idle.splice(at, 1)[0]!.session.destroy();
    return true;
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
      throw connectFailure(error as PostgresFailure);
    } finally {
      this.#opening--;
    }
    this.#all.set(session, key);
    session.onGone = () => this.#forget(session);
    if (session.broken) this.#forget(session);
    return session;
  }

  #forget(session: Session): void {
    this.#all.delete(session);
    const at = this.#idle.findIndex((idle) => idle.session === session);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#serveWaiting();
  }

  #wait(key: string, login: Login): Promise<Session> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        reject(
          new ApiError("StatementTimeoutException", 400, "Request timed out waiting for a connection", {
            dbConnectionId: 0,
          }),
        );
      }, this.#options.waitMs);
      const waiting: Waiting = { key, login, resolve, reject, timer };
      this.#waiting.push(waiting);
    });
  }

  /** Called after the answer was sent: makes the session as new, then gives it to the next call. */
  async giveBack(session: Session): Promise<void> {
    if (session.broken) return;
    try {
      if (session.inTransaction) await session.command("ROLLBACK");
      if (this.#options.rotate) await session.command("DISCARD ALL");
    } catch {
      session.destroy();
      return;
    }
    const key = this.#all.get(session);
    if (key === undefined) return;
    const at = this.#waiting.findIndex((waiting) => waiting.key === key);
    if (at >= 0) return this.#hand(this.#waiting.splice(at, 1)[0]!, session);
    this.#idle.push({ session, key, since: Date.now() });
    this.#serveWaiting();
  }

  #hand(waiting: Waiting, session: Session): void {
    clearTimeout(waiting.timer);
    waiting.resolve(this.#used(session));
  }

  #serveWaiting(): void {
    const next = this.#waiting[0];
    if (!next || (this.#size >= this.#options.maxConnections && !this.#makeRoom(next.key))) return;
    this.#waiting.shift();
    clearTimeout(next.timer);
    this.#open(next.key, next.login).then((session) => next.resolve(this.#used(session)), next.reject);
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
