/** The contracts: all that a producer imports. */
import * as z from "zod/mini";
import { defineRecurringTask, defineTask } from "../../lib/index.ts";

/** A webhook to one address. It is there already: a signed POST, retried by the receiver's answer. */
export { deliverWebhook } from "../../functions/tasks/webhooks.ts";

/** The customer's id, not the address: the handler reads what is true when it runs, and no personal data lies in the queue. */
export const sendWelcomeEmail = defineTask({
  identifier: "emails.welcome",
  payload: z.object({ customerId: z.uuid() }),
  timeoutMs: 10_000,
  maxAttempts: 10,
});

export const nightlyReport = defineRecurringTask({
  identifier: "reports.sign_ups",
  cron: "0 3 * * *",
  timeZone: "Europe/Berlin",
  schema: z.object({}),
  payload: {},
});
