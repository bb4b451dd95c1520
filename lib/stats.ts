/** GET /processor/stats, over all databases. Its cost is bounded, whatever the number of tasks and runs. */
import type { Database } from "./database/port.ts";
import { readRecurringRows, readStatsRows } from "./sql/stats.ts";
import type { Count, IdentifierStats, RecurringStats, Runs, SlotStats, Stats } from "./stats-schema.ts";

/** Most identifiers that are told apart. */
export const MOST_IDENTIFIERS = 200;

/** A schedule ticks each minute; one that is missed is no reason to worry. */
const TICKS_MS = 120_000;

export interface StatsSettings {
  readonly graceMs: number;
  readonly sleepIntervalMs: number;
}

interface RawRuns {
  readonly succeeded: number;
  readonly failed: number;
  readonly estimated: boolean;
  /** None of a minute. */
  readonly percentiles?: readonly (number | null)[] | null;
}

interface RawSlot {
  readonly slot: number;
  readonly epoch: number;
  readonly holder: string | null;
  readonly release: string | null;
  readonly startedAt: string | null;
  readonly lastSeenAt: string | null;
  readonly seenAgoMs: number | null;
  readonly ended: boolean;
  readonly expired: boolean;
  readonly held: number | null;
  readonly succeeded: number | null;
  readonly failed: number | null;
}

export interface RawCounts {
  readonly waiting: number;
  readonly running: number;
  readonly scheduled: number;
  readonly retrying: number;
  readonly failed: number;
  /** Of waiting, scheduled, retrying, failed: counting stopped at the bound. */
  readonly over: readonly [boolean, boolean, boolean, boolean];
  readonly oldestMs: number | null;
}

type Row =
  | readonly ["at", string]
  | readonly ["truncated", boolean]
  | readonly [
      "identifier",
      { identifier: string; known: boolean; paused: boolean; counts: RawCounts; hour: RawRuns; day: RawRuns },
    ]
  | readonly ["minute", string, RawRuns]
  | readonly ["slot", RawSlot]
  | readonly ["paused", string]
  | readonly ["recurring", Omit<RecurringStats, "database">];

/** @throws StintError database_* | schema_missing */
export async function readStats(databases: readonly Database[], settings: StatsSettings): Promise<Stats> {
  const answers = await Promise.all(
    databases.map(async (database) =>
      (await database.query(readStatsRows, { most: MOST_IDENTIFIERS })).map(({ row }) => JSON.parse(row) as Row),
    ),
  );
  const identifiers = new Map<string, IdentifierStats>();
  const minutes = new Map<string, Stats["throughput"][number]>();
  const stats = { at: "", truncated: false, slots: [] as SlotStats[], recurring: [] as RecurringStats[] };
  const paused = new Set<string>();
  answers.forEach((rows, database) => {
    for (const row of rows) {
      if (row[0] === "at") stats.at = utc(row[1]);
      if (row[0] === "truncated") stats.truncated ||= row[1];
      if (row[0] === "paused") paused.add(row[1]);
      if (row[0] === "slot") stats.slots.push(slotOf(row[1], database, settings));
      if (row[0] === "recurring") stats.recurring.push(recurringOf(row[1], database));
      if (row[0] === "identifier") {
        const { counts, hour, day, ...rest } = row[1];
        const one = { ...rest, ...countsOf(counts), hour: runsOf(hour), day: runsOf(day) };
        const other = identifiers.get(one.identifier);
        identifiers.set(one.identifier, other === undefined ? one : together(other, one));
      }
      if (row[0] === "minute") {
        const [, minute, { succeeded, failed, estimated }] = row;
        const other = minutes.get(minute);
        minutes.set(minute, {
          minute: utc(minute),
          succeeded: succeeded + (other?.succeeded ?? 0),
          failed: failed + (other?.failed ?? 0),
          estimated: estimated || (other?.estimated ?? false),
        });
      }
    }
  });
  const all = [...identifiers.values()].sort((a, b) => (a.identifier < b.identifier ? -1 : 1));
  const totals: Stats["totals"] = all.reduce(addCounts, countsOfNone());
  return {
    ...stats,
    identifiers: all.slice(0, MOST_IDENTIFIERS),
    truncated: stats.truncated || all.length > MOST_IDENTIFIERS,
    totals,
    throughput: [...minutes.values()].sort((a, b) => (a.minute < b.minute ? -1 : 1)).slice(-60),
    unknownIdentifiers: all.filter((one) => !one.known && unfinished(one) > 0).map((one) => one.identifier),
    paused: [...paused].sort(),
  };
}

/** The schedules of all databases. */
export async function listRecurring(databases: readonly Database[]): Promise<RecurringStats[]> {
  const answers = await Promise.all(databases.map((database) => database.query(readRecurringRows, {})));
  return answers.flatMap((rows, database) =>
    rows.map(({ row }) => recurringOf((JSON.parse(row) as [string, Omit<RecurringStats, "database">])[1], database)),
  );
}

