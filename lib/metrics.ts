/** GET /processor/metrics: Prometheus text, summed over all databases. Names and labels are the original's. */
import { Registry } from "prom-client";
import { BUCKET_BOUNDS_MS } from "./counters.ts";
import type { Database } from "./database/port.ts";
import { readMetricsRows } from "./sql/metrics.ts";
import { countsOf, MOST_IDENTIFIERS, type RawCounts, type StatsSettings, slotState } from "./stats.ts";

/** Unfinished tasks of an identifier are counted so far: the enqueued counter may lag behind a longer backlog, and catches up as it drains. */
const COUNT_BOUND = 5000;

type Row =
  | readonly ["run", string, readonly [string, string, number, number, readonly number[]]]
  | readonly ["identifier", string, RawCounts, RawCounts]
  | readonly ["slot", { slot: number; seenAgoMs: number | null; ended: boolean; expired: boolean }];

type Labels = Record<string, string | number>;
interface Value {
  readonly labels: Labels;
  readonly value: number;
  readonly metricName?: string;
}
type Kind = "counter" | "gauge" | "histogram";

export const METRICS_CONTENT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/** @throws StintError database_* | schema_missing */
export async function readMetrics(databases: readonly Database[], settings: StatsSettings): Promise<string> {
  const most = MOST_IDENTIFIERS;
  const answers = await Promise.all(
    databases.map(async (database) =>
      (await database.query(readMetricsRows, { most, bound: COUNT_BOUND })).map(({ row }) => JSON.parse(row) as Row),
    ),
  );
  const runs = new Map<string, { labels: Labels; runs: number; ms: number; buckets: number[] }>();
  const enqueued = new Map<string, number>();
  const gauges = new Map<string, ReturnType<typeof countsOf>[]>();
  const slots: Value[] = [];
  const enqueue = (identifier: string, tasks: number): void =>
    void enqueued.set(identifier, (enqueued.get(identifier) ?? 0) + tasks);
  answers.forEach((rows, database) => {
    for (const row of rows) {
      if (row[0] === "slot") {
        const state = slotState(row[1], settings);
        slots.push({ labels: { database, slot: row[1].slot, state }, value: 1 });
      } else if (row[0] === "identifier") {
        const [, identifier, counted, estimated] = row;
        enqueue(identifier, counted.waiting + counted.running + counted.scheduled + counted.retrying + counted.failed);
        gauges.set(identifier, [...(gauges.get(identifier) ?? []), countsOf(estimated)]);
      } else {
        const [, identifier, [taskType, result, number, ms, buckets]] = row;
        if (result !== "failure") enqueue(identifier, number);
        if (result !== "failure" && result !== "success") continue;
        const labels = { task_identifier: identifier, task_type: taskType, result };
        const name = JSON.stringify(labels);
        const one = runs.get(name) ?? { labels, runs: 0, ms: 0, buckets: BUCKET_BOUNDS_MS.map(() => 0) };
        one.runs += number;
        one.ms += ms;
        one.buckets = one.buckets.map((value, place) => value + (buckets[place] ?? 0));
        runs.set(name, one);
      }
    }
  });
  const registry = new Registry();
  const add = (kind: Kind, name: string, help: string, values: Value[]): void =>
    // What the library formats is what a metric of its own says of itself.
    registry.registerMetric({
      name,
      get: async () => ({ name, help, type: kind, values, aggregator: "sum" }),
    } as never);
  add(
    "counter",
    "task_processor_enqueued_tasks_total",
    "Tasks enqueued. May lag behind a backlog of over 5000 of an identifier, and catches up as it drains.",
    [...enqueued].map(([identifier, value]) => ({ labels: { task_identifier: identifier }, value })),
  );
  add(
    "counter",
    "task_processor_finished_tasks_total",
    "Task runs that finished, by result.",
    [...runs.values()].map((one) => ({ labels: one.labels, value: one.runs })),
  );
  const duration = "task_processor_task_duration_seconds";
  add(
    "histogram",
    duration,
    "Duration of task runs.",
    [...runs.values()].flatMap((one) => histogram(duration, one)),
  );
  addGauges(add, gauges);
  add("gauge", "task_processor_slots", "Slots and the state of their newest invocation.", slots);
  return await registry.metrics();
}

function histogram(name: string, one: { labels: Labels; runs: number; ms: number; buckets: number[] }): Value[] {
  let below = 0;
  return [
    ...BUCKET_BOUNDS_MS.map((bound, place) => {
      below += one.buckets[place]!;
      return { labels: { ...one.labels, le: bound / 1000 }, value: below, metricName: `${name}_bucket` };
    }),
    { labels: { ...one.labels, le: "+Inf" }, value: one.runs, metricName: `${name}_bucket` },
    { labels: one.labels, value: one.ms / 1000, metricName: `${name}_sum` },
    { labels: one.labels, value: one.runs, metricName: `${name}_count` },
  ];
}

function addGauges(
  add: (kind: Kind, name: string, help: string, values: Value[]) => void,
  gauges: ReadonlyMap<string, ReturnType<typeof countsOf>[]>,
): void {
  const states = ["waiting", "running", "scheduled", "retrying", "failed"] as const;
  add(
    "gauge",
    "task_processor_tasks",
    "Tasks by state; an estimate beyond 5000 of an identifier.",
    [...gauges].flatMap(([identifier, all]) =>
      states.map((state) => ({
        labels: { task_identifier: identifier, state },
        value: all.reduce((sum, counts) => sum + counts[state].count, 0),
      })),
    ),
  );
  add(
    "gauge",
    "task_processor_oldest_waiting_seconds",
    "For how long the oldest waiting task has been due.",
    [...gauges].map(([identifier, all]) => ({
      labels: { task_identifier: identifier },
      value: Math.max(...all.map((counts) => (counts.oldestWaitingMs ?? 0) / 1000)),
    })),
  );
}
