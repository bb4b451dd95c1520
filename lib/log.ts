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
    this.#say("debug", message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.#say("info", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#say("warn", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.#say("error", message, fields);
  }

  /** Level and message are what was called, whatever fields are named so. */
  #say(level: LogLevel, message: string, fields: LogFields | undefined): void {
    this.#sink({ ...this.#fields, ...fields, level, message });
  }

  with(fields: LogFields): Log {
    return new Lines(this.#sink, { ...this.#fields, ...fields });
  }
}

/** Says nothing. */
export const silentLog = createLog(() => {});

/** The names and spellings of AWS Lambda Powertools, so that one query finds both. */
function json({ level, message, ...fields }: LogLine): string {
  const frame = { level: level.toUpperCase(), message, timestamp: new Date().toISOString() };
  return textOf({ ...frame, ...fields, ...frame }) ?? JSON.stringify({ ...frame, fields: "not JSON" });
}

/** JSON, with errors and bigints as text; undefined where there is none. A line never fails the task that says it. */
function textOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value, (_, part: unknown) =>
      part instanceof Error ? (part.stack ?? String(part)) : typeof part === "bigint" ? String(part) : part,
    );
  } catch {
    return undefined;
  }
}

/** Time, level, message, then `name=value`. */
export function readable({ level, message, ...fields }: LogLine): string {
  const shown = Object.entries(fields).map(([name, value]) => ` ${name}=${shortened(name, value)}`);
  return `${new Date().toISOString()} ${level.padEnd(5)} ${message}${shown.join("")}`;
}

function shortened(name: string, value: unknown): string {
  if (name === "invocation") return String(value).slice(0, 8);
  const text = typeof value === "string" ? value : (textOf(value) ?? typeof value);
  return /^[^\s"]+$/.test(text) ? text : JSON.stringify(text);
}
