import { statement } from "../database/port.ts";

/** Writes, changes and deletes a row. */
export const checkDatabase = statement<{ working: boolean }>()(
  "check_database",
  { id: "uuid" },
  ["working"],
  "SELECT {schema}.check_database_v1(CAST(:id AS uuid)) AS working",
);

/** The canary's handler leaves this row. */
export const leaveHealthRow = statement<{ stored: boolean }>()(
  "leave_health_row",
  { id: "uuid" },
  ["stored"],
  "SELECT stored FROM {schema}.leave_health_row_v1(CAST(:id AS uuid)) AS stored WHERE stored",
);

/** Takes the canary's row away; a row when it was there. */
export const takeHealthRow = statement<{ taken: boolean }>()(
  "take_health_row",
  { id: "uuid" },
  ["taken"],
  "SELECT taken FROM {schema}.take_health_row_v1(CAST(:id AS uuid)) AS taken WHERE taken",
);

/** A canary that nobody claimed goes with its check. */
export const dropCanary = statement<{ dropped: boolean }>()(
  "drop_canary",
  { id: "text" },
  ["dropped"],
  "SELECT dropped FROM {schema}.drop_canary_v1(CAST(:id AS bigint)) AS dropped WHERE dropped",
);
