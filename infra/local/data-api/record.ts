import { type FileHandle, open } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { finished } from "node:stream/promises";
import type { Answer } from "./http.ts";
import { operationNamed, pathOf } from "./request.ts";

export interface RecordedCall {
  request: IncomingMessage;
  /** Undefined: it was too large to be kept. */
  body: Buffer | undefined;
  /** Undefined: the connection was destroyed in place of it. */
  answer: Answer | undefined;
  durationMs: number;
}

export interface Recorder {
  write(call: RecordedCall): void;
  close(): Promise<void>;
}

/**
 * One JSON line a call, in the order of the answers.
 * @throws Error of code record_failed for a file that cannot be written to
 */
export async function openRecorder(file: string): Promise<Recorder> {
  const stream = (await opened(file)).createWriteStream();
  // A full disk must not take the calls with it.
  stream.on("error", ({ message }) => process.emitWarning(`Calls are no longer recorded in ${file}: ${message}`));
  return {
    write: (call) => void stream.write(lineOf(call)),
    async close() {
      stream.end();
      await finished(stream).catch(() => {});
    },
  };
}

async function opened(file: string): Promise<FileHandle> {
  try {
    return await open(file, "a");
  } catch (cause) {
    const error = new Error(`Calls cannot be recorded in ${file}: ${(cause as Error).message}`, { cause });
    throw Object.assign(error, { code: "record_failed" });
  }
}

/** Put together from JSON texts: what is parsed and written again is not as it came, nor are the digits of a long. */
function lineOf({ request, body, answer, durationMs }: RecordedCall): string {
  const { method, url = "" } = request;
  const head = {
    at: new Date().toISOString(),
    operation: operationNamed(request) ?? `${method} ${pathOf(url)}`,
    status: answer?.status ?? 0,
    error: answer?.error,
    durationMs,
  };
  return `${JSON.stringify(head).slice(0, -1)},"request":${asJson(body)},"response":${answer?.body ?? "null"}}\n`;
}

function asJson(body: Buffer | undefined): string {
  if (body === undefined) return "null";
  const text = body.toString("utf8");
  try {
    JSON.parse(text);
  } catch {
    return JSON.stringify(text);
  }
  // Between the values alone: a string of JSON has no line break in it.
  return text.replaceAll(/[\r\n]+/g, " ");
}
