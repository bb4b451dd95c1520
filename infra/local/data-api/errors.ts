import type { PostgresFailure } from "./session.ts";

/** An answer other than 200, by the name the SDKs match on. */
export class ApiError extends Error {
  readonly code: string;
  readonly status: number;
  readonly members: Record<string, unknown>;
  constructor(code: string, status: number, message: string, members: Record<string, unknown> = {}) {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.status = status;
    this.members = members;
  }
}

/** Destroy the connection in place of an answer. */
export class Drop extends Error {}

export const validation = (message: string) => new ApiError("ValidationException", 400, message);

export const constraint = (value: string, member: string, rule: string) =>
  validation(
    `1 validation error detected: Value ${value} at '${member}' failed to satisfy constraint: Member must ${rule}`,
  );

export const databaseError = (message: string) => new ApiError("DatabaseErrorException", 400, message);

export const notFound = (message: string) => new ApiError("NotFoundException", 404, message);

export const unsupportedResult = (message: string) => new ApiError("UnsupportedResultException", 400, message);

export const transactionNotFound = (id: string) =>
  new ApiError("TransactionNotFoundException", 404, `Transaction ${id} is not found`);

export const unavailable = () =>
  new ApiError("DatabaseUnavailableException", 504, "The writer instance in the DB cluster isn't available.");

export const statementTimeout = (connectionId: number) =>
  new ApiError("StatementTimeoutException", 400, "Request timed out", { dbConnectionId: connectionId });

/** The server goes down, is down, or is coming up. */
const unavailableStates = new Set(["57P01", "57P02", "57P03"]);

export function fromPostgres(failure: PostgresFailure): ApiError {
  if (failure.code === undefined || unavailableStates.has(failure.code)) return unavailable();
  if (failure.code === "42601" && failure.message.startsWith("cannot insert multiple commands"))
    return multistatement();
  const parts = [`${failure.severity ?? "ERROR"}: ${failure.message}`];
  if (failure.detail) parts.push(`Detail: ${failure.detail}`);
  if (failure.hint) parts.push(`Hint: ${failure.hint}`);
  if (failure.position) parts.push(`Position: ${failure.position}`);
  return databaseError([...parts, `SQLState: ${failure.code}`].join("; "));
}

export const multistatement = () => validation("Multistatements aren't supported.");
