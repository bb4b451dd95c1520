import { createHmac } from "node:crypto";
import { TaskBackoffError, TaskCancelError } from "../../lib/index.ts";
import { deliverWebhook } from "./webhooks.ts";

/** Signed as the receiver can check it: HMAC-SHA256 over "<task id>.<body>". */
export const signature = (key: string, taskId: string, body: string): string =>
  `sha256=${createHmac("sha256", key).update(`${taskId}.${body}`).digest("hex")}`;

export const deliverWebhookHandler = deliverWebhook.handle(async ({ url, event, body }, { signal, taskId, log }) => {
  const key = process.env.WEBHOOK_SIGNING_KEY;
  if (!key) throw new TaskCancelError("WEBHOOK_SIGNING_KEY is not set.");
  const text = JSON.stringify({ event, body });
  const headers = {
    "content-type": "application/json",
    "webhook-id": taskId, // the same at each attempt: the receiver can drop what it has seen
    "webhook-signature": signature(key, taskId, text),
  };
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
