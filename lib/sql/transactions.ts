import { statement } from "../database/port.ts";

/** Names the open transaction, so that its end can be asked for from outside. */
export const readTransactionId = statement<{ id: string }>()(
  "read_transaction_id",
  {},
  ["id"],
  "SELECT CAST(pg_current_xact_id() AS text) AS id",
);

/** "in progress", "committed", "aborted", or null when it is too old to know. */
export const readTransactionStatus = statement<{ status: string | null }>()(
  "read_transaction_status",
  { id: "text" },
  ["status"],
  "SELECT pg_xact_status(CAST(CAST(:id AS text) AS xid8)) AS status",
);
