/** The customer's side: an HTTP server that checks each signature and counts what it has accepted. */
import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { isSigned } from "./signature.ts";

export interface Receiver {
  readonly url: string;
  readonly secret: string;
  /** Deliveries of each task that were accepted: at least one, as a task may run more than once. */
  readonly accepted: ReadonlyMap<string, number>;
  /** Signed wrongly. */
  readonly refused: number;
  /** Answered with 503 though well signed. */
  readonly unavailable: number;
  /** Taken and never answered. */
  readonly silent: number;
  close(): Promise<void>;
}

/** How long a customer's server takes: from 20 to 120 ms. */
const answerMs = (): number => 20 + Math.random() * 100;

export async function startReceiver(): Promise<Receiver> {
  const secret = randomBytes(32).toString("base64");
  const accepted = new Map<string, number>();
  const turnedAway = new Map<string, number>();
  const counts = { refused: 0, unavailable: 0, silent: 0 };

  async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString("utf8");
    const id = String(request.headers["webhook-id"]);
    await sleep(answerMs());
    response.statusCode = statusFor(request.url ?? "", id, isSigned(secret, request.headers, body));
    if (response.statusCode === 204) accepted.set(id, (accepted.get(id) ?? 0) + 1);
    if (request.url === "/silent") counts.silent += 1;
    else response.end();
  }

  function statusFor(path: string, id: string, signed: boolean): number {
    if (!signed) {
      counts.refused += 1;
      return 401;
    }
    const before = turnedAway.get(id) ?? 0;
    if (path === "/silent" || (path === "/flaky" && before < 2)) {
      if (path === "/flaky") counts.unavailable += 1;
      turnedAway.set(id, before + 1);
      return 503;
    }
    return 204;
  }

  const server = createServer({ keepAliveTimeout: 65_000 }, (request, response) => {
    // A caller that gives up takes its request with it.
    receive(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    secret,
    accepted,
    get refused() {
      return counts.refused;
    },
    get unavailable() {
      return counts.unavailable;
    },
    get silent() {
      return counts.silent;
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
