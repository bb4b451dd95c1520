/** GET /processor/stats: its schema. Durations and ages are milliseconds, moments ISO 8601 in UTC, by the database's clock. */
import * as z from "zod/mini";

/** Exact up to a bound, then an estimate that says so. */
export const countSchema = z.object({ count: z.int(), estimated: z.boolean() });

/** Runs (attempts, not tasks) that finished within a window. Percentiles of their durations; null where nothing ran. */
export const runsSchema = z.object({
  succeeded: z.int(),
  failed: z.int(),
  /** There were too many to count: from a sample that bursts do not bend, as a rule a few per cent off. */
  estimated: z.boolean(),
  p50Ms: z.nullable(z.number()),
  p95Ms: z.nullable(z.number()),
  p99Ms: z.nullable(z.number()),
});

/**
 * Of unfinished tasks each is in one of: running (held by an invocation), waiting (due, held by nobody), retrying (failed before, due
 * later), scheduled (due later). failed: out of attempts or cancelled, kept.
 */
const countsShape = {
  waiting: countSchema,
  running: countSchema,
  scheduled: countSchema,
  retrying: countSchema,
  failed: countSchema,
  /** For how long the oldest waiting task has been due. */
  oldestWaitingMs: z.nullable(z.number()),
  hour: runsSchema,
  day: runsSchema,
};

export const identifierStatsSchema = z.object({
  identifier: z.string(),
  /** A release that was seen within the last 30 minutes has a handler for it. */
  known: z.boolean(),
  /** By its own name or by `*`: what waits, waits for a resume. */
  paused: z.boolean(),
  ...countsShape,
});

export const slotStatsSchema = z.object({
  /** Place in TASK_PROCESSOR_DATABASES, from 0. */
  database: z.int(),
  slot: z.int(),
  epoch: z.int(),
  /** The newest invocation that sat there, a UUID. */
  holder: z.nullable(z.string()),
  release: z.nullable(z.string()),
  startedAt: z.nullable(z.string()),
  lastSeenAt: z.nullable(z.string()),
  seenAgoMs: z.nullable(z.number()),
  /**
   * working: seen within grace + sleep interval. left: it ended in order. stuck: silent for longer, or expired.
   * late: ended, and no tick came within two minutes.
   */
  state: z.enum(["working", "left", "late", "stuck"]),
  /** working or left. */
  healthy: z.boolean(),
  /** Tasks it holds, and what it has done so far. */
  held: z.int(),
  succeeded: z.int(),
  failed: z.int(),
});

export const recurringStatsSchema = z.object({
  database: z.int(),
  identifier: z.string(),
  /** As it was defined, in JSON text: {"every":"86400s","firstRunTime":"01:00"}, or {"cron":"0 3 * * *","timeZone":"UTC"}. */
  schedule: z.string(),
  enabled: z.boolean(),
  /** OPERATOR, or UNKNOWN: for 30 minutes no live release knew it. */
  disabledWhy: z.nullable(z.enum(["OPERATOR", "UNKNOWN"])),
  nextAt: z.nullable(z.string()),
  lastOccurrence: z.nullable(z.string()),
  /** Of its newest run. */
  lastRunAt: z.nullable(z.string()),
  lastResult: z.nullable(z.enum(["SUCCESS", "FAILURE"])),
  lastDurationMs: z.nullable(z.number()),
  /** Occurrences that were due while the last one was unfinished. */
  skipped: z.int(),
});

export const statsSchema = z.object({
  at: z.string(),
  /** By name; at most 200. */
  identifiers: z.array(identifierStatsSchema),
  /** There are more identifiers than are listed. */
  truncated: z.boolean(),
  /** Sums of the listed; percentiles over all runs, weighted by identifier. */
  totals: z.object(countsShape),
  /** 60 minutes, oldest first; the last one is the current, unfinished minute. Runs that finished in it. */
  throughput: z.array(z.object({ minute: z.string(), succeeded: z.int(), failed: z.int(), estimated: z.boolean() })),
  slots: z.array(slotStatsSchema),
  recurring: z.array(recurringStatsSchema),
  /** Have unfinished tasks, and no release that was seen within 30 minutes knows them. */
  unknownIdentifiers: z.array(z.string()),
  /** Identifiers that are paused; `*` is all of them. */
  paused: z.array(z.string()),
});

export type Count = z.output<typeof countSchema>;
export type Runs = z.output<typeof runsSchema>;
export type IdentifierStats = z.output<typeof identifierStatsSchema>;
export type SlotStats = z.output<typeof slotStatsSchema>;
export type RecurringStats = z.output<typeof recurringStatsSchema>;
export type Stats = z.output<typeof statsSchema>;
