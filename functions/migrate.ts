/** Invoked at deploy time, before the new processor takes over. */
import { createMigrateHandler } from "../lib/processor.ts";

export const handler = createMigrateHandler();
