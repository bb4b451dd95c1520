/** Only the invocations import handlers. */
import type { TaskContext, TaskHandler } from "../../../lib/index.ts";
import { sign } from "./signature.ts";
import { deliverFlaky, deliverOldKey, deliverSilent, deliverWebhook, remind, reportUsage } from "./tasks.ts";

export interface Customer {
  /** Where the receiver listens. */
  readonly url: string;
  readonly secret: string;
}

export function createHandlers({ url, secret }: Customer): TaskHandler[] {
  const deliver =
    (path: string, key = secret) =>
    async (payload: unknown, { signal, taskId }: TaskContext): Promise<void> => {
      const body = JSON.stringify(payload);
      const headers = { "content-type": "application/json", ...sign(key, taskId, body) };
      const response = await fetch(new URL(path, url), { method: "POST", headers, body, signal });
      await response.body?.cancel();
      if (!response.ok) throw new Error(`The receiver answered ${response.status}.`);
    };
  return [
    deliverWebhook.handle(deliver("/webhooks")),
    deliverFlaky.handle(deliver("/flaky")),
    deliverOldKey.handle(deliver("/webhooks", "the key of last year")),
    deliverSilent.handle(deliver("/silent")),
    remind.handle(deliver("/reminders")),
    reportUsage.handle(async (_, context) => {
      const { rss } = process.memoryUsage();
      await deliver("/usage")({ event: "usage.reported", data: { rss, attempt: context.attempt } }, context);
    }),
  ];
}
