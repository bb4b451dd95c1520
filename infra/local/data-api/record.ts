import { createWriteStream } from "node:fs";
import { finished } from "node:stream/promises";
import type { Request } from "./request.ts";

export interface RecordedCall {
  operation: string;
  request: Request | undefined;
  status: number;
  error: string | undefined;
  /** JSON text. */
  body: string;
  durationMs: number;
}

export interface Recorder {
  write(call: RecordedCall): void;
  close(): Promise<void>;
}

/** One JSON line a call, in the order of the answers. */
export function openRecorder(file: string): Recorder {
  const stream = createWriteStream(file, { flags: "a" });
  // A full disk must not take the calls with it.
  stream.on("error", () => {});
  return {
    write({ body, request, ...call }) {
      const line = JSON.stringify({ at: new Date().toISOString(), ...call, request }, (_, value) =>
        typeof value === "bigint" ? Number(value) : value,
      );
      stream.write(`${line.slice(0, -1)},"response":${body}}\n`);
    },
    async close() {
      stream.end();
      await finished(stream).catch(() => {});
    },
  };
}
