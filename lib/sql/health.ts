import { statement } from "../database/port.ts";

/** Writes, changes and deletes a row. */
export const checkDatabase = statement<{ working: boolean }>()(
  "check_database",
  { id: "uuid" },
  ["working"],
  "SELECT {schema}.check_database_v1(CAST(:id AS uuid)) AS working",
);

/** The canary's handler leaves this row. */
export const leaveHealthRow = statement<{ id: string }>()(
  "leave_health_row",
  { id: "uuid" },
  ["id"],
  "INSERT INTO {schema}.health_check (id) VALUES (CAST(:id AS uuid)) ON CONFLICT DO NOTHING RETURNING CAST(id AS text) AS id",
);

/** Takes the canary's row away; a row when it was there. */
export const takeHealthRow = statement<{ id: string }>()(
  "take_health_row",
  { id: "uuid" },
  ["id"],
  "DELETE FROM {schema}.health_check WHERE id = CAST(:id AS uuid) RETURNING CAST(id AS text) AS id",
);

/** A canary that nobody claimed goes with its check. */
export const dropCanary = statement<{ id: string }>()(
  "drop_canary",
  { id: "text" },
  ["id"],
  "DELETE FROM {schema}.task WHERE id = CAST(:id AS bigint) AND held_by IS NULL RETURNING CAST(id AS text) AS id",
);
