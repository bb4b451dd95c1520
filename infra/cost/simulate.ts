/**
 * A month under simulation, whole or as much of it as a few million events make: nothing in it depends on the day or the hour, so a
 * stretch stands for the rest. Tasks above 1,000 a second come in groups. Deaths are too rare to measure rescue by: a second run is
 * the same with a death every few minutes, at moments drawn at random.
 */
import type { Counts } from "./counts.ts";
import type { Histogram } from "./timeline.ts";
import { Window } from "./window.ts";
import { ASSUMPTIONS, type Assumptions, MONTH_MS, type Workload } from "./workload.ts";

export interface Simulated {
  /** Per month. */
  readonly tasks: number;
  readonly ticks: number;
  readonly invocations: number;
  readonly coldStarts: number;
  readonly billedMs: number;
  readonly requests: number;
  readonly queued: number;
  readonly awakeMs: number;
  readonly kills: number;
  /** From due to started, all tasks; from the holder's death to started anew. NaN: there was none. */
  readonly pickUpMs: Percentiles;
  readonly rescueMs: Percentiles;
  readonly rescues: number;
  /** Tasks came faster than all slots together could run them. */
  readonly fallsBehind: boolean;
  /** What was simulated of the month. */
  readonly sampledMs: number;
}

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
}

export interface SimulateOptions {
  readonly seed: number;
  readonly assumptions?: Assumptions;
  /** How many events may happen in each of the two runs. A million takes a second or three. */
  readonly events?: number;
}

const EVENTS = 4_000_000;
const WARM_UP_TICKS = 2;
const KILLS = 400;
/** A queue longer than this at the end, in seconds of arrivals, is not one that a burst left. */
const BEHIND_SECONDS = 30;

export function simulate(
  workload: Workload,
  { seed, assumptions = ASSUMPTIONS, events = EVENTS }: SimulateOptions,
): Simulated {
  const common = { workload, seed, warmUpMs: WARM_UP_TICKS * Math.min(workload.tickMs, 60_000) };
  const month = new Window({ ...common, assumptions, ms: MONTH_MS, events }).run();
  const { rescue } = new Window({
    ...common,
    // Nobody else dies.
    assumptions: { ...assumptions, killsAnHour: Number.MIN_VALUE },
    ms: MONTH_MS,
    events,
    // Of few slots one at a time, and its seat is taken again before the next; of very many so many that most of them are well.
    kills: { meanGapMs: 3_000_000 / workload.slots, atOnce: Math.ceil(workload.slots / 50), most: KILLS },
  }).run();
  return perMonth(workload, month, rescue);
}

function perMonth(workload: Workload, counts: Counts, rescue: Histogram): Simulated {
  const { ms, pickUp, waiting, ...amounts } = counts;
  const scaled = (amount: number): number => (amount / ms) * MONTH_MS;
  const arrivalsAMs = workload.tasksPerMonth / MONTH_MS;
  return {
    tasks: scaled(amounts.tasks),
    ticks: scaled(amounts.ticks),
    invocations: scaled(amounts.invocations),
    coldStarts: scaled(amounts.coldStarts),
    billedMs: scaled(amounts.billedMs),
    requests: scaled(amounts.requests),
    queued: scaled(amounts.queued),
    awakeMs: scaled(amounts.awakeMs),
    kills: scaled(amounts.kills),
    pickUpMs: percentiles(pickUp),
    rescueMs: percentiles(rescue),
    rescues: rescue.total,
    fallsBehind: waiting > Math.max(100, arrivalsAMs * 1000 * BEHIND_SECONDS),
    sampledMs: ms,
  };
}

const percentiles = (of: Histogram): Percentiles => ({ p50: of.quantile(0.5), p99: of.quantile(0.99) });
