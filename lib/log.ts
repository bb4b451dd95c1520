/** Structured logs: one JSON object a line, on stderr, so that stdout stays the program's answer. */

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** The same log with fields of its own in each line. */
  with(fields: LogFields): Log;
}

export type LogSink = (line: { level: LogLevel; message: string } & Record<string, unknown>) => void;

const toStderr: LogSink = (line) => {
  process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), ...line })}\n`);
};

export function createLog(sink: LogSink = toStderr, fields: LogFields = {}): Log {
  const at =
    (level: LogLevel) =>
    (message: string, more: LogFields = {}): void =>
      sink({ level, message, ...fields, ...more });
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (more) => createLog(sink, { ...fields, ...more }),
  };
}

/** Says nothing. */
export const silentLog = createLog(() => {});
