import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { ApiError, Drop } from "./errors.ts";

/** A request may have so much, headers included. */
const requestBytes = 4 * 1024 * 1024;
/** What is too large is read to its end, because a client that still writes does not read the answer; but not for ever. */
const toleratedBytes = 16 * requestBytes;

export function readBody(request: IncomingMessage): Promise<Buffer> {
  let bytes = request.rawHeaders.reduce((sum, text) => sum + text.length + 2, 0);
  let chunks: Buffer[] = [];
  // Listeners rather than `for await`, which costs more than the rest of this function.
  return new Promise((resolve, reject) => {
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= requestBytes) chunks.push(chunk);
      else chunks = [];
      if (bytes > toleratedBytes) request.destroy();
    });
    request.on("end", () => {
      if (bytes > requestBytes) reject(tooLarge());
      else resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
    });
    // Before "end", the sender went away or was too slow, or we close. An error has a stack, so it is not made for nothing.
    const cut = () => reject(bytes > requestBytes ? tooLarge() : new Drop());
    request.on("close", () => {
      if (!request.readableEnded) cut();
    });
    request.on("error", cut);
  });
}

const tooLarge = () =>
  new ApiError("RequestEntityTooLargeException", 413, "The request is larger than the allowed 4 MiB.");

export interface Answer {
  status: number;
  error?: string;
  /** JSON text. */
  body: string;
}

export function answerOf(error: unknown): Answer {
  // Whatever else is thrown is a mistake of ours: the caller learns that, the process goes on.
  const known =
    error instanceof ApiError
      ? error
      : new ApiError("InternalServerErrorException", 500, "An internal error occurred.");
  return {
    status: known.status,
    error: known.code,
    body: JSON.stringify({ message: known.message, ...known.members }),
  };
}

export function send(response: ServerResponse, { status, error, body }: Answer): void {
  if (response.destroyed) return;
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    "x-amzn-requestid": randomUUID(),
    ...(error !== undefined && { "x-amzn-errortype": error }),
  });
  response.end(body);
}
