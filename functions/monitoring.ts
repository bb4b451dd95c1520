/** GET /processor/monitoring. */
import { createMonitoringHandler } from "../lib/processor.ts";

export const handler = createMonitoringHandler();