/** The database's moments carry its session's zone. */
export const utc = <T extends string | null | undefined>(moment: T): T =>
  (typeof moment === "string" ? new Date(moment).toISOString() : moment) as T;

const count = (value: number, estimated: boolean): Count => ({ count: Math.round(value), estimated });

export const countsOf = ({ over, ...raw }: RawCounts) => ({
  waiting: count(raw.waiting, over[0]),
  running: count(raw.running, false),
  scheduled: count(raw.scheduled, over[1]),
  retrying: count(raw.retrying, over[2]),
  failed: count(raw.failed, over[3]),
  oldestWaitingMs: raw.oldestMs,
});

const runsOf = ({ percentiles, ...runs }: RawRuns): Runs => ({
  ...runs,
  p50Ms: percentiles?.[0] ?? null,
  p95Ms: percentiles?.[1] ?? null,
  p99Ms: percentiles?.[2] ?? null,
});

const recurringOf = (row: Omit<RecurringStats, "database">, database: number): RecurringStats => ({
  ...row,
  database,
  nextAt: utc(row.nextAt),
  lastOccurrence: utc(row.lastOccurrence),
  lastRunAt: utc(row.lastRunAt),
});

const unfinished = (one: IdentifierStats): number =>
  one.waiting.count + one.running.count + one.scheduled.count + one.retrying.count;

function slotOf(raw: RawSlot, database: number, settings: StatsSettings): SlotStats {
  const state = slotState(raw, settings);
  const { slot, epoch, holder, release, seenAgoMs } = raw;
  const [held, succeeded, failed] = [raw.held ?? 0, raw.succeeded ?? 0, raw.failed ?? 0];
  const moments = { startedAt: utc(raw.startedAt), lastSeenAt: utc(raw.lastSeenAt) };
  const healthy = state === "working" || state === "left";
  return { database, slot, epoch, holder, release, seenAgoMs, ...moments, state, healthy, held, succeeded, failed };
}

/** As `stint checktaskprocessorthreadhealth` judges. */
export function slotState(
  { ended, expired, seenAgoMs }: { ended: boolean; expired: boolean; seenAgoMs: number | null },
  { graceMs, sleepIntervalMs }: StatsSettings,
): SlotStats["state"] {
  // A seat that was made and never taken.
  if (seenAgoMs === null) return "late";
  if (expired || (!ended && seenAgoMs > graceMs + sleepIntervalMs)) return "stuck";
  if (seenAgoMs > TICKS_MS) return "late";
  return ended ? "left" : "working";
}

const NO_RUNS: Runs = { succeeded: 0, failed: 0, estimated: false, p50Ms: null, p95Ms: null, p99Ms: null };

const countsOfNone = (): Stats["totals"] => ({
  ...countsOf({
    waiting: 0,
    running: 0,
    scheduled: 0,
    retrying: 0,
    failed: 0,
    over: [false, false, false, false],
    oldestMs: null,
  }),
  hour: NO_RUNS,
  day: NO_RUNS,
});

const plus = (a: Count, b: Count): Count => count(a.count + b.count, a.estimated || b.estimated);

function addCounts(a: Stats["totals"], b: Stats["totals"]): Stats["totals"] {
  return {
    waiting: plus(a.waiting, b.waiting),
    running: plus(a.running, b.running),
    scheduled: plus(a.scheduled, b.scheduled),
    retrying: plus(a.retrying, b.retrying),
    failed: plus(a.failed, b.failed),
    oldestWaitingMs:
      a.oldestWaitingMs === null ? b.oldestWaitingMs : Math.max(a.oldestWaitingMs, b.oldestWaitingMs ?? 0),
    hour: addRuns(a.hour, b.hour),
    day: addRuns(a.day, b.day),
  };
}

/** Percentiles of a sum cannot be told from percentiles: a mean, weighted by runs, stands for them. */
function addRuns(a: Runs, b: Runs): Runs {
  const [ofA, ofB] = [a.succeeded + a.failed, b.succeeded + b.failed];
  const mean = (x: number | null, y: number | null): number | null =>
    x === null || ofA === 0 ? y : y === null || ofB === 0 ? x : (x * ofA + y * ofB) / (ofA + ofB);
  return {
    succeeded: a.succeeded + b.succeeded,
    failed: a.failed + b.failed,
    estimated: a.estimated || b.estimated,
    p50Ms: mean(a.p50Ms, b.p50Ms),
    p95Ms: mean(a.p95Ms, b.p95Ms),
    p99Ms: mean(a.p99Ms, b.p99Ms),
  };
}

const together = (a: IdentifierStats, b: IdentifierStats): IdentifierStats => ({
  ...a,
  ...addCounts(a, b),
  known: a.known || b.known,
  paused: a.paused || b.paused,
});
