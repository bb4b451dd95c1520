import { statement } from "../database/port.ts";

/** When somebody must be called next, for the caller to arrange; null when that is arranged or nothing is to come. */
export const arrangeWake = statement<{ delayMs: number | null }>()(
  "arrange_wake",
  { release: "text", graceMs: "double", mostMs: "double", beginning: "boolean" },
  ["delayMs"],
  'SELECT {schema}.arrange_wake_v1(:release, CAST(:graceMs AS float8), CAST(:mostMs AS float8), :beginning) AS "delayMs"',
);

export interface SlotRow {
  readonly slot: number;
  readonly invocation: string;
  readonly holding: boolean;
  readonly ended: boolean;
  readonly expired: boolean;
  readonly startedAgoMs: number;
  readonly seenAgoMs: number;
}

/** Each slot's newest invocation, in slot order; ages by the database's clock. */
export const readSlots = statement<SlotRow>()(
  "read_slots",
  {},
  ["slot", "invocation", "holding", "ended", "expired", "startedAgoMs", "seenAgoMs"],
  `SELECT s.number AS slot, CAST(h.invocation_id AS text) AS invocation, s.holder IS NOT DISTINCT FROM h.invocation_id AS holding,
    h.ended_at IS NOT NULL AS ended, h.expired_at IS NOT NULL AS expired,
    CAST(extract(epoch FROM clock_timestamp() - h.started_at) * 1000 AS float8) AS "startedAgoMs",
    CAST(extract(epoch FROM clock_timestamp() - h.last_seen_at) * 1000 AS float8) AS "seenAgoMs"
  FROM {schema}.slot s
  CROSS JOIN LATERAL (
    SELECT * FROM {schema}.heartbeat WHERE slot = s.number ORDER BY started_at DESC LIMIT 1) h
  ORDER BY s.number`,
);
