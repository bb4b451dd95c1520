/** The example application: a webhook is signed, and the receiver's answer decides what becomes of the task. */
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { deliverWebhookHandler } from "../functions/tasks/webhooks.handler.ts";
import { isSigned } from "../infra/local/demo/signature.ts";
import { codeOf } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";

const key = "a key for tests";
const closers: (() => void)[] = [];
afterEach(() => {
  vi.unstubAllEnvs();
  for (const close of closers.splice(0)) close();
});

interface Delivery {
  readonly error: unknown;
  readonly received: { headers: IncomingHttpHeaders; body: string }[];
}

/** Runs the handler once against a receiver that gives this answer. */
async function deliver(status: number, headers: Record<string, string> = {}): Promise<Delivery> {
  const received: Delivery["received"] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    received.push({ headers: request.headers, body });
    response.writeHead(status, headers).end();
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  closers.push(() => server.close().closeAllConnections());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const context = {
    signal: AbortSignal.timeout(10_000),
    attempt: 1,
    taskId: "7",
    deadline: new Date(),
    log: silentLog,
  };
  const payload = { url, event: "order.paid", body: { order: 1 } };
  const error = await Promise.resolve(
    (deliverWebhookHandler.run as (...given: unknown[]) => unknown)(payload, context),
  ).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return { error, received };
}

test("a delivery is signed over its id, time and body", async () => {
  vi.stubEnv("WEBHOOK_SIGNING_KEY", key);
  const { error, received } = await deliver(204);
  expect(error).toBeUndefined();
  expect(JSON.parse(received[0]!.body)).toEqual({ event: "order.paid", body: { order: 1 } });
  expect(received[0]!.headers["webhook-id"]).toBe("7");
  expect(isSigned(key, received[0]!.headers, received[0]!.body)).toBe(true);
});

test.each([
  [500, {}, undefined],
  [429, {}, undefined],
  [410, {}, "task_cancel"],
  [302, { location: "http://127.0.0.1:1/" }, undefined],
  [503, { "retry-after": "60" }, "task_backoff"],
])("the answer %i %j makes it fail with code %s", async (status, headers, code) => {
  vi.stubEnv("WEBHOOK_SIGNING_KEY", key);
  const { error, received } = await deliver(status, headers as Record<string, string>);
  expect(error).toBeInstanceOf(Error);
  expect(codeOf(error)).toBe(code);
  expect(received.length).toBe(1);
});

test("without a key nothing is sent, and trying again would not help", async () => {
  vi.stubEnv("WEBHOOK_SIGNING_KEY", "");
  const { error, received } = await deliver(204);
  expect(codeOf(error)).toBe("task_cancel");
  expect(received).toEqual([]);
});
