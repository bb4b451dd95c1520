/** What every entry point needs: configuration, databases, a log. Made once a process, at the first use. */
import { type Config, hasLambdaRuntime, readConfig } from "./config.ts";
import { connectDatabase } from "./database/connect.ts";
import type { Database } from "./database/port.ts";
import { StintError } from "./errors.ts";
import { mapStacks } from "./stack.ts";

// An entry point imports this before its handlers, so that what fails as they are loaded is mapped, too.
if (hasLambdaRuntime()) mapStacks();

/**
 * The configured databases, in the order they are drained.
 * @throws StintError config_invalid when none is configured
 */
export async function connectAll(config: Config, options: { maxConnections?: number } = {}): Promise<Database[]> {
  if (config.databases.length === 0) {
    throw new StintError(
      "config_invalid",
      "No database is configured. Set DATABASE_URL (a Postgres URL), or DATABASE_RESOURCE_ARN, DATABASE_SECRET_ARN and DATABASE_NAME (an Aurora cluster).",
    );
  }
  const { schema, dataApiEndpoint } = config;
  return await Promise.all(
    config.databases.map(({ target }) =>
      connectDatabase(target, {
        schema,
        ...options,
        ...(dataApiEndpoint !== undefined && { endpoint: dataApiEndpoint }),
      }),
    ),
  );
}

export interface Runtime {
  readonly config: Config;
  readonly databases: readonly Database[];
}

/** Reads and connects once; a failure is not remembered. */
export function lazyRuntime(): () => Promise<Runtime> {
  let made: Promise<Runtime> | undefined;
  return () => {
    made ??= (async () => {
      const config = readConfig();
      return { config, databases: await connectAll(config) };
    })();
    made.catch(() => {
      made = undefined;
    });
    return made;
  };
}
