/** What a producer imports: contracts, no handlers. */
export { heartbeatReport } from "./heartbeat-report.ts";
export { deliverWebhook } from "./webhooks.ts";
