import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { readOptions } from "../infra/cost/options.ts";
import { bill, costOf, PRICES } from "../infra/cost/prices.ts";
import { priceTable, textOf } from "../infra/cost/report.ts";
import { type Simulated, simulate } from "../infra/cost/simulate.ts";
import { Chance, Histogram, Timeline } from "../infra/cost/timeline.ts";
import { FIXED, fargateUsage, sqsUsage, stintUsage, sumOf } from "../infra/cost/usage.ts";
import {
  ASSUMPTIONS,
  type Assumptions,
  MONTH_MS,
  PROFILES,
  type Workload,
  workloadOf,
} from "../infra/cost/workload.ts";
import { pause } from "../lib/clock.ts";
import type { Config } from "../lib/config.ts";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { createRegistry } from "../lib/registry.ts";
import { readTick, runTick } from "../lib/tick.ts";
import { arrangingWakes } from "../lib/wakes.ts";
import { type InvocationReport, runInvocation } from "../lib/worker.ts";
import { openDatabase } from "./support/database.ts";
import { startNode } from "./support/stint.ts";

const GIVEN = { tasksPerMonth: 1_000_000, taskMs: 100, memoryMb: 512, slots: 5, places: 10 };
/** Ticks on the minute, all of them, and nobody dies. */
const PERFECT: Assumptions = {
  ...ASSUMPTIONS,
  jitterMs: 0,
  lostTicks: 0,
  doubledTicks: 0,
  killsAnHour: Number.MIN_VALUE,
  burstShare: 0,
};
const perMinute = (amountAMonth: number): number => (amountAMonth / MONTH_MS) * 60_000;

