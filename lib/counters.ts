/** What an invocation has run so far, by identifier, in memory: cumulative, sent with each exchange, kept on its heartbeat. */

/** Upper bounds of the buckets of durations, in milliseconds; one more bucket holds what is above the last. */
export const BUCKET_BOUNDS_MS = [
  5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000, 30_000, 60_000, 300_000, 900_000,
] as const;

export type TaskType = "standard" | "recurring";
export type RunResult = "success" | "failure";

/** identifier, task type, result, runs, sum of their durations in milliseconds, runs by bucket (not cumulative). */
export type Series = readonly [string, TaskType, RunResult, number, number, readonly number[]];

export interface Run {
  readonly identifier: string;
  readonly taskType: TaskType;
  readonly result: RunResult;
  readonly durationMs: number;
}

export class Counters {
  readonly #series = new Map<string, { of: Run; runs: number; sumMs: number; buckets: number[] }>();

  /** One run that ended. A duration that is no number of at least 0 (a clock that went back) counts as 0. */
  record(run: Run): void {
    const name = `${run.taskType} ${run.result} ${run.identifier}`;
    let series = this.#series.get(name);
    if (series === undefined) {
      series = { of: run, runs: 0, sumMs: 0, buckets: new Array(BUCKET_BOUNDS_MS.length + 1).fill(0) };
      this.#series.set(name, series);
    }
    const durationMs = run.durationMs > 0 ? run.durationMs : 0;
    const place = BUCKET_BOUNDS_MS.findIndex((bound) => durationMs <= bound);
    series.runs += 1;
    series.sumMs += durationMs;
    series.buckets[place === -1 ? BUCKET_BOUNDS_MS.length : place]! += 1;
  }

  /** As the heartbeat keeps it. Grows with the number of identifiers that have run, not of runs: about 100 bytes a series. */
  toJSON(): Series[] {
    return [...this.#series.values()].map(({ of, runs, sumMs, buckets }) => [
      of.identifier,
      of.taskType,
      of.result,
      runs,
      Math.round(sumMs * 1000) / 1000,
      [...buckets],
    ]);
  }
}
