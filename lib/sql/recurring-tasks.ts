import { statement } from "../database/port.ts";

/** Stores schedules where they differ from what they were last planned by. */
export const planRecurring = statement<{ planned: number }>()(
  "plan_recurring",
  { request: "json" },
  ["planned"],
  "SELECT {schema}.plan_recurring_v1(CAST(:request AS jsonb)) AS planned",
);

/** The next occurrence by compare-and-set; its task in the same call. */
export const fireRecurring = statement<{ outcome: "fired" | "skipped" | "lost" }>()(
  "fire_recurring",
  { request: "json" },
  ["outcome"],
  "SELECT {schema}.fire_recurring_v1(CAST(:request AS jsonb)) AS outcome",
);

export interface RecurringRow {
  readonly identifier: string;
  readonly schedule: string;
  readonly enabled: boolean;
  /** OPERATOR, or UNKNOWN: for 30 minutes no live release knew it. */
  readonly disabledWhy: string | null;
  readonly nextAt: string;
  readonly lastOccurrence: string | null;
  readonly skipped: string;
}

export const listRecurring = statement<RecurringRow>()(
  "list_recurring",
  {},
  ["identifier", "schedule", "enabled", "disabledWhy", "nextAt", "lastOccurrence", "skipped"],
  `SELECT identifier, schedule, enabled, disabled_why AS "disabledWhy", to_json(next_at) #>> '{}' AS "nextAt",
    to_json(last_occurrence) #>> '{}' AS "lastOccurrence", CAST(skipped AS text) AS skipped
  FROM {schema}.recurring_task ORDER BY identifier`,
);

/** Due now: the next exchange of a release that knows it fires it, and plans the next one from now. */
export const runRecurring = statement<{ identifier: string }>()(
  "run_recurring",
  { identifier: "text" },
  ["identifier"],
  "UPDATE {schema}.recurring_task SET next_at = date_trunc('milliseconds', clock_timestamp()) WHERE identifier = :identifier AND enabled RETURNING identifier",
);

export const enableRecurring = statement<{ identifier: string }>()(
  "enable_recurring",
  { identifier: "text", enabled: "boolean" },
  ["identifier"],
  `UPDATE {schema}.recurring_task SET enabled = :enabled, disabled_why = CASE WHEN :enabled THEN NULL ELSE 'OPERATOR' END
  WHERE identifier = :identifier RETURNING identifier`,
);
