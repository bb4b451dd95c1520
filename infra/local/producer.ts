/** An example application beside the processor: it enqueues webhooks, and a customer's server receives them. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { deliverWebhook } from "../../functions/tasks/definitions.ts";
import { createTaskClient, type Database, type Log } from "../../lib/index.ts";
import { isSigned } from "./demo/signature.ts";
import { LOCAL_WEBHOOK_KEY } from "./places.ts";

export interface Producer {
  /** Webhooks that the receiver has accepted. */
  readonly delivered: number;
  readonly receiverUrl: string;
  stop(): Promise<void>;
}

const EVERY_MS = 2000;
const TASKS = 3;

export async function startProducer(database: Database, log: Log): Promise<Producer> {
  const receiver = await startReceiver();
  const tasks = createTaskClient({ database });
  let stopped = false;
  let orders = 0;
  let timer: NodeJS.Timeout | undefined;
  const produce = async (): Promise<void> => {
    const payloads = Array.from({ length: TASKS }, () => ({
      url: receiver.url,
      event: "order.paid",
      body: { order: ++orders },
    }));
    await tasks.enqueueMany(deliverWebhook, payloads).catch((error: unknown) => {
      if (!stopped) log.warn("the example producer could not enqueue", { error: String(error) });
    });
    if (!stopped) timer = setTimeout(() => (last = produce()), EVERY_MS);
  };
  let last = produce();
  return {
    get delivered() {
      return receiver.delivered();
    },
    receiverUrl: receiver.url,
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await last;
      await receiver.close();
    },
  };
}

/** Turns every tenth webhook away at its first attempt, as real ones do now and then. */
async function startReceiver() {
  const turnedAway = new Set<string>();
  const accepted = new Set<string>();
  async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    const id = String(request.headers["webhook-id"]);
    response.writeHead(answerFor(id, isSigned(LOCAL_WEBHOOK_KEY, request.headers, body))).end();
  }
  function answerFor(id: string, signed: boolean): number {
    if (!signed) return 401;
    if (id.endsWith("0") && !turnedAway.has(id)) {
      turnedAway.add(id);
      return 503;
    }
    accepted.add(id);
    return 204;
  }
  const server = createServer((request, response) => void receive(request, response).catch(() => response.destroy()));
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/webhooks`,
    delivered: () => accepted.size,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
