/** The invocation's side of the exchange with one database: numbers, repeats, and knows how long the lease still runs. */
import { elapsedMs, type Moment, now, pause } from "./clock.ts";
import { DatabaseError } from "./database/failure.ts";
import { lockWaitMs } from "./database/limits.ts";
import type { Database } from "./database/port.ts";
import { StintError } from "./errors.ts";
import { type Answer, type ClaimedTask, decodeAnswer, encodeResults, type Header, type Request } from "./messages.ts";
import { type Registry, registrationOf } from "./registry.ts";
import { exchange, registerRelease } from "./sql/exchange.ts";
import { NEWEST_MIGRATION } from "./sql/migrations/newest.ts";

export interface LeaseOptions {
  readonly database: Database;
  /** A fresh UUID for each run of the processor, never the platform's request id: a duplicate event would share the lease. */
  readonly invocationId: string;
  readonly slot: number;
  /** Take the slot only when nobody has it. */
  readonly onlyFree: boolean;
  readonly registry: Registry;
  readonly graceMs: number;
}

/** The answer's size in bytes of payload. JSON in JSON may double, and 1 MiB is the Data API's limit; over pg it is memory that is bounded. */
const ANSWER_BYTES = { "data-api": 480_000, pg: 4_000_000 } as const;
/** How long the first exchange may wait for a database that resumes. */
const FIRST_ANSWER_MS = 60_000;
const LONGEST_PAUSE_MS = 1000;

export type Ending = "seat_taken" | "lost" | "ended";

/** Thrown by exchange when there is nothing more to exchange. */
export class LeaseOver extends Error {
  readonly ending: Ending;
  constructor(ending: Ending) {
    super(`The lease is over: ${ending}.`);
    this.ending = ending;
  }
}

export class Lease {
  readonly #options: LeaseOptions;
  readonly #lost = new AbortController();
  #seq = 0;
  #acked = 0;
  #confirmed: Moment | undefined;
  #watch: NodeJS.Timeout | undefined;
  /** Statements sent, repetitions among them. */
  requests = 0;

  constructor(options: LeaseOptions) {
    this.#options = options;
  }

  /** Aborts when the lease may have been given to another: everything held must stop. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Milliseconds in which it is certain that nobody else was given our tasks: grace less a quarter, from the sending of the last confirmed exchange. */
  leftMs(): number {
    if (this.#lost.signal.aborted) return 0;
    if (this.#confirmed === undefined) return Number.POSITIVE_INFINITY;
    return this.#options.graceMs * 0.75 - elapsedMs(this.#confirmed);
  }

  /** False once the lease has run out, however late a timer fires. Checked before anything starts. */
  holds(): boolean {
    if (this.leftMs() > 0) return true;
    this.#lose();
    return false;
  }

  /**
   * One exchange, repeated under its number until it is answered.
   * @throws LeaseOver when the lease is lost, the seat is taken, or it ended
   * @throws DatabaseError when the database refuses it for good
   */
  async exchange(request: Request, signal?: AbortSignal): Promise<Answer> {
    this.#seq += 1;
    const sentFirst = now();
    const text = JSON.stringify(this.#encode(request));
    for (let failures = 0; ; ) {
      if (!this.holds()) throw new LeaseOver("lost");
      if (this.#confirmed === undefined && (signal?.aborted || elapsedMs(sentFirst) > FIRST_ANSWER_MS))
        throw new LeaseOver("lost");
      const sent = now();
      try {
        const header = await this.#call(text);
        if (header === "again") continue;
        return this.#accept(header, sent, request.ending);
      } catch (error) {
        if (!(error instanceof DatabaseError)) throw error;
        if (error.retry === "never") {
          // Rolled back as a whole: the number was not used up.
          this.#seq -= 1;
          throw error;
        }
        failures += 1;
        const waitMs =
          error.retry === "now" && failures < 4
            ? 5 * Math.random()
            : Math.min(LONGEST_PAUSE_MS, 25 * 2 ** failures) * (0.5 + Math.random() / 2);
        await pause(Math.min(waitMs, this.#options.graceMs / 16), this.#lost.signal);
        if (this.#confirmed === undefined && elapsedMs(sentFirst) > FIRST_ANSWER_MS) throw error;
      }
    }
  }

  /** Ends the watch. */
  close(): void {
    clearTimeout(this.#watch);
  }

  async #call(text: string): Promise<{ header: Header; tasks: ClaimedTask[] } | "again"> {
    const { database, graceMs } = this.#options;
    this.requests += 1;
    const shareMs = Math.max(1000, Math.ceil(graceMs / 4));
    const timeoutMs = this.#confirmed === undefined ? FIRST_ANSWER_MS : shareMs;
    // A lost lease ends the waiting. The abandoned call is fenced by the database, but would take a seat and claim while nobody has called us silent.
    const request = `${text.slice(0, -1)},"waitMs":${lockWaitMs(Math.min(shareMs, this.leftMs()))}}`;
    const rows = await untilAborted(database.query(exchange, { request }, { timeoutMs }), this.#lost.signal);
    const said = decodeAnswer(rows);
    if (said === undefined) throw schemaTooOld();
    if (said.header.status === "unknown_release") {
      const { registry } = this.#options;
      this.requests += 1;
      const registration = JSON.stringify({ release: registry.release, tasks: registrationOf(registry) });
      await database.query(registerRelease, { request: registration }, { timeoutMs });
      return "again";
    }
    return said;
  }

  #accept({ header, tasks }: { header: Header; tasks: ClaimedTask[] }, sent: Moment, ending: boolean): Answer {
    if (header.status === "seat_taken") throw new LeaseOver("seat_taken");
    if (header.status === "gone" && ending && header.ended) throw new LeaseOver("ended");
    if (header.status !== "ok") {
      this.#lose();
      throw new LeaseOver("lost");
    }
    this.#acked = this.#seq;
    this.#confirmed = sent;
    this.#rewatch();
    return { ...header, tasks, firstOfLease: this.#seq === 1 };
  }

  #rewatch(): void {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => (this.holds() ? this.#rewatch() : undefined), Math.max(1, this.leftMs()));
  }

  #lose(): void {
    clearTimeout(this.#watch);
    this.#lost.abort(new StintError("aborted", "The invocation's lease has run out: others may run its tasks."));
  }

  #encode(request: Request): unknown {
    const { database, invocationId, slot, onlyFree, registry, graceMs } = this.#options;
    return {
      invocation: invocationId,
      slot,
      onlyFree,
      release: registry.release,
      graceMs,
      seq: this.#seq,
      acked: this.#acked,
      bytes: ANSWER_BYTES[database.adapter],
      ...request,
      ...encodeResults(request.results, performance.now()),
    };
  }
}

const schemaTooOld = (): DatabaseError =>
  new DatabaseError(
    "schema_missing",
    `The database's schema is older than this release: it lacks ${NEWEST_MIGRATION}. Run \`stint migrate\`. Nothing was claimed.`,
    "never",
    undefined,
    undefined,
  );

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(new LeaseOver("lost"));
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
