import { StintError } from "../errors.ts";
import { connectPg } from "./pg.ts";
import type { Database } from "./port.ts";

/** Where a database is: a Postgres URL, or an Aurora cluster behind the Data API. */
export type DatabaseTarget =
  | { readonly kind: "pg"; readonly url: string }
  | { readonly kind: "data-api"; readonly resourceArn: string; readonly secretArn: string; readonly database: string };

export interface ConnectOptions {
  /** The Postgres schema of Stint's tables (default task_processor). */
  readonly schema?: string;
  /** pg only: most connections at a time (default 10). */
  readonly maxConnections?: number;
  /** Data API only: an endpoint of one's own. */
  readonly endpoint?: string;
}

/**
 * @throws StintError option_invalid
 * Loads only the client that is asked for, as each costs a cold start its own milliseconds: pg at the first statement, the SDK here.
 */
export async function connectDatabase(target: DatabaseTarget, options: ConnectOptions = {}): Promise<Database> {
  const schema = options.schema ?? "task_processor";
  const has = (name: string): boolean => typeof (target as unknown as Record<string, unknown>)?.[name] === "string";
  if (
    !(target?.kind === "pg" && has("url")) &&
    !(target?.kind === "data-api" && ["resourceArn", "secretArn", "database"].every(has))
  ) {
    throw new StintError(
      "option_invalid",
      'The target is { kind: "pg", url } or { kind: "data-api", resourceArn, secretArn, database }.',
    );
  }
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(schema))
    throw new StintError("option_invalid", "schema is 1 to 63 of a-z, 0-9 and _, no digit first.");
  if (target.kind === "pg") {
    return connectPg({
      url: target.url,
      schema,
      ...(options.maxConnections !== undefined && { maxConnections: options.maxConnections }),
    });
  }
  const { connectDataApi } = await import("./data-api.ts");
  return connectDataApi({ ...target, schema, ...(options.endpoint !== undefined && { endpoint: options.endpoint }) });
}
