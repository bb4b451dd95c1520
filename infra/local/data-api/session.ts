import pg from "pg";
import type { Bound } from "./parameters.ts";
import { builtInTypes, lookUpTypes, type PostgresType, typeFromCatalog } from "./types.ts";
import { type CancelTarget, type CancelWire, sendAll, startupOptions, type Wire } from "./wire.ts";

/** Of an ErrorResponse, or, without a code, of a connection that broke. */
export interface PostgresFailure {
  code?: string | undefined;
  severity?: string | undefined;
  message: string;
  detail?: string | undefined;
  hint?: string | undefined;
  position?: string | undefined;
}

export interface Column {
  name: string;
  tableID: number;
  columnID: number;
  dataTypeID: number;
  dataTypeSize: number;
  dataTypeModifier: number;
}

export interface Result {
  /** Undefined for a statement that returns no rows, as opposed to one that found none. */
  columns: Column[] | undefined;
  rows: Array<Array<string | null>>;
  rowBytes: number;
  /** For instance "UPDATE 3". */
  tag: string;
}

/** Rows past this are dropped as they arrive; they are more than an answer may hold. */
const keptBytes = 1024 * 1024;
/** A statement that goes on sending after this much is cancelled. */
const drainedBytes = 64 * 1024 * 1024;

/** ROLLBACK TO a savepoint has the same tag, and ends nothing. */
const chain = /\band\s+chain\b/i;

/** One Postgres connection that runs one thing at a time. */
export class Session {
  readonly #client: pg.Client;
  readonly #types: Map<number, PostgresType>;
  #status = "I";
  #settle: ((failure?: PostgresFailure) => void) | undefined;
  #last: Promise<void> = Promise.resolve();
  #cancelling: Promise<void> = Promise.resolve();
  #broken = false;
  #chained = false;
  /** The longest run since whoever set it to 0. */
  longestMs = 0;
  /** Called once, when the connection is gone. */
  onGone: () => void = () => {};

