import * as z from "zod/mini";
import { defineTask } from "../../lib/index.ts";

/** Deliver one event to a customer's address. */
export const deliverWebhook = defineTask({
  identifier: "webhooks.deliver",
  payload: z.object({ url: z.url(), event: z.string(), body: z.record(z.string(), z.json()) }),
  timeoutMs: 10_000,
  maxAttempts: 5,
});
