export type PostgresErrorCode =
  | "platform_unsupported"
  | "binaries_missing"
  | "binaries_unusable"
  | "data_folder_in_use"
  | "data_folder_unreachable"
  | "data_folder_version"
  | "initdb_failed"
  | "start_failed"
  | "stopped";

/** Match on `code`: class names do not survive minification. */
export class PostgresError extends Error {
  readonly code: PostgresErrorCode;
  constructor(code: PostgresErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "PostgresError";
    this.code = code;
  }
}