  constructor(config: pg.ClientConfig, types: Map<number, PostgresType>) {
    this.#types = types;
    this.#client = new pg.Client({
      ...config,
      options: startupOptions,
      application_name: "rds-data-api",
      connectionTimeoutMillis: 10_000,
    });
    this.#client.on("error", () => this.#gone());
    this.#client.on("end", () => this.#gone());
    this.#wire.prependListener("readyForQuery", ({ status }) => {
      this.#status = status;
      this.#finish();
    });
  }

  get #wire(): Wire {
    return (this.#client as unknown as { connection: Wire }).connection;
  }

  get processId(): number {
    return (this.#client as unknown as { processID: number | null }).processID ?? 0;
  }

  get broken(): boolean {
    return this.#broken;
  }

  /** Whether a transaction is open or aborted. */
  get inTransaction(): boolean {
    return this.#status !== "I";
  }

  /** Whether a statement ended the transaction that was begun by `command`, perhaps to begin another. */
  get transactionEnded(): boolean {
    return !this.inTransaction || this.#chained;
  }

  get aborted(): boolean {
    return this.#status === "E";
  }

  get busy(): boolean {
    return this.#settle !== undefined;
  }

  /** Resolves when nothing runs, however the last statement ended, and no cancel is under way that could hit the next. */
  async settled(): Promise<void> {
    await this.#last;
    await this.#cancelling;
  }

  async connect(): Promise<void> {
    await this.#client.connect();
  }

  /**
   * Runs them as one implicit transaction: a failure undoes them all. Rejects with a PostgresFailure.
   * @param withRows false: whatever rows they return, and however many, are passed over
   */
  run(statements: Bound[], withRows = true): Promise<Result> {
    const result: Result = { columns: undefined, rows: [], rowBytes: 0, tag: "" };
    let failure: PostgresFailure | undefined;
    const startedAt = performance.now();
    const done = this.#started((broken) => {
      this.longestMs = Math.max(this.longestMs, performance.now() - startedAt);
      return failure ?? broken;
    });
    this.#client.query({
      submit: (wire: Wire) => sendAll(wire, statements),
      handleRowDescription: ({ fields }: { fields: Column[] }) => {
        result.columns = fields;
      },
      handleDataRow: ({ fields, length }: { fields: Array<string | null>; length: number }) => {
        if (!withRows) return;
        const before = result.rowBytes;
        result.rowBytes += length;
        if (result.rowBytes <= keptBytes) result.rows.push(fields);
        else if (before <= drainedBytes && result.rowBytes > drainedBytes) this.cancel();
      },
      handleCommandComplete: ({ text }: { text: string }) => {
        result.tag = text;
        this.#chained ||= text === "COMMIT" || (text === "ROLLBACK" && chain.test(statements[0]!.text));
      },
      handleError: (error: PostgresFailure) => {
        // Past that size it is our own cancel, and the answer is that there was too much.
        if (result.rowBytes <= drainedBytes) failure = error;
      },
      handleEmptyQuery: () => {},
      handlePortalSuspended: () => {},
      handleReadyForQuery: () => {},
      // COPY FROM STDIN has nowhere to come from, and COPY TO STDOUT nowhere to go.
      // Postgres ignored our Sync while it waited for data.
      handleCopyInResponse: (wire: Wire) => {
        wire.sendCopyFail("COPY is not supported");
        wire.sync();
      },
      handleCopyData: () => {},
    } as unknown as pg.Submittable);
    return done.then(() => this.#cancelling).then(() => result);
  }

  /** Several at once, without parameters or rows: BEGIN, COMMIT, DISCARD ALL. @returns the last command tag */
  async command(sql: string): Promise<string> {
    let failure: PostgresFailure | undefined;
    let tag = "";
    this.#chained = false;
    const done = this.#started((broken) => failure ?? broken);
    this.#client.query({
      submit: (wire: { query(text: string): void }) => wire.query(sql),
      handleRowDescription: () => {},
      handleDataRow: () => {},
      handleCommandComplete: ({ text }: { text: string }) => {
        tag = text;
      },
      handleError: (error: PostgresFailure) => {
        failure = error;
      },
      handleEmptyQuery: () => {},
      handleReadyForQuery: () => {},
    } as unknown as pg.Submittable);
    await done;
    return tag;
  }

  #started(failureOf: (broken?: PostgresFailure) => PostgresFailure | undefined): Promise<void> {
    if (this.#broken) return Promise.reject({ message: "Connection terminated" } satisfies PostgresFailure);
    const started = new Promise<void>((resolve, reject) => {
      this.#settle = (broken) => {
        const failure = failureOf(broken);
        if (failure) reject(failure);
        else resolve();
      };
    });
    this.#last = started.catch(() => {});
    return started;
  }

  #finish(broken?: PostgresFailure): void {
    const settle = this.#settle;
    this.#settle = undefined;
    settle?.(broken);
  }

  #gone(): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#finish({ message: "Connection terminated" });
    this.onGone();
  }

  /** The types of the columns; those a database defines itself are asked for once. */
  async typesOf(columns: Column[]): Promise<PostgresType[]> {
    const known = (id: number) => builtInTypes.get(id) ?? this.#types.get(id);
    const unknown = [...new Set(columns.map(({ dataTypeID }) => dataTypeID))].filter((id) => !known(id));
    if (unknown.length > 0) {
      const query = { text: lookUpTypes, types: [25], values: [`{${unknown.join(",")}}`] };
      for (const row of (await this.run([query])).rows) this.#types.set(...typeFromCatalog(row));
    }
    return columns.map(
      ({ dataTypeID }) => known(dataTypeID) ?? { name: String(dataTypeID), kind: "unsupported", jdbc: 1111 },
    );
  }

  /** Asks Postgres to end the statement that runs now. It does so soon, or not at all. */
  cancel(): void {
    const { host, port, processID, secretKey } = this.#client as unknown as CancelTarget;
    if (!processID) return;
    const wire = new pg.Connection({ ssl: false }) as unknown as CancelWire;
    // The server closes this connection once it has passed the request on.
    this.#cancelling = new Promise((resolve) => wire.on("end", resolve));
    wire.on("error", () => wire.stream.destroy());
    wire.on("connect", () => wire.cancel(processID, secretKey));
    if (host.startsWith("/")) wire.connect(`${host}/.s.PGSQL.${port}`);
    else wire.connect(port, host);
  }

  destroy(): void {
    this.#wire.stream.destroy();
    this.#gone();
  }
}
