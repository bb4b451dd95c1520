import { statement } from "../database/port.ts";
import { NEWEST_MIGRATION } from "./migrations/newest.ts";

/**
 * Record, expire, rescue, claim, beat: everything an invocation says and hears, in one request. No row at all, and nothing done,
 * where the schema is older than this release.
 */
export const exchange = statement<{ answer: string }>()(
  "exchange",
  { request: "json" },
  ["answer"],
  `SELECT answer FROM {schema}.exchange_v2(CAST(:request AS jsonb)) AS answer
  WHERE EXISTS (SELECT FROM {schema}.migration WHERE name = '${NEWEST_MIGRATION}')`,
);

/** Stores what a release knows, once. */
export const registerRelease = statement<{ registered: boolean }>()(
  "register_release",
  { request: "json" },
  ["registered"],
  "SELECT {schema}.register_release_v1(CAST(:request AS jsonb)) AS registered",
);
