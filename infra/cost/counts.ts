import { Histogram } from "./timeline.ts";

/** What happened in a window. */
export interface Counts {
  ms: number;
  tasks: number;
  ticks: number;
  invocations: number;
  coldStarts: number;
  billedMs: number;
  /** To the database, by invocations. */
  requests: number;
  /** Calls that the quiet profile's queue held. */
  queued: number;
  awakeMs: number;
  kills: number;
  /** Due, and held by nobody, at its end. */
  waiting: number;
  readonly pickUp: Histogram;
  readonly rescue: Histogram;
}

export const noCounts = (): Counts => ({
  ms: 0,
  tasks: 0,
  ticks: 0,
  invocations: 0,
  coldStarts: 0,
  billedMs: 0,
  requests: 0,
  queued: 0,
  awakeMs: 0,
  kills: 0,
  waiting: 0,
  pickUp: new Histogram(),
  rescue: new Histogram(),
});
