import type { Bound } from "./parameters.ts";

/** The part of pg's Connection that speaks the extended query protocol. */
export interface Wire {
  stream: { cork(): void; uncork(): void; destroy(): void };
  parse(message: { text: string; types: number[] }): void;
  bind(message: { values: unknown[] }): void;
  describe(message: { type: "P" }): void;
  execute(message: object): void;
  sync(): void;
  sendCopyFail(reason: string): void;
  prependListener(event: "readyForQuery", listener: (message: { status: string }) => void): void;
}

export interface CancelTarget {
  host: string;
  port: number;
  processID: number;
  secretKey: number;
}

export interface CancelWire {
  stream: { destroy(): void };
  on(event: "end" | "error" | "connect", listener: () => void): void;
  connect(port: number | string, host?: string): void;
  cancel(processId: number, secretKey: number): void;
}

/** Every session starts with these, and RESET ALL goes back to them. */
export const startupOptions = Object.entries({
  timezone: "UTC",
  datestyle: "ISO",
  intervalstyle: "postgres",
  bytea_output: "hex",
  extra_float_digits: "1",
  default_transaction_isolation: "read\\ committed",
})
  .map(([name, value]) => `-c ${name}=${value}`)
  .join(" ");

/** All in one packet, and one Sync for all. A statement is parsed again only when its text or a declared type changes. */
export function sendAll(wire: Wire, statements: Bound[]): void {
  wire.stream.cork();
  let parsed: Bound | undefined;
  for (const statement of statements) {
    if (!parsed || parsed.text !== statement.text || String(parsed.types) !== String(statement.types)) {
      wire.parse(statement);
      parsed = statement;
    }
    wire.bind({ values: statement.values });
    wire.describe({ type: "P" });
    wire.execute({});
  }
  wire.sync();
  wire.stream.uncork();
}
