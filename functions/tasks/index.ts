/** What the processor runs. A task of your own: one new file beside these, and its line here. */
import { heartbeatReportHandler } from "./heartbeat-report.handler.ts";
import { deliverWebhookHandler } from "./webhooks.handler.ts";

export const handlers = [deliverWebhookHandler, heartbeatReportHandler];