describe("arithmetic", () => {
  test("tiers, and what AWS gives away", () => {
    expect(costOf("schedulerInvocations", 20_000_000, false)).toBeCloseTo(20);
    expect(costOf("schedulerInvocations", 20_000_000, true)).toBeCloseTo(6);
    expect(costOf("schedulerInvocations", 5, true)).toBe(0);
    expect(costOf("lambdaGbSeconds", 8e9, false)).toBeCloseTo(7.5e9 * 0.0000133334 + 0.5e9 * 0.0000120001);
    expect(costOf("sqsRequests", 250e9, false)).toBeCloseTo(40_000 + 30_000 + 12_000);
    expect(bill({ auroraAcuHours: 365, logs: 7 }, true)).toEqual({ auroraAcuHours: 43.8, logs: 1 });
  });

  test("a month by hand: one resident of 512 MB that polls every two seconds, four slots that look each minute", () => {
    const month: Simulated = {
      ...{ tasks: 1_000_000, ticks: 219_000, invocations: 219_000, coldStarts: 0, billedMs: MONTH_MS, kills: 0 },
      ...{ requests: 1_314_000, queued: 0, awakeMs: MONTH_MS, rescues: 0, fallsBehind: false, sampledMs: MONTH_MS },
      ...{ pickUpMs: { p50: 1000, p99: 2000 }, rescueMs: { p50: 1, p99: 1 } },
    };
    const lines = stintUsage(workloadOf("standard", GIVEN), month);
    const usd = Object.fromEntries(lines.map((line) => [line.what, sumOf([line], false)]));
    expect(usd.Lambda).toBeCloseTo(0.0438 + 17.52, 2); // 219,000 requests; 2,628,000 s of half a GB
    expect(usd["Data API, processing"]).toBeCloseTo(0.46, 2);
    expect(usd["Data API, enqueueing one by one"]).toBeCloseTo(0.35, 4);
    expect(usd.Scheduler).toBeCloseTo(0.219, 4);
    expect(usd["Aurora capacity"]).toBeCloseTo(43.8, 4); // half an ACU, 730 hours
    expect(usd["queue of wakes"]).toBe(0);
    expect(sumOf(lines, true)).toBeLessThan(sumOf(lines, false) - 5);
  });

  test("what one would take instead: a message a task; a quarter of a vCPU, always on", () => {
    const workload = workloadOf("standard", GIVEN);
    const [lambda, sqs] = sqsUsage(workload);
    expect(sumOf([lambda!], false)).toBeCloseTo(0.2 + 0.667, 2);
    expect(sumOf([sqs!], false)).toBeCloseTo(3 * 0.4 + 0.657 * 0.4, 2);
    const [fargate, address] = fargateUsage(workload);
    expect(sumOf([fargate!], false)).toBeCloseTo(730 * (0.25 * 0.03238 + 0.5 * 0.00356), 2);
    expect(sumOf([address!], false)).toBeCloseTo(3.65, 2);
    // 1,000 tasks at a time, 35 a container
    const [many] = fargateUsage({ ...workload, tasksPerMonth: MONTH_MS * 10 });
    expect(many!.usage.fargateCpu).toBeCloseTo(29 * 730 * 0.25, 4);
  });

  test("what is made besides is counted in the template and in the metrics", async () => {
    type Made = Record<string, { Type: string }>;
    const load = async (path: string) =>
      (await import(new URL(`../infra/resources/${path}`, import.meta.url).href)) as Record<
        string,
        (s: object) => Made
      >;
    const settings = { name: "s", profile: "standard", slots: 5, residentSlots: 1, alarmTopicArn: "", alarmEmail: "" };
    const count = (made: Made, type: string): number => Object.values(made).filter(({ Type }) => Type === type).length;
    const alarms = (await load("alarms.js")).alarmsOf!(settings);
    expect(count(alarms, "AWS::CloudWatch::Alarm")).toBe(FIXED.alarms);
    const secrets = (await load("database.js")).secretsOf!({ ...settings, kmsKeyArn: "", operate: true });
    expect(count(secrets, "AWS::SecretsManager::Secret") + 1).toBe(FIXED.secrets);
    const text = readFileSync(new URL("../lib/observability.ts", import.meta.url), "utf8");
    const metrics = text.match(/addMetric\("\w+"|^ {4}(Tasks\w+|Requests|StaleCompletions):/gm)!;
    expect(metrics.length).toBe(FIXED.metrics);
  });

  test("each price has its source and date, and the page shows the table as it is", () => {
    for (const { source, asOf } of Object.values(PRICES)) {
      expect(source).toMatch(/^https:\/\//);
      expect(asOf).toMatch(/^20\d\d(-\d\d)?$/);
    }
    const page = readFileSync(new URL("../infra/cost/README.md", import.meta.url), "utf8");
    expect(page).toContain(priceTable());
  });
});

describe("what the simulation stands on", () => {
  test("events come by time, those of one time as they were asked for; a stopped run goes on later", () => {
    const time = new Timeline();
    const seen: string[] = [];
    for (const [name, at] of Object.entries({ d: 30, a: 10, b: 10, c: 20 })) time.in(at, () => seen.push(name));
    time.run(25);
    expect([seen.join(""), time.now]).toEqual(["abc", 25]);
    time.in(1, () => seen.push("e"));
    time.run(100, () => seen.length === 4);
    expect(seen.join("")).toBe("abce");
  });

  test("percentiles to a hundredth; waits of the mean asked for", () => {
    const histogram = new Histogram();
    for (let ms = 1; ms <= 1000; ms += 1) histogram.add(ms, 2);
    expect(histogram.quantile(0.5) / 500).toBeCloseTo(1, 1);
    expect(histogram.quantile(0.99) / 990).toBeCloseTo(1, 1);
    expect(new Histogram().quantile(0.5)).toBeNaN();
    const chance = new Chance(1, 1);
    const sum = Array.from({ length: 20_000 }, () => chance.wait(50)).reduce((total, ms) => total + ms, 0);
    expect(sum / 20_000 / 50).toBeCloseTo(1, 1);
  });
});

describe("the simulation", () => {
  const events = 200_000;

  test("repeats with its seed", () => {
    const workload = workloadOf("standard", GIVEN);
    const [one, same, other] = [1, 1, 2].map((seed) => simulate(workload, { seed, events }));
    expect(same).toEqual(one);
    expect(other).not.toEqual(one);
  });

  test("nothing to do and ticks on the minute: an invocation a slot and minute, two exchanges a look, a poll each two seconds", () => {
    const workload = workloadOf("standard", { ...GIVEN, tasksPerMonth: 0 });
    const month = simulate(workload, { seed: 1, events, assumptions: PERFECT });
    expect(perMinute(month.invocations)).toBeCloseTo(5, 1);
    // The resident's 30 or 31 polls, its end, and 4 looks; each ten minutes the built-in schedule.
    const requests = perMinute(month.requests);
    expect(requests).toBeGreaterThan(30 + 1 + 4 * 2);
    expect(requests).toBeLessThan(31 + 1 + 4 * 2 + 2);
    // The one before stays until it hears of the next: half a poll.
    expect(month.billedMs / MONTH_MS).toBeGreaterThan(1);
    expect(month.billedMs / MONTH_MS).toBeLessThan(1.05);
  });

  test("more residents never start a task later", () => {
    const waits = [0, 1, 2, 3, 5].map(
      (residents) => simulate(workloadOf("standard", { ...GIVEN, residents }), { seed: 1, events }).pickUpMs,
    );
    for (const [place, { p50, p99 }] of waits.slice(1).entries()) {
      expect(p50).toBeLessThanOrEqual(waits[place]!.p50);
      expect(p99).toBeLessThanOrEqual(waits[place]!.p99 * 1.01);
    }
  });

  test("a resident starts what is due within the sleep interval and a request; nobody there, within a tick", () => {
    const one = simulate(workloadOf("standard", GIVEN), { seed: 1, events, assumptions: PERFECT });
    expect(one.pickUpMs.p99).toBeLessThanOrEqual(2100);
    const none = simulate(workloadOf("standard", { ...GIVEN, slots: 1, residents: 0 }), {
      seed: 1,
      events,
      assumptions: PERFECT,
    });
    expect(none.pickUpMs.p50).toBeGreaterThan(10_000);
    expect(none.pickUpMs.p99).toBeLessThanOrEqual(62_000);
  });

  test("the dead are found after the grace period: by the other resident, else by the next tick's", () => {
    const [strict, standard] = [2, 1].map((residents) =>
      simulate(workloadOf("standard", { ...GIVEN, residents }), { seed: 1, events }),
    );
    expect(strict!.rescues).toBeGreaterThan(50);
    expect(strict!.rescueMs.p50).toBeGreaterThan(18_000);
    expect(strict!.rescueMs.p50).toBeLessThan(23_000);
    expect(standard!.rescueMs.p99).toBeGreaterThan(strict!.rescueMs.p50);
    expect(standard!.rescueMs.p99).toBeLessThan(20_000 + 2 * 60_000 + 10_000);
  });

  test("lost ticks cost the resident nothing; duplicates cost invocations", () => {
    const workload = workloadOf("standard", GIVEN);
    const run = (more: Partial<Assumptions>) =>
      simulate(workload, { seed: 1, events, assumptions: { ...PERFECT, jitterMs: 60_000, ...more } });
    const [even, lossy, doubled] = [run({}), run({ lostTicks: 0.2 }), run({ doubledTicks: 0.2 })];
    expect(lossy.invocations / even.invocations).toBeCloseTo(0.8, 1);
    expect(lossy.pickUpMs.p99 / even.pickUpMs.p99).toBeCloseTo(1, 1);
    expect(doubled.invocations / even.invocations).toBeCloseTo(1.2, 1);
  });

  test("quiet: an hourly look and the dead man's call of what it did, then the database rests; a task waits for a start alone", () => {
    const idle = simulate(workloadOf("quiet", { ...GIVEN, tasksPerMonth: 0 }), { seed: 1, events });
    expect(perMinute(idle.invocations) * 60).toBeCloseTo(2, 1);
    // Half a minute, and five to pause, of each hour.
    expect(idle.awakeMs / MONTH_MS).toBeGreaterThan(300 / 3600);
    expect(idle.awakeMs / MONTH_MS).toBeLessThan(400 / 3600);
    const little = simulate(workloadOf("quiet", { ...GIVEN, tasksPerMonth: 3000 }), { seed: 1, events });
    expect(little.awakeMs).toBeGreaterThan(idle.awakeMs);
    expect(little.awakeMs).toBeLessThan(MONTH_MS / 2);
    expect(little.pickUpMs.p50).toBeLessThan(1000);
    expect(little.rescueMs.p99).toBeLessThan(20_000 * 1.25 + 20_000);
  });

  test("too few places: it says that it falls behind", () => {
    const few = { ...GIVEN, tasksPerMonth: MONTH_MS / 10, slots: 1, places: 1 };
    expect(simulate(workloadOf("standard", few), { seed: 1, events }).fallsBehind).toBe(true);
    const enough = { ...few, slots: 5, places: 10 };
    expect(simulate(workloadOf("standard", enough), { seed: 1, events }).fallsBehind).toBe(false);
  });

  test("10,000 tasks a second on 1,000 slots", { timeout: 120_000 }, () => {
    const tasksPerMonth = 10 * MONTH_MS;
    const workload = workloadOf("strict", { ...GIVEN, tasksPerMonth, slots: 1000, places: 100 });
    const month = simulate(workload, { seed: 1, events: 2_000_000 });
    expect(month.tasks / tasksPerMonth).toBeCloseTo(1, 0);
    expect(month.fallsBehind).toBe(false);
    expect(month.rescues).toBeGreaterThan(0);
  });
});

describe("the command", () => {
  test("bad flags: one error that names each", () => {
    const bad = ["--tasks-per-month", "-5", "--slots", "0", "--profile", "loud", "--residents", "1.5"];
    expect(() => readOptions(bad.map((text) => (text === "-5" ? "many" : text)))).toThrow(
      [
        '--tasks-per-month is "many"; allowed: 0 to 30000000000',
        "--ms is missing; allowed: 1 to 840000",
        '--slots is "0"; allowed: 1 to 1000',
        '--residents is "1.5"; allowed: 0 to 1000',
        '--profile is "loud"; allowed: strict, standard, quiet',
      ].join("\n"),
    );
    const some = ["--tasks-per-month", "1", "--ms", "1"];
    expect(() => readOptions([...some, "--profile", "quiet", "--residents", "1"])).toThrow(/nobody polls/);
    expect(() => readOptions([...some, "--residents", "6"])).toThrow(/allowed: 0 to 5/);
    expect(() => readOptions([...some, "--speed", "1"])).toThrow(/--speed/);
  });

  test("all profiles side by side, or one; residents alone are the standard's", () => {
    const some = ["--tasks-per-month", "10", "--ms", "1"];
    expect(readOptions(some).workloads.map(({ profile }) => profile)).toEqual(PROFILES);
    expect(readOptions([...some, "--residents", "3"]).workloads).toMatchObject([
      { profile: "standard", workload: { residents: 3 } },
    ]);
  });

  test("exits with 2 and what is allowed; prints a table, or JSON", async () => {
    const run = (...args: string[]) => startNode(["infra/cost/run.ts", ...args], {}, `${import.meta.dirname}/..`).ended;
    const [wrong, right] = await Promise.all([
      run("--ms", "0"),
      run("--tasks-per-month", "0", "--ms", "5", "--profile", "standard", "--json"),
    ]);
    expect(wrong).toMatchObject({ code: 2, stdout: "" });
    expect(wrong.stderr).toContain("--ms is");
    expect(right.code).toBe(0);
    const { standard, container } = JSON.parse(right.stdout);
    expect(standard.totalUsd).toBeGreaterThan(60);
    expect(standard.month.invocations / 219_000).toBeCloseTo(1, 1);
    expect(container.usd.Fargate).toBeCloseTo(7.21, 2);
  });

  test("the table says what falls behind", () => {
    const month = simulate(workloadOf("standard", { ...GIVEN, tasksPerMonth: 0 }), { seed: 1, events: 10_000 });
    const column = { name: "standard", lines: [], month: { ...month, fallsBehind: true } };
    expect(textOf([column], false)).toContain("standard: falls behind");
  });
});

/** As the processor function would be, on this machine; `times` of its requests in milliseconds, one each. */
async function realWorld(workload: Workload) {
  const db = await openDatabase("pg");
  const times: number[] = [];
  const database: typeof db.database = {
    ...db.database,
    query: async (...args) => {
      const sentAt = performance.now();
      const rows = await db.database.query(...args);
      times.push(performance.now() - sentAt);
      return rows;
    },
  };
  const work = defineTask({ identifier: "work", payload: z.object({}) });
  const stop = new AbortController();
  const options = {
    databases: [database],
    registry: createRegistry([work.handle(() => pause(workload.taskMs))], workload.invocationMs),
    settings: { ...workload, queuePopSize: workload.places, backoffDefaultMs: 0 },
    log: silentLog,
    signal: stop.signal,
  };
  const isIdle = async () => (await db.sql("SELECT FROM task LIMIT 1")).length === 0;
  const median = () => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)]!;
  return { db, work, times, stop, options, isIdle, median };
}

