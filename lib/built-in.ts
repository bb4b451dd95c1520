import { cleanUpHandler, foldCountersHandler } from "./clean-up.ts";
import type { Config } from "./config.ts";
import type { Database } from "./database/port.ts";
import { canaryHandler } from "./health.ts";
import { drainReserveMs } from "./registry.ts";
import type { TaskHandler } from "./task.ts";

/** What every processor can run besides the application's own tasks. */
export function builtInHandlers(config: Config, databases: readonly Database[]): TaskHandler[] {
  // What is left undone after this goes on the next time.
  const cleanUpMs = Math.min(600_000, Math.floor(config.invocationMs - drainReserveMs(config.invocationMs)));
  return [
    canaryHandler(databases),
    foldCountersHandler(databases, Math.min(60_000, cleanUpMs)),
    ...(config.cleanUp.enabled ? [cleanUpHandler(databases, config.cleanUp, cleanUpMs)] : []),
  ];
}
