import { statement } from "../database/port.ts";

/** Stores schedules where they differ from what they were last planned by. */
export const planRecurring = statement<{ planned: number }>()(
  "plan_recurring",
  { request: "json" },
  ["planned"],
  "SELECT {schema}.plan_recurring_v1(CAST(:request AS jsonb)) AS planned",
);

/** The next occurrence by compare-and-set, of the schedule it was planned by; its task in the same call. */
export const fireRecurring = statement<{ outcome: "fired" | "skipped" | "lost" }>()(
  "fire_recurring",
  { request: "json" },
  ["outcome"],
  "SELECT {schema}.fire_recurring_v2(CAST(:request AS jsonb)) AS outcome",
);
