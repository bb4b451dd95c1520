import { statement } from "../database/port.ts";

/** Nothing of this identifier is claimed until it is resumed; `*` is all of them. */
export const pauseIdentifier = statement<{ changed: boolean | null }>()(
  "pause",
  { identifier: "text" },
  ["changed"],
  "SELECT {schema}.pause_v1(:identifier) AS changed",
);

export const resumeIdentifier = statement<{ changed: boolean | null }>()(
  "resume",
  { identifier: "text" },
  ["changed"],
  "SELECT {schema}.resume_v1(:identifier) AS changed",
);

export const cancelTask = statement<{ outcome: CancelOutcome }>()(
  "cancel_task",
  { id: "text" },
  ["outcome"],
  "SELECT {schema}.cancel_task_v1(CAST(:id AS bigint)) AS outcome",
);

/** cancelled: it waited. cancelling: it runs, its holder is told. held: its holder was lost a moment ago, ask again. */
export type CancelOutcome = "cancelled" | "cancelling" | "held" | "not_found";

export const replayFailed = statement<{ replayed: number }>()(
  "replay_failed",
  { filter: "json" },
  ["replayed"],
  "SELECT {schema}.replay_failed_v1(CAST(:filter AS jsonb)) AS replayed",
);

/** One bounded batch of old rows. */
export const cleanUpBatch = statement<{ removed: number }>()(
  "clean_up",
  { kind: "text", days: "bigint", batch: "bigint" },
  ["removed"],
  "SELECT {schema}.clean_up_v1(:kind, CAST(:days AS integer), CAST(:batch AS integer)) AS removed",
);