/** Enqueues at random for so long; how many. */
async function produce(perSecond: number, ms: number, enqueue: () => Promise<unknown>): Promise<number> {
  const chance = new Chance(7, 0);
  const endsAt = performance.now() + ms;
  for (let enqueued = 0; ; enqueued += 1) {
    await pause(chance.wait(1000 / perSecond));
    if (performance.now() >= endsAt) return enqueued;
    await enqueue();
  }
}

/** How far two amounts are apart, whichever is larger: 0.25 is a little more than a quarter. */
const apart = (measured: number, simulated: number): number => Math.abs(Math.log(measured / simulated));

test("a measured run with a resident: as many invocations and requests as simulated", async () => {
  const perSecond = 12;
  const workload: Workload = {
    ...workloadOf("standard", { ...GIVEN, taskMs: 30, slots: 3, places: 4 }),
    ...{ tasksPerMonth: (MONTH_MS / 1000) * perSecond, sleepIntervalMs: 200, graceMs: 5000, tickMs: 2000 },
  };
  const { db, work, times, stop, options, isIdle, median } = await realWorld(workload);
  const reports: Promise<InvocationReport>[] = [];
  const call = async (slot: number): Promise<void> => {
    reports.push(runInvocation({ ...options, slot, resident: false, onlyFree: true }));
  };
  const wake = { slots: workload.slots, call };
  const chance = new Chance(8, 0);
  const startedAt = performance.now();
  const lastsMs = 8 * workload.tickMs;
  const ticks = Array.from({ length: workload.slots }, async (_, slot) => {
    for (let due = startedAt; due < startedAt + lastsMs; due += workload.tickMs) {
      await pause(due + chance.next(workload.tickMs) - performance.now());
      reports.push(runInvocation({ ...options, slot, resident: slot < workload.residents, wake }));
      await pause(due + workload.tickMs - performance.now());
    }
  });
  const client = createTaskClient({ database: db.database });
  const enqueued = await produce(perSecond, lastsMs, () => client.enqueue(work, {}));
  await Promise.all(ticks);
  while (!(await isIdle())) await pause(20);
  stop.abort();
  const ended = await Promise.all(reports);
  const seconds = (performance.now() - startedAt) / 1000;
  expect(ended.reduce((sum, { succeeded }) => sum + succeeded, 0)).toBe(enqueued);

  const month = simulate(workload, {
    seed: 1,
    events: 300_000,
    assumptions: { ...PERFECT, requestMs: median(), startMs: 0, coldStartMs: 0, jitterMs: workload.tickMs },
  });
  const inTheTime = (amountAMonth: number): number => (amountAMonth / MONTH_MS) * 1000 * seconds;
  // A busy machine polls a little less often; chance moves the rest, most of all how often somebody is woken.
  expect(apart(enqueued, inTheTime(month.tasks))).toBeLessThan(0.25);
  expect(apart(ended.length, inTheTime(month.invocations))).toBeLessThan(0.4);
  expect(apart(times.length, inTheTime(month.requests))).toBeLessThan(0.25);
});

