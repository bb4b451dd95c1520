export interface DataApiOptions {
  /** 0: any free one. */
  port?: number;
  host?: string;
  clusters: Cluster[];
  /** Signatures are verified against this pair. Without it they need the right shape only. */
  credentials?: Credentials;
  faults?: FaultOptions;
  /** Accept POST and DELETE /__faults. */
  control?: boolean;
  /** A file that gets one JSON line a call. It holds the statements and their parameters. One that cannot be opened is an error. */
  record?: string;
  /** Postgres connections a cluster gets, open transactions included. */
  maxConnections?: number;
  statementTimeoutMs?: number;
  transactionIdleMs?: number;
  /** Two calls in a row never get the same session, and each finds it as new. False keeps one session warm. */
  rotate?: boolean;
  /** For a request to arrive in full. */
  requestTimeoutMs?: number;
}

export interface Cluster {
  resourceArn: string;
  /** A Postgres URL. The request's `database` replaces the database in it. */
  url: string;
  database?: string;
  /** By secret ARN. Absent: any secret is accepted as the user of the URL. */
  secrets?: Record<string, { user: string; password?: string }>;
}

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
}

/** A probability from 0 to 1, or the next n calls. */
export type Chance = number | { next: number };

export interface FaultOptions {
  /** The same seed gives the same faults to the same sequence of calls. */
  seed?: number;
  /** Only calls whose SQL contains this; BeginTransaction and the like have the SQL "BEGIN", "COMMIT", "ROLLBACK". */
  match?: string;
  /** Added to a call before it runs. */
  latencyMs?: number;
  /** Which calls get `latencyMs`: all, unless it is given. */
  latency?: Chance;
  /** DatabaseResumingException from now on for so long, as when a paused cluster wakes up. */
  resumingForMs?: number;
  /** InternalServerErrorException, ServiceUnavailableError or DatabaseUnavailableException; nothing has run. */
  serverError?: Chance;
  /** As serverError, but the call has run and committed. */
  commitThenError?: Chance;
  /** ThrottlingException; nothing has run. */
  throttle?: Chance;
  /** Runs the call, commits, and destroys the connection in place of an answer. */
  commitThenDrop?: Chance;
  /** Destroys the connection; nothing has run. */
  dropBefore?: Chance;
  /** StatementTimeoutException; nothing has run. */
  statementTimeout?: Chance;
}

export interface DataApi {
  readonly endpoint: string;
  readonly port: number;
  readonly faults: {
    set(faults: FaultOptions): void;
    clear(): void;
    /** How many of each kind, since the start. */
    readonly injected: Record<string, number>;
  };
  /**
   * Lets running calls finish, then closes every connection. Open transactions are rolled back. A request that has
   * not arrived in full is no running call.
   */
  close(): Promise<void>;
}
