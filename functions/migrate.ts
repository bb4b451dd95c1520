/** Invoked at deploy time, before the new processor takes over. */
import { createMigrateHandler } from "../lib/processor.ts";
import { codeInMessage } from "./code-in-message.ts";

export const handler = createMigrateHandler().onError(codeInMessage);
