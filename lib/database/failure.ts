import { type ErrorCode, StintError } from "../errors.ts";
import { explained } from "./refusals.ts";

/**
 * What a failed statement means for its caller.
 * - now: rolled back for a passing reason (deadlock, serialisation): repeat at once.
 * - later: not executed, the database is not there (resuming, refused, throttled): repeat with back-off.
 * - unknown: it may have committed (time-out, reset, 5xx): repeat only what answers a repetition the same way.
 * - never: a repetition fails the same way.
 */
export type Retry = "now" | "later" | "unknown" | "never";

/** A statement failed. Codes: database_unavailable, database_outcome_unknown, database_failed, schema_missing and those of our own SQL states. */
export class DatabaseError extends StintError {
  readonly retry: Retry;
  readonly sqlState: string | undefined;
  /** The CHECK or unique constraint concerned, where the database named one. */
  readonly constraint: string | undefined;
  constructor(code: ErrorCode, message: string, retry: Retry, sqlState: string | undefined, cause: unknown) {
    super(code, message, { cause });
    this.name = "DatabaseError";
    this.retry = retry;
    this.sqlState = sqlState;
    this.constraint = /constraint "([^"]+)"/.exec(message)?.[1];
  }
}

const messageOf = (cause: unknown): string => {
  if (cause instanceof AggregateError && cause.errors.length > 0) return messageOf(cause.errors[0]);
  return cause instanceof Error ? cause.message : String(cause);
};

const unavailable = (cause: unknown): DatabaseError =>
  new DatabaseError(
    "database_unavailable",
    `The database cannot be reached: ${messageOf(cause)}`,
    "later",
    undefined,
    cause,
  );

const unknownOutcome = (cause: unknown): DatabaseError =>
  new DatabaseError(
    "database_outcome_unknown",
    `The database did not answer: ${messageOf(cause)}`,
    "unknown",
    undefined,
    cause,
  );

/** Classifies by SQLSTATE, the one thing both adapters give. */
export function failureOfState(sqlState: string, cause: unknown): DatabaseError {
  const message = messageOf(cause);
  const fail = (code: ErrorCode, retry: Retry, text = message) => new DatabaseError(code, text, retry, sqlState, cause);
  if (sqlState === "40001" || sqlState === "40P01" || sqlState === "55P03") return fail("database_failed", "now");
  // 25006: what was the writer until a failover.
  if (/^(08001|08004|25006|53300|57P03)$/.test(sqlState))
    return fail("database_unavailable", "later", `The database cannot be reached: ${message}`);
  // The connection ended, perhaps between a commit and its answer. 08P01 is a statement that does not fit its parameters.
  if (/^(08(?!P01)|40003|57P0[12])/.test(sqlState))
    return fail("database_outcome_unknown", "unknown", `The database did not answer: ${message}`);
  if (/^(42P01|42883|3F000)$/.test(sqlState) && /schema|relation|function/.test(message)) {
    return fail(
      "schema_missing",
      "never",
      `The database lacks Stint's schema, or it is older than this release: run \`stint migrate\`. (${message})`,
    );
  }
  if (sqlState === "TP001") return fail("isolation_unsupported", "never");
  if (sqlState === "TP002") return fail("option_invalid", "never");
  if (/^(57014|53|58|XX)/.test(sqlState)) return fail("database_failed", "later");
  return fail("database_failed", "never", /^(28|3D000|42501)/.test(sqlState) ? explained(message, sqlState) : message);
}

/** Classifies what pg throws at a statement: a DatabaseError of the server by SQLSTATE, else a broken connection. */
export function failureOfPg(cause: unknown): DatabaseError {
  if (cause instanceof DatabaseError) return cause;
  const code = (cause as { code?: unknown } | null)?.code;
  if (
    typeof code === "string" &&
    /^[0-9A-Z]{5}$/.test(code) &&
    (cause as { severity?: unknown }).severity !== undefined
  ) {
    return failureOfState(code, cause);
  }
  return unknownOutcome(cause);
}

/** The same before there was a connection: what broke off then has done nothing. */
export function failureOfConnecting(cause: unknown): DatabaseError {
  const failure = failureOfPg(cause);
  return failure.retry === "unknown" ? unavailable(cause) : failure;
}

const NOT_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "ENOENT", "EHOSTUNREACH", "ENETUNREACH"]);

/** Refused before it ran, for a passing reason. */
const NOT_YET = /^(DatabaseResuming|InvalidResourceState|Throttling|TooManyRequests|ServiceQuotaExceeded)/;

/**
 * Classifies what the Data API's client throws: the SQLSTATE its message ends with, else the error's name and status. Where it has had an
 * answer before, credentials that cannot be fetched will be again; else they are not set up.
 */
export function failureOfDataApi(cause: unknown, answered = false): DatabaseError {
  if (cause instanceof DatabaseError) return cause;
  const name = cause instanceof Error ? cause.name : "";
  const states = [...messageOf(cause).matchAll(/SQLState: ([0-9A-Z]{5})/g)];
  const sqlState = states.at(-1)?.[1];
  if (sqlState !== undefined) return failureOfState(sqlState, cause);
  const { code, syscall, $metadata } = (cause ?? {}) as {
    code?: unknown;
    syscall?: unknown;
    $metadata?: { httpStatusCode?: number };
  };
  const status = $metadata?.httpStatusCode ?? 0;
  if (NOT_YET.test(name) || status === 429) return unavailable(cause);
  if (name === "CredentialsProviderError" && answered) return unavailable(cause);
  // A connection that is kept alive can become unreachable while its answer is awaited.
  const hadConnection = syscall === "read" || syscall === "write";
  if (typeof code === "string" && NOT_SENT.has(code) && !hadConnection) return unavailable(cause);
  // The rest of 4xx is what the caller sent, or may not do. A time-out is among them, and says nothing of the statement.
  const refused = status >= 400 && status < 500 && status !== 408 && !name.startsWith("StatementTimeout");
  if (refused || name === "CredentialsProviderError") {
    return new DatabaseError("database_failed", explained(`${name}: ${messageOf(cause)}`), "never", undefined, cause);
  }
  return unknownOutcome(cause);
}
