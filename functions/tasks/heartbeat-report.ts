import * as z from "zod/mini";
import { defineRecurringTask } from "../../lib/index.ts";

/** Once a minute, however many slots there are. */
export const heartbeatReport = defineRecurringTask({
  identifier: "heartbeat.report",
  every: "1m",
  schema: z.object({}),
  payload: {},
  timeoutMs: 10_000,
});
