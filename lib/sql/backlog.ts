import { statement } from "../database/port.ts";

/** Counting stops here. */
export const BACKLOG_LIMIT = 10_000;

export interface BacklogRow {
  /** Tasks due, unfinished, held by nobody; at most BACKLOG_LIMIT. Serial tasks behind another of their key are not due. */
  readonly backlog: number;
  /** Since the oldest of them was due; 0 without one. */
  readonly oldestDueSeconds: number;
  /** Slots 0 to `residents - 1` whose holder was seen within the grace period. */
  readonly liveResidents: number;
}

/**
 * What waits, by the claim's own index: one probe a kind (identifier and priority; the first 1000 of them) and BACKLOG_LIMIT entries at most,
 * however many tasks there are. Times are statement_timestamp(), as no index serves clock_timestamp().
 */
export const readBacklog = statement<BacklogRow>()(
  "read_backlog",
  { residents: "bigint", graceMs: "bigint" },
  ["backlog", "oldestDueSeconds", "liveResidents"],
  `WITH RECURSIVE kind AS (
    (SELECT identifier, priority FROM {schema}.task WHERE held_by IS NULL AND suspect_since IS NULL AND has_turn ORDER BY identifier, priority LIMIT 1)
    UNION ALL
    SELECT following.identifier, following.priority FROM kind CROSS JOIN LATERAL (
      SELECT t.identifier, t.priority FROM {schema}.task t
      WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND (t.identifier, t.priority) > (kind.identifier, kind.priority)
      ORDER BY t.identifier, t.priority LIMIT 1) following),
  first_kind AS MATERIALIZED (SELECT identifier, priority FROM kind LIMIT 1000),
  suspect AS MATERIALIZED (
    SELECT scheduled_for FROM {schema}.task
    WHERE held_by IS NULL AND suspect_since IS NOT NULL AND scheduled_for <= statement_timestamp() LIMIT ${BACKLOG_LIMIT}),
  due AS (
    SELECT count(*) AS number FROM (
      SELECT FROM first_kind CROSS JOIN LATERAL (
        SELECT FROM {schema}.task t
        WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = first_kind.identifier
          AND t.priority = first_kind.priority AND t.scheduled_for <= statement_timestamp() LIMIT ${BACKLOG_LIMIT}) each_due
      LIMIT ${BACKLOG_LIMIT}) all_due),
  oldest AS (
    SELECT min(head.scheduled_for) AS due FROM first_kind CROSS JOIN LATERAL (
      SELECT t.scheduled_for FROM {schema}.task t
      WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = first_kind.identifier
        AND t.priority = first_kind.priority AND t.scheduled_for <= statement_timestamp()
      ORDER BY t.scheduled_for LIMIT 1) head)
  SELECT CAST(least(${BACKLOG_LIMIT}, due.number + (SELECT count(*) FROM suspect)) AS integer) AS backlog,
    coalesce(CAST(extract(epoch FROM statement_timestamp() - least(oldest.due, (SELECT min(scheduled_for) FROM suspect))) AS float8), 0) AS "oldestDueSeconds",
    (SELECT CAST(count(*) AS integer) FROM {schema}.slot s JOIN {schema}.heartbeat h ON h.invocation_id = s.holder
      WHERE s.number < :residents AND h.ended_at IS NULL AND h.expired_at IS NULL
        AND h.last_seen_at > statement_timestamp() - :graceMs * interval '1 millisecond') AS "liveResidents"
  FROM due, oldest`,
);
