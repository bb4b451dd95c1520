import { beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { pause } from "../lib/clock.ts";
import { createTaskClient, defineRecurringTask, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { createOperator } from "../lib/operate.ts";
import { occurrencesUntil } from "../lib/recurring-scheduler.ts";
import { createRegistry } from "../lib/registry.ts";
import type { TaskHandler } from "../lib/task.ts";
import { type InvocationOptions, runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { register, Speaker } from "./support/exchange.ts";

const schema = z.object({});
const every = (interval: string, more: object = {}) =>
  defineRecurringTask({ identifier: "beat", every: interval, schema, payload: {}, ...more });
const cron = (pattern: string, timeZone?: string, more: object = {}) =>
  defineRecurringTask({
    identifier: "beat",
    cron: pattern,
    ...(timeZone && { timeZone }),
    schema,
    payload: {},
    ...more,
  });

/** An eighth of the grace period is what planning and firing may take in all: ten seconds. */
const settings = { sleepIntervalMs: 100, graceMs: 80_000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null };
/** Where each exchange waits for a lock, by a half of that eighth. */
const impatient = { ...settings, graceMs: 20_000 };
/** Due by hand only: no time of it passes in the middle of a test. */
const rarely = "365d";
const run = (db: TestDatabase, handlers: readonly TaskHandler[], more: Partial<InvocationOptions> = {}) =>
  runInvocation({
    databases: [db.database],
    registry: createRegistry(handlers, null),
    slot: 0,
    resident: false,
    settings,
    log: silentLog,
    ...more,
  });

describe("schedules", () => {
  test("10,000 occurrences of an interval land on the grid, wherever the looking starts", () => {
    const beat = every("7m", { firstRunTime: "00:03" });
    const minute = 60_000;
    let at = new Date("2026-03-01T10:11:12.345Z");
    for (let n = 0; n < 10_000; n += 1) {
      const next = beat.next(new Date(at.getTime() + (n % 5) * 1000))!;
      expect((next.getTime() - 3 * minute) % (7 * minute)).toBe(0);
      if (n > 0) expect(next.getTime() - at.getTime()).toBe(7 * minute);
      at = next;
    }
  });

  test("cron keeps its local time over both edges of daylight saving", () => {
    const nightly = cron("30 2 * * *", "Europe/Berlin");
    const days = (from: string, count: number) => {
      const found: string[] = [];
      for (let at = new Date(from); found.length < count; ) {
        at = nightly.next(at)!;
        found.push(at.toISOString());
      }
      return found;
    };
    // 29 March 2026 has no 02:30; it runs once, in the hour that stands for it.
    const spring = days("2026-03-28T00:00:00Z", 3);
    expect(spring[0]).toBe("2026-03-28T01:30:00.000Z");
    expect(spring[1]!.slice(0, 10)).toBe("2026-03-29");
    expect(spring[2]).toBe("2026-03-30T00:30:00.000Z");
    // 25 October 2026 has it twice; it runs once.
    const autumn = days("2026-10-24T00:00:00Z", 4).map((at) => at.slice(0, 10));
    expect(autumn).toEqual(["2026-10-24", "2026-10-25", "2026-10-26", "2026-10-27"]);
  });

  test("what was missed runs once, not at all, or each, at most 100", () => {
    const from = new Date("2026-01-01T00:00:00Z");
    const now = new Date("2026-01-01T00:10:30Z");
    const missed = (policy: string) => occurrencesUntil(every("1m", { missed: policy }), from, now);
    expect(missed("once").occurrences.map((at) => at.toISOString())).toEqual(["2026-01-01T00:10:00.000Z"]);
    expect(missed("all").occurrences).toHaveLength(11);
    expect(missed("skip").next?.toISOString()).toBe("2026-01-01T00:11:00.000Z");
    const long = occurrencesUntil(every("1m", { missed: "all" }), from, new Date("2026-02-01T00:00:00Z"));
    expect(long.occurrences).toHaveLength(100);
    expect(long.occurrences.at(-1)!.toISOString()).toBe("2026-02-01T00:00:00.000Z");
    expect(long.next?.toISOString()).toBe("2026-02-01T00:01:00.000Z");
    expect(occurrencesUntil(every("1h", { missed: "skip" }), from, now).occurrences).toEqual([]);
  });

  test.each([
    ["neither", {}],
    ["both", { every: "1h", cron: "* * * * *" }],
    ["every", { every: "soon" }],
    ["every", { every: "0s" }],
    ["cron", { cron: "99 * * * *" }],
    ["timeZone", { cron: "* * * * *", timeZone: "Mars/Olympus" }],
    ["timeZone", { every: "1h", timeZone: "UTC" }],
    ["firstRunTime", { every: "1h", firstRunTime: "25:00" }],
    ["missed", { every: "1h", missed: "sometimes" }],
    ["overlap", { every: "1h", overlap: "yes" }],
    ["does not fit", { every: "1h", schema: z.object({ n: z.number() }), payload: { n: "one" } }],
    ["60009 bytes", { every: "1h", schema: z.object({ t: z.string() }), payload: { t: "x".repeat(60_000) } }],
    ["not JSON", { every: "1h", payload: undefined }],
  ])("a bad schedule is refused: %s", (name, options) => {
    expect(() => defineRecurringTask({ identifier: "beat", schema, payload: {}, ...options } as never)).toThrow(
      expect.objectContaining({ code: "definition_invalid", message: expect.stringContaining(name) }),
    );
  });
});

describe.each(ADAPTERS)("recurring tasks over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  beforeEach(() => reset(db));
  const overdue = (by = "0 seconds") =>
    db.sql(`UPDATE recurring_task SET next_at = date_trunc('second', clock_timestamp() - interval '${by}')`);

  test("each occurrence has one task whatever the number of slots and duplicate ticks", async () => {
    const seen: unknown[] = [];
    const handlers = [every(rarely).handle((_, { taskId }) => void seen.push(taskId))];
    await run(db, handlers);
    for (let round = 1; round <= 5; round += 1) {
      await overdue();
      await Promise.all([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2].map((slot) => run(db, handlers, { slot })));
      // A tick may have been superseded with the task in its hands: the last one runs what is left.
      await run(db, handlers);
      expect(
        await db.sql("SELECT count(DISTINCT task_id)::int AS n FROM task_run WHERE occurrence IS NOT NULL"),
      ).toEqual([{ n: round }]);
    }
    expect(new Set(seen).size).toBe(5);
    expect(
      await db.sql(
        "SELECT next_at > clock_timestamp() AS ahead, extract(minute FROM next_at)::int AS minute, enabled FROM recurring_task",
      ),
    ).toEqual([{ ahead: true, minute: 0, enabled: true }]);
  });

  test("not due costs no write; due while the last one is unfinished is skipped and counted", async () => {
    const handlers = [every(rarely).handle(() => {})];
    await run(db, handlers);
    const version = () => db.sql("SELECT xmin::text, skipped FROM recurring_task");
    const before = await version();
    await run(db, handlers);
    expect(await version()).toEqual(before);
    await db.sql(
      "INSERT INTO task (identifier, scheduled_for, occurrence) VALUES ('beat', '2999-01-01', '2999-01-01')",
    );
    await overdue();
    await run(db, handlers);
    expect(await db.sql("SELECT skipped FROM recurring_task")).toEqual([{ skipped: "1" }]);
    expect(await db.sql("SELECT count(*)::int AS n FROM task")).toEqual([{ n: 1 }]);
  });

  test("missed ones that all run do so one after another; with overlap, beside the unfinished one", async () => {
    const running: number[] = [];
    let now = 0;
    const work = async () => {
      now += 1;
      running.push(now);
      await pause(10);
      now -= 1;
    };
    // No full hour of this grid is nearer than half an hour.
    const firstRunTime = new Date(Date.now() + 1_800_000).toISOString().slice(11, 16);
    const serial = [every("1h", { missed: "all", firstRunTime }).handle(work)];
    await run(db, serial);
    await overdue("5 hours");
    await run(db, serial);
    expect(running.length).toBeGreaterThanOrEqual(5);
    expect(Math.max(...running)).toBe(1);
    const beside = [every("1h", { overlap: true, firstRunTime }).handle(work)];
    await db.sql(
      "INSERT INTO task (identifier, scheduled_for, occurrence) VALUES ('beat', '2999-01-01', '2999-01-01')",
    );
    await overdue();
    const before = running.length;
    await run(db, beside);
    expect(running.length).toBe(before + 1);
    expect(await db.sql("SELECT skipped FROM recurring_task")).toEqual([{ skipped: "0" }]);
  });

  test("a changed schedule is planned anew", async () => {
    await run(db, [every("1h").handle(() => {})]);
    await run(db, [every("1d").handle(() => {})]);
    expect(
      await db.sql("SELECT schedule, extract(hour FROM next_at AT TIME ZONE 'UTC')::int AS hour FROM recurring_task"),
    ).toEqual([{ schedule: '{"every":"1d"}', hour: 0 }]);
  });

  test.each([
    ["behind", -90_000],
    ["ahead of", 90_000],
  ])("a process whose clock is %s the database's gives each occurrence once", async (_, skewMs) => {
    const occurrences: unknown[] = [];
    const minutely = every("1m", { missed: "skip" }).handle(() => void occurrences.push(1));
    await run(db, [minutely]);
    // A minute may have turned before it was through.
    await db.sql("TRUNCATE task_run");
    occurrences.length = 0;
    await db.sql("UPDATE recurring_task SET next_at = date_trunc('minute', clock_timestamp())");
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + skewMs });
    try {
      await run(db, [minutely]);
    } finally {
      vi.useRealTimers();
    }
    expect(occurrences.length).toBeGreaterThanOrEqual(1);
    await run(db, [minutely]);
    // A minute may have turned meanwhile.
    expect(
      await db.sql(
        "SELECT count(*)::int AS runs FROM task_run WHERE occurrence IS NOT NULL GROUP BY occurrence HAVING count(*) <> 1",
      ),
    ).toEqual([]);
    expect(occurrences.length).toBeLessThanOrEqual(2);
  });

  test("what one release has planned, one with another schedule does not fire, unless nobody else does for a minute", async () => {
    const old = every("365d").handle(() => {});
    const changed = every("364d").handle(() => {});
    const stored = async () =>
      (await db.sql("SELECT schedule, last_occurrence IS NOT NULL AS fired FROM recurring_task"))[0];
    const leave = new AbortController();
    const polls = async () =>
      (await db.sql<{ seq: number }>("SELECT max(seq) AS seq FROM heartbeat WHERE slot = 7"))[0]!.seq;
    const more = async () => {
      const before = await polls();
      await vi.waitUntil(async () => (await polls()) > before + 2, 30_000);
    };
    const staying = run(db, [old], { resident: true, slot: 7, signal: leave.signal });
    await vi.waitUntil(async () => (await stored())?.schedule === '{"every":"365d"}', 30_000);
    await run(db, [changed]);
    await overdue();
    await more();
    expect(await stored()).toEqual({ schedule: '{"every":"364d"}', fired: false });
    await run(db, [changed]);
    expect(await stored()).toEqual({ schedule: '{"every":"364d"}', fired: true });
    await overdue("2 minutes");
    await vi.waitUntil(async () => (await stored())?.schedule === '{"every":"365d"}', 30_000);
    leave.abort();
    await staying;
  });

  test("one that has to wait does not keep the next from its turn", async () => {
    const seen: string[] = [];
    const of = (identifier: string) =>
      defineRecurringTask({ identifier, every: rarely, schema, payload: {} }).handle(() => void seen.push(identifier));
    const handlers = [of("a.first"), of("b.second")];
    await run(db, handlers);
    await overdue();
    const other = await db.client();
    await other.query("BEGIN");
    await other.query("SELECT FROM recurring_task WHERE identifier = 'a.first' FOR UPDATE");
    const leave = new AbortController();
    const resident = run(db, handlers, { resident: true, signal: leave.signal, settings: impatient });
    await vi.waitUntil(() => seen.length > 0, 30_000);
    leave.abort();
    await resident;
    expect(seen).toEqual(["b.second"]);
    // A call that its caller gave up would fire behind everyone's back. Postgres gives it up too, while the lock is still held.
    const waiting = () =>
      db.sql(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND wait_event_type = 'Lock'",
      );
    await vi.waitUntil(async () => (await waiting()).length === 0, 30_000);
    await other.query("COMMIT");
    await run(db, handlers);
    expect(seen).toEqual(["b.second", "a.first"]);
  });

  test("a release that does not know a schedule leaves it alone; after 30 minutes of such it is disabled, and comes back with one that does", async () => {
    const known = [every(rarely).handle(() => {})];
    await run(db, known);
    await overdue("31 minutes");
    const state = async () => (await db.sql("SELECT enabled, disabled_why FROM recurring_task"))[0];
    // Nobody lived in that time: an outage disables nothing.
    await db.sql(
      "UPDATE heartbeat SET started_at = started_at - interval '2 hours', last_seen_at = last_seen_at - interval '2 hours'",
    );
    await register(db, "stranger", { other: {} });
    const stranger = new Speaker(db, { slot: 1, release: "stranger" });
    await stranger.say();
    expect(await state()).toEqual({ enabled: true, disabled_why: null });
    await db.sql(
      "UPDATE heartbeat SET started_at = clock_timestamp() - interval '40 minutes' WHERE invocation_id = $1",
      [stranger.id],
    );
    await new Speaker(db, { slot: 2, release: "stranger" }).say();
    expect(await state()).toEqual({ enabled: false, disabled_why: "UNKNOWN" });
    await run(db, known);
    expect(await state()).toEqual({ enabled: true, disabled_why: null });
  });

  test("an operator runs, disables and enables a schedule", async () => {
    let runs = 0;
    const handlers = [
      every(rarely).handle(() => {
        runs += 1;
      }),
    ];
    const operator = createOperator({ databases: [db.database], who: "ada" });
    const act = async (action: "run" | "enable" | "disable", identifier = "beat") =>
      (await operator.act({ action: `recurring_${action}`, identifier })).count;
    await run(db, handlers);
    expect(await act("run")).toBe(1);
    await run(db, handlers);
    expect(runs).toBe(1);
    expect(await act("disable")).toBe(1);
    expect(await act("run")).toBe(0);
    await overdue();
    await run(db, handlers);
    expect(runs).toBe(1);
    expect(await operator.listRecurring()).toEqual([
      expect.objectContaining({ identifier: "beat", enabled: false, disabledWhy: "OPERATOR" }),
    ]);
    expect(await act("enable")).toBe(1);
    await run(db, handlers);
    expect(runs).toBe(2);
    expect(await act("run", "nobody")).toBe(0);
  });

  test("a schedule that somebody has locked costs neither the lease nor other tasks, and fires once it is free", async () => {
    const seen: string[] = [];
    const note = defineTask({ identifier: "note", payload: schema });
    const handlers = [every(rarely).handle(() => void seen.push("beat")), note.handle(() => void seen.push("note"))];
    const tasks = createTaskClient({ database: db.database });
    await run(db, handlers);
    await overdue();
    const other = await db.client();
    await other.query("BEGIN");
    await other.query("SELECT FROM recurring_task FOR UPDATE");
    const leave = new AbortController();
    const resident = run(db, handlers, { resident: true, signal: leave.signal, settings: impatient });
    for (const notes of [1, 2, 3]) {
      await tasks.enqueue(note, {});
      await vi.waitUntil(() => seen.length === notes, 30_000);
    }
    await other.query("COMMIT");
    await vi.waitUntil(() => seen.includes("beat"), 30_000);
    leave.abort();
    expect(await resident).toMatchObject({ left: "stopped", succeeded: 4 });
    expect(seen).toEqual(["note", "note", "note", "beat"]);
  });
});
