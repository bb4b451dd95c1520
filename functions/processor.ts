/** Called by schedules: one a slot, each minute. */
import { createProcessorHandler } from "../lib/processor.ts";
import { handlers } from "./tasks/index.ts";

export const handler = createProcessorHandler({ handlers });
