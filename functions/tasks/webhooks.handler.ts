import { createHmac } from "node:crypto";
import { TaskBackoffError, TaskCancelError } from "../../lib/index.ts";
import { webhookSigningKey } from "./settings.ts";
import { deliverWebhook } from "./webhooks.ts";

/** As in Standard Webhooks: HMAC-SHA256 over "id.timestamp.body". */
function signed(key: string, id: string, body: string): Record<string, string> {
  const timestamp = String(Math.floor(Date.now() / 1000));
  const signature = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": `v1,${signature}` };
}

export const deliverWebhookHandler = deliverWebhook.handle(async ({ url, event, body }, { signal, taskId, log }) => {
  const key = webhookSigningKey();
  if (key === undefined) throw new TaskCancelError("WEBHOOK_SIGNING_KEY is not set.");
  const text = JSON.stringify({ event, body });
  // The task's id stays the same at each attempt: the receiver can drop what it has seen.
  const headers = { "content-type": "application/json", ...signed(key, taskId, text) };
  const response = await fetch(url, { method: "POST", headers, body: text, signal, redirect: "error" });
  await response.body?.cancel();
  log.info("webhook answered", { event, status: response.status });
  if (response.ok) return;
  const seconds = Number(response.headers.get("retry-after"));
  if (seconds > 0) throw new TaskBackoffError({ delayUntil: new Date(Date.now() + Math.min(seconds, 3600) * 1000) });
  // 4xx will not change by itself; 408 and 429 may.
  const refused = response.status >= 400 && response.status < 500 && ![408, 429].includes(response.status);
  throw new (refused ? TaskCancelError : Error)(`The receiver answered ${response.status}.`);
});
