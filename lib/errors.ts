/**
 * The codes of a StintError. Handlers throw task_backoff and task_cancel besides (below); the command line has some of its own, such as
 * recurring_not_found; infra/reference.md says when each comes and what to do. Match on `error.code`, never on the class: bundles are
 * minified.
 */
export type ErrorCode =
  | "aborted"
  | "config_invalid"
  | "database_failed"
  | "database_outcome_unknown"
  | "database_unavailable"
  | "definition_invalid"
  | "delay_unsupported"
  | "event_invalid"
  | "handler_missing"
  | "handlers_missing"
  | "isolation_unsupported"
  | "migration_changed"
  | "option_invalid"
  | "payload_invalid"
  | "payload_not_json"
  | "payload_too_large"
  | "run_method_unsupported"
  | "schema_missing"
  | "slot_invalid"
  | "transaction_invalid"
  | "wake_failed";

/** An error a caller can act on: a stable `code`, a message that says what to do. */
export class StintError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "StintError";
    this.code = code;
  }
}

/** Thrown by a handler: try again at `delayUntil`, or after TASK_BACKOFF_DEFAULT_DELAY_SECONDS. Counts as an attempt. */
export class TaskBackoffError extends Error {
  readonly code = "task_backoff";
  readonly delayUntil: Date | undefined;
  constructor(options: { delayUntil?: Date; message?: string } = {}) {
    super(options.message ?? "The task asked to be tried again later.");
    this.name = "TaskBackoffError";
    this.delayUntil = options.delayUntil;
  }
}

/** Thrown by a handler: never try again. The task is kept with the failed ones, as cancelled. */
export class TaskCancelError extends Error {
  readonly code = "task_cancel";
  constructor(message = "The task was cancelled by its handler.") {
    super(message);
    this.name = "TaskCancelError";
  }
}

/** The `code` of anything that was thrown, or undefined. Never throws, as a getter of somebody else's may. */
export const codeOf = (error: unknown): string | undefined => {
  try {
    const code = (error as { code?: unknown } | null | undefined)?.code;
    return typeof code === "string" ? code : undefined;
  } catch {
    return undefined;
  }
};
