import { cleanUpHandler } from "./clean-up.ts";
import type { Config } from "./config.ts";
import type { Database } from "./database/port.ts";
import { canaryHandler } from "./health.ts";
import type { TaskHandler } from "./task.ts";

/** What every processor can run besides the application's own tasks. */
export const builtInHandlers = (config: Config, databases: readonly Database[]): TaskHandler[] => [
  canaryHandler(databases),
  ...(config.cleanUp.enabled ? [cleanUpHandler(databases, config.cleanUp)] : []),
];
