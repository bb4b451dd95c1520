import { readFileSync } from "node:fs";
import { beforeEach, describe, expect, test } from "vitest";
import { cleanUp } from "../lib/clean-up.ts";
import { readConfig } from "../lib/config.ts";
import { Counters } from "../lib/counters.ts";
import { foldEnded } from "../lib/fold-counters.ts";
import { readMetrics } from "../lib/metrics.ts";
import { performAction } from "../lib/operator.ts";
import type { Action } from "../lib/operator-schema.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";
import { enqueueRaw, failure, GRACE_MS, register, Speaker, success } from "./support/exchange.ts";

const settings = { graceMs: GRACE_MS, sleepIntervalMs: 2000 };
const NEVER = new AbortController().signal;

describe.each(ADAPTERS)("metrics over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const text = (databases = [db.database]) => readMetrics(databases, settings);
  const value = (metrics: string, series: string): number | undefined => {
    const line = metrics.split("\n").find((one) => one.startsWith(`${series} `));
    return line === undefined ? undefined : Number(line.slice(series.length + 1));
  };
  const enqueued = async (identifier = "greet") =>
    value(await text(), `task_processor_enqueued_tasks_total{task_identifier="${identifier}"}`);
  const succeeded =
    'task_processor_finished_tasks_total{task_identifier="greet",task_type="standard",result="success"}';

  /** An invocation that runs what it claims and tells what it counted, as the worker does. */
  async function work(slot: number, ending: boolean) {
    const speaker = new Speaker(db, { slot });
    const counters = new Counters();
    const { tasks } = await speaker.say();
    for (const [n, { identifier }] of tasks.entries()) {
      const result = n === 0 ? "failure" : "success";
      counters.record({ identifier, taskType: "standard", result, durationMs: 60 * (n + 1) });
    }
    const results = tasks.map((task, n) => (n === 0 ? failure(task) : success(task)));
    await speaker.say({ want: 0, ending, results, metrics: counters.toJSON() } as object);
  }

  beforeEach(async () => {
    await reset(db);
    await register(db, "r1", { greet: { maxAttempts: 1 } });
  });

  test("counters, histogram and gauges under the original's names, as a Prometheus server reads them", async () => {
    await enqueueRaw(db, "greet", 3);
    await work(0, false);
    await enqueueRaw(db, "greet", 2);
    const metrics = await text();
    expect(value(metrics, succeeded)).toBe(2);
    expect(await enqueued()).toBe(5);
    const of = 'task_identifier="greet",task_type="standard",result="success"';
    expect(value(metrics, `task_processor_task_duration_seconds_bucket{${of},le="0.1"}`)).toBe(0);
    expect(value(metrics, `task_processor_task_duration_seconds_bucket{${of},le="0.25"}`)).toBe(2);
    expect(value(metrics, `task_processor_task_duration_seconds_bucket{${of},le="+Inf"}`)).toBe(2);
    expect(value(metrics, `task_processor_task_duration_seconds_sum{${of}}`)).toBe(0.3);
    expect(value(metrics, `task_processor_task_duration_seconds_count{${of}}`)).toBe(2);
    expect(value(metrics, 'task_processor_tasks{task_identifier="greet",state="waiting"}')).toBe(2);
    expect(value(metrics, 'task_processor_tasks{task_identifier="greet",state="failed"}')).toBe(1);
    expect(value(metrics, 'task_processor_slots{database="0",slot="0",state="working"}')).toBe(1);
    expect(metrics).toMatch(/# TYPE task_processor_task_duration_seconds histogram/);
    expect(metrics).toMatch(/# TYPE task_processor_enqueued_tasks_total counter/);
  });

  test("Grafana's dashboard asks for metrics that there are, by labels that they have", async () => {
    await enqueueRaw(db, "greet", 3);
    await work(0, false);
    const metrics = await text();
    const asked = [...readFileSync("infra/grafana/stint.json", "utf8").matchAll(/task_processor_\w+/g)].map(
      ([name]) => name,
    );
    expect(asked.length).toBeGreaterThan(10);
    for (const name of new Set(asked)) expect(metrics, name).toMatch(new RegExp(`^${name}\\{`, "m"));
  });

  test("an identifier cannot break out of its label", async () => {
    const hostile = 'a"} 1\nevil_total{x="\\';
    await enqueueRaw(db, hostile);
    const metrics = await text();
    expect(metrics).toContain('task_identifier="a\\"} 1\\nevil_total{x=\\"\\\\"');
    expect(metrics).not.toMatch(/^evil/m);
  });

  test("counters survive folding and retention, each counted once", async () => {
    await enqueueRaw(db, "greet", 30);
    for (const [slot, ending] of [
      [0, true],
      [1, true],
      [1, false],
    ] as const)
      await work(slot, ending);
    const before = (await text()).split("\n").filter((line) => /_total|_seconds_(bucket|sum|count)/.test(line));
    expect(value(before.join("\n"), succeeded)).toBe(27);
    expect(await foldEnded(db.database, NEVER)).toBe(2);
    expect(await foldEnded(db.database, NEVER)).toBe(0);
    await db.sql(
      "UPDATE heartbeat SET last_seen_at = last_seen_at - interval '5 days', started_at = started_at - interval '5 days' WHERE ended_at IS NOT NULL",
    );
    await db.sql("UPDATE task_run SET finished_at = finished_at - interval '99 days'");
    const removed = await cleanUp(db.database, readConfig({}).cleanUp, NEVER);
    expect(removed).toMatchObject({ heartbeat: 1, task_run: 27 });
    const after = (await text()).split("\n").filter((line) => /_total|_seconds_(bucket|sum|count)/.test(line));
    expect(after.sort()).toEqual(before.sort());
  });

  test("an expired invocation's counters are folded too", async () => {
    await enqueueRaw(db, "greet", 3);
    await work(0, false);
    await db.sql("UPDATE heartbeat SET expired_at = now()");
    expect(await foldEnded(db.database, NEVER)).toBe(1);
    expect(value(await text(), succeeded)).toBe(2);
  });

  test("enqueued never falls: tasks that fail, are cancelled, retried, deleted or purged stay counted", async () => {
    await enqueueRaw(db, "greet", 6);
    const act = (action: object) => performAction([db.database], { dryRun: false, ...action } as Action, "ada");
    await work(0, true);
    expect(await enqueued()).toBe(6);
    await enqueueRaw(db, "greet", 3);
    await act({ action: "cancel", ids: ["7"] });
    expect(await enqueued()).toBe(9);
    await act({ action: "delete", ids: ["7", "8"] });
    expect(await enqueued()).toBe(9);
    await act({ action: "retry", ids: ["1"] });
    expect(await enqueued()).toBe(9);
    await work(0, true);
    await db.sql("UPDATE failed_task SET failed_at = failed_at - interval '99 days'");
    await cleanUp(db.database, { ...readConfig({}).cleanUp, includeFailedTasks: true }, NEVER);
    expect(await db.sql("SELECT FROM failed_task")).toEqual([]);
    expect(await enqueued()).toBe(9);
  });

  test("over two databases they add up", async () => {
    await enqueueRaw(db, "greet", 3);
    await work(0, true);
    expect(value(await text([db.database, db.database]), succeeded)).toBe(4);
  });
});
