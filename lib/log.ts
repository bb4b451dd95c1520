/** Structured logs: one JSON object a line, or a line for people; on stderr, so that stdout stays the program's answer. */
import { type LogStyle, logStyle } from "./config.ts";

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

export type LogLine = { level: LogLevel; message: string } & Record<string, unknown>;
export type LogSink = (line: LogLine) => void;

/** By the environment: for people where NODE_ENV is development or stderr is a terminal, else JSON; debug lines only with LOG_LEVEL=DEBUG. */
const toStderr = (style: LogStyle = logStyle()): LogSink => {
  return (line) => {
    if (line.level === "debug" && !style.debug) return;
    process.stderr.write(`${style.readable ? readable(line) : json(line)}\n`);
  };
};

export const createLog = (sink: LogSink = toStderr(), fields: LogFields = {}): Log => new Lines(sink, fields);

/** A class, as one is made for each task: methods of its own would cost more than a line. */
class Lines implements Log {
  readonly #sink: LogSink;
  readonly #fields: LogFields;

  constructor(sink: LogSink, fields: LogFields) {
    this.#sink = sink;
    this.#fields = fields;
  }

  debug(message: string, fields?: LogFields): void {
    this.#sink({ level: "debug", message, ...this.#fields, ...fields });
  }

  info(message: string, fields?: LogFields): void {
    this.#sink({ level: "info", message, ...this.#fields, ...fields });
  }

  warn(message: string, fields?: LogFields): void {
    this.#sink({ level: "warn", message, ...this.#fields, ...fields });
  }

  error(message: string, fields?: LogFields): void {
    this.#sink({ level: "error", message, ...this.#fields, ...fields });
  }

  with(fields: LogFields): Log {
    return new Lines(this.#sink, { ...this.#fields, ...fields });
  }
}

/** Says nothing. */
export const silentLog = createLog(() => {});

/** The names and spellings of AWS Lambda Powertools, so that one query finds both. */
const json = ({ level, message, ...fields }: LogLine): string =>
  JSON.stringify({ level: level.toUpperCase(), message, timestamp: new Date().toISOString(), ...fields });

/** Time, level, message, then `name=value`. */
export function readable({ level, message, ...fields }: LogLine): string {
  const shown = Object.entries(fields).map(([name, value]) => ` ${name}=${shortened(name, value)}`);
  return `${new Date().toISOString()} ${level.padEnd(5)} ${message}${shown.join("")}`;
}

function shortened(name: string, value: unknown): string {
  if (name === "invocation") return String(value).slice(0, 8);
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  return /^[^\s"]+$/.test(text) ? text : JSON.stringify(text);
}