test("a measured run where nobody polls: as many calls a task, and requests a call, as simulated", async () => {
  const perSecond = 1.5;
  const workload: Workload = {
    ...workloadOf("quiet", { ...GIVEN, taskMs: 30, slots: 3, places: 4 }),
    ...{ tasksPerMonth: (MONTH_MS / 1000) * perSecond, sleepIntervalMs: 200, graceMs: 2400 },
  };
  const { db, work, times, options, isIdle, median } = await realWorld(workload);
  const calls: Promise<InvocationReport>[] = [];
  const timers = new Set<NodeJS.Timeout>();
  // Stands for SQS and its event source mapping.
  const queue = createServer(async (request, response) => {
    let body = "";
    for await (const part of request.setEncoding("utf8")) body += part;
    const { MessageBody, DelaySeconds } = JSON.parse(body) as { MessageBody: string; DelaySeconds: number };
    const timer = setTimeout(() => {
      timers.delete(timer);
      call();
    }, DelaySeconds * 1000);
    timers.add(timer);
    response.writeHead(200, { "content-type": "application/x-amz-json-1.0" });
    response.end(
      JSON.stringify({ MessageId: "1", MD5OfMessageBody: createHash("md5").update(MessageBody).digest("hex") }),
    );
  });
  await new Promise<void>((resolve) => queue.listen(0, "127.0.0.1", resolve));
  const sqsEndpoint = `http://127.0.0.1:${(queue.address() as AddressInfo).port}`;
  const call = (): void => {
    const { databases, registry, log } = options;
    calls.push(
      arrangingWakes(
        { graceMs: workload.graceMs, sqsEndpoint } as Config,
        `${sqsEndpoint}/000000000000/wakes`,
        { databases, release: registry.release, log },
        (beforeWork) => runTick(readTick({ wake: true }, workload.slots), { ...options, beforeWork }),
      ),
    );
  };
  try {
    const client = createTaskClient({ database: db.database, wake: async () => call() });
    const enqueued = await produce(perSecond, 16_000, () => client.enqueue(work, {}));
    while (!(await isIdle()) || timers.size > 0) await pause(20);
    const ended = await Promise.all(calls);
    expect(ended.reduce((sum, { succeeded }) => sum + succeeded, 0)).toBe(enqueued);

    const month = simulate(workload, {
      seed: 1,
      events: 300_000,
      assumptions: { ...PERFECT, requestMs: median(), startMs: 0, coldStartMs: 0, resumeMs: 0 },
    });
    // Some twenty tasks: chance moves how many calls they need.
    expect(apart(ended.length / enqueued, month.invocations / month.tasks)).toBeLessThan(0.5);
    expect(apart(times.length / ended.length, month.requests / month.invocations)).toBeLessThan(0.25);
  } finally {
    for (const timer of timers) clearTimeout(timer);
    queue.closeAllConnections();
    queue.close();
  }
});
