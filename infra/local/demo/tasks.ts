/** The kinds of task of the demo. Each delivers signed webhooks to an address of the receiver that behaves in its own way. */
import * as z from "zod/mini";
import { defineRecurringTask, defineTask } from "../../../lib/index.ts";

const payload = z.object({ event: z.string(), data: z.record(z.string(), z.json()) });
const soon = { kind: "fixed", delayMs: 400 } as const;

export const deliverWebhook = defineTask({ identifier: "webhooks.deliver", payload, timeoutMs: 10_000 });

export const deliverFlaky = defineTask({
  identifier: "webhooks.flaky",
  payload,
  timeoutMs: 10_000,
  backoff: soon,
});

export const deliverOldKey = defineTask({
  identifier: "webhooks.old_key",
  payload,
  timeoutMs: 10_000,
  backoff: soon,
});

export const deliverSilent = defineTask({
  identifier: "webhooks.silent",
  payload,
  timeoutMs: 800,
  maxAttempts: 2,
  backoff: soon,
});

export const remind = defineTask({ identifier: "reminders.send", payload, timeoutMs: 10_000, priority: "HIGH" });

export const reportUsage = defineRecurringTask({
  identifier: "usage.report",
  every: "1s",
  schema: payload,
  payload: { event: "usage.reported", data: {} },
  timeoutMs: 10_000,
  priority: "HIGHEST",
});

/** What the table says of each, in its order; short, so that it fits into 80 columns. */
export const KINDS: Readonly<Record<string, string>> = {
  [deliverWebhook.identifier]: "accepted at once",
  [deliverFlaky.identifier]: "fails twice first",
  [deliverOldKey.identifier]: "always fails",
  [deliverSilent.identifier]: "times out",
  [remind.identifier]: "delayed by 4 s",
  [reportUsage.task.identifier]: "every second",
};
