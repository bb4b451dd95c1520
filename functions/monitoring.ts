/** Everything under /processor: what waits, stats, metrics, the dashboard, an operator's actions. */
import { createMonitoringHandler } from "../lib/processor.ts";

export const handler = createMonitoringHandler();
