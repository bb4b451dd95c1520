import { statement } from "../database/port.ts";

/** One bounded batch of old rows. */
export const cleanUpBatch = statement<{ removed: number }>()(
  "clean_up",
  { kind: "text", days: "bigint", batch: "bigint" },
  ["removed"],
  "SELECT {schema}.clean_up_v1(:kind, CAST(:days AS integer), CAST(:batch AS integer)) AS removed",
);
