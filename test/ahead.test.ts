/** Claiming ahead of the free places: how much, in which order it starts, and what becomes of that which never does. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { AHEAD_MS, Ahead } from "../lib/ahead.ts";
import { pause } from "../lib/clock.ts";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import type { ClaimedTask, Request } from "../lib/messages.ts";
import { createOperator } from "../lib/operate.ts";
import { Places } from "../lib/places.ts";
import { createRegistry } from "../lib/registry.ts";
import type { TaskHandler } from "../lib/task.ts";
import { type InvocationOptions, runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { enqueueRaw, register, Speaker } from "./support/exchange.ts";

const work = defineTask({ identifier: "work", payload: z.object({ n: z.number() }), timeoutMs: 60_000 });

describe("how much, and in which order", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
  afterEach(() => void vi.useRealTimers());

  /** All places taken, and left once in so many milliseconds until then. */
  const turning = (size: number, turnMs: number): Places => {
    const places = new Places(size);
    for (let n = 0; n < size; n += 1) {
      places.enter(false);
      vi.advanceTimersByTime(turnMs / size);
      places.leave(turnMs);
    }
    for (let n = 0; n < size; n += 1) places.enter(false);
    return places;
  };
  const open = (places: Places, remainingMs?: () => number) => {
    const started: string[] = [];
    const released: string[] = [];
    const ahead = new Ahead({
      places,
      registry: createRegistry([work.handle(() => {})], null),
      runs: {
        start: ({ id, suspect }) => {
          places.enter(suspect);
          started.push(id);
        },
        release: ({ id }) => void released.push(id),
      },
      reserveMs: 100,
      ...(remainingMs && { remainingMs }),
    });
    places.onFree(() => ahead.start());
    return { ahead, started, released };
  };
  const claimed = (id: string, priority = 50, scheduledFor = "2026-01-01T00:00:00+00:00"): ClaimedTask => ({
    id,
    identifier: "work",
    attempt: 1,
    used: 1,
    maxAttempts: 3,
    priority,
    scheduledFor,
    suspect: false,
    occurrence: null,
    traceParent: null,
    payload: { n: 1 },
  });

  test("as many as leave their places until the answer after next, all of them at the most", () => {
    const { ahead } = open(turning(100, 50));
    expect(ahead.wanted(5)).toBe(10);
    expect(ahead.wanted(49)).toBe(98);
    expect(ahead.wanted(75)).toBe(100);
    ahead.take(["1", "2", "3", "4"].map((id) => claimed(id)));
    expect(ahead.wanted(5)).toBe(6);
    expect(ahead.wanted(1)).toBe(0);
  });

  test.each([
    ["nothing is known of the runs", () => new Places(100)],
    ["runs are long", () => turning(100, 1001)],
    ["few run at a time", () => turning(3, 1)],
    [
      "nothing has ended of late",
      () => {
        const places = turning(100, 50);
        vi.advanceTimersByTime(AHEAD_MS + 1);
        return places;
      },
    ],
    [
      "nothing runs",
      () => {
        const places = turning(100, 50);
        for (let n = 0; n < 100; n += 1) places.leave(0);
        return places;
      },
    ],
    [
      "a suspect runs",
      () => {
        const places = turning(100, 50);
        for (let n = 0; n < 100; n += 1) places.leave(0);
        places.enter(true);
        return places;
      },
    ],
    [
      "another database has its tasks run in the same places",
      () => {
        const places = turning(100, 50);
        places.onFree(() => {});
        return places;
      },
    ],
  ])("nothing where %s", (_, make) => {
    expect(open(make()).ahead.wanted(20)).toBe(0);
  });

  test("what waits starts as places are left: by priority, due time, and as it was claimed", () => {
    const places = turning(4, 50);
    const { ahead, started } = open(places);
    ahead.take([claimed("1"), claimed("2", 50, "2026-01-01T00:00:02+00:00")]);
    ahead.take([claimed("3", 0), claimed("4", 50, "2026-01-01T00:00:01.5+00:00"), claimed("5")]);
    ahead.take([claimed("1")]);
    expect(started).toEqual([]);
    for (let n = 0; n < 5; n += 1) places.leave(1);
    expect(started).toEqual(["3", "1", "5", "4", "2"]);
    expect([ahead.waiting, places.free]).toEqual([0, 0]);
  });

  test("a cancelled one is given back, and its place goes to the next", () => {
    const places = turning(4, 50);
    const { ahead, started, released } = open(places);
    ahead.take([claimed("1"), claimed("2")]);
    ahead.cancel(["1", "3"]);
    places.leave(1);
    expect([started, released]).toEqual([["2"], ["1"]]);
  });

  test("what has waited too long is given back, and no other", () => {
    const { ahead, released } = open(turning(4, 50));
    ahead.take([claimed("1")]);
    vi.advanceTimersByTime(AHEAD_MS / 2);
    ahead.take([claimed("2", 0)]);
    expect(ahead.lateInMs).toBe(AHEAD_MS / 2);
    ahead.giveBack("late");
    expect(released).toEqual([]);
    vi.advanceTimersByTime(AHEAD_MS / 2);
    ahead.giveBack("late");
    expect(released).toEqual(["1"]);
    expect(ahead.waiting).toBe(1);
  });

  test("one whose timeout does not fit any more when its turn comes is given back, and the next one starts", () => {
    const places = turning(4, 50);
    let remainingMs = 60_100;
    const { ahead, started, released } = open(places, () => remainingMs);
    ahead.take([claimed("1"), claimed("2")]);
    places.leave(1);
    expect(started).toEqual(["1"]);
    remainingMs = 60_099;
    places.leave(1);
    expect([started, released]).toEqual([["1"], ["2"]]);
  });

  test("what is asked for beyond the free places takes none, and yet nobody may think himself alone", () => {
    const places = new Places(4);
    const giveBack = places.reserve(4);
    expect([places.free, places.idle]).toEqual([0, false]);
    giveBack();
    for (let n = 0; n < 4; n += 1) places.enter(false);
    const giveAheadBack = places.reserve(1);
    for (let n = 0; n < 4; n += 1) places.leave(1);
    expect([places.free, places.idle]).toEqual([4, false]);
    giveAheadBack();
    expect(places.idle).toBe(true);
  });
});

/** Always expects this many of its places to be left soon. */
class Hopeful extends Places {
  readonly #hope: number;
  constructor(size: number, hope: number) {
    super(size);
    this.#hope = hope;
  }
  override get turnMs(): number {
    return 0;
  }
  override leavingWithin(): number {
    return this.#hope;
  }
}

describe.each(ADAPTERS)("an invocation over %s that claims ahead", async (adapter) => {
  const db = await openDatabase(adapter);
  const tasks = createTaskClient({ database: db.database });
  const settings = { sleepIntervalMs: 50, graceMs: 60_000, queuePopSize: 8, backoffDefaultMs: 0, invocationMs: null };
  beforeEach(() => reset(db));
  afterEach(() => void vi.restoreAllMocks());

  /** Eight places and two ahead; each task runs until it is let go. */
  const begin = (more: Partial<InvocationOptions> = {}) => {
    const runs: { n: number; end: () => void }[] = [];
    const handler = work.handle(({ n }, { signal }) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => resolve());
      runs.push({ n, end: resolve });
      return promise;
    });
    return { runs, report: run(db, [handler], { places: new Hopeful(8, 2), ...more }) };
  };
  const run = (on: TestDatabase, handlers: readonly TaskHandler[], more: Partial<InvocationOptions> = {}) =>
    runInvocation({
      databases: [on.database],
      registry: createRegistry(handlers, null),
      slot: 0,
      resident: true,
      settings,
      log: silentLog,
      ...more,
    });
  const enqueue = (count: number) =>
    tasks.enqueueMany(
      work,
      Array.from({ length: count }, (_, n) => ({ n })),
    );
  const until = async (what: () => boolean | Promise<boolean>): Promise<void> => {
    while (!(await what())) await pause(5);
  };
  /** What waits is given back when the invocation leaves, however long it takes until then. */
  const nothingIsLate = (): void => {
    const { giveBack } = Ahead.prototype;
    vi.spyOn(Ahead.prototype, "giveBack").mockImplementation(function (this: Ahead, which) {
      if (which === "all") giveBack.call(this, which);
    });
    vi.spyOn(Ahead.prototype, "lateInMs", "get").mockReturnValue(Number.POSITIVE_INFINITY);
  };
  const held = async (): Promise<number> => (await db.sql("SELECT FROM task WHERE held_by IS NOT NULL")).length;
  const waiting = () => db.sql("SELECT attempt - forgiven AS used, held_by FROM task ORDER BY id");

  test("runs each task once, never more at a time than places, and asks for as many more at the most", async () => {
    await enqueue(400);
    let running = 0;
    let most = 0;
    let ahead = 0;
    const seen: number[] = [];
    const handler = work.handle(async ({ n }) => {
      running += 1;
      most = Math.max(most, running);
      await pause(5);
      running -= 1;
      seen.push(n);
    });
    const watched = {
      ...db.database,
      query: ((statement, values, options) => {
        const { request } = values as { request?: string };
        if (statement.name === "exchange")
          ahead = Math.max(ahead, (JSON.parse(request!) as Request).want + running - 8);
        return db.database.query(statement, values, options);
      }) as typeof db.database.query,
    };
    const report = await run(db, [handler], { databases: [watched], resident: false });
    expect(report).toMatchObject({ claimed: 400, succeeded: 400, left: "nothing_due" });
    expect(seen.sort((a, b) => a - b)).toEqual(Array.from({ length: 400 }, (_, n) => n));
    expect(most).toBe(8);
    expect(ahead).toBeGreaterThan(0);
    expect(ahead).toBeLessThanOrEqual(8);
  });

  test("asks for the next batch while this one runs, where that is over before the answer comes", async () => {
    await enqueue(200);
    let ended = 0;
    let early = 0;
    let requests = 0;
    const handler = work.handle(async () => {
      await pause(5);
      ended += 1;
    });
    const watched = {
      ...db.database,
      query: (async (statement, values, options) => {
        requests += 1;
        if (ended === 0) early += 1;
        await pause(30);
        const rows = await db.database.query(statement, values, options);
        ended = 0;
        return rows;
      }) as typeof db.database.query,
    };
    expect(await run(db, [handler], { databases: [watched], resident: false })).toMatchObject({ succeeded: 200 });
    expect(early).toBeGreaterThan(requests / 2);
    expect(requests).toBeLessThan(40);
  });

  test("starts the next one where a run has ended, without another exchange", async () => {
    nothingIsLate();
    await enqueue(10);
    const stop = new AbortController();
    const { runs, report } = begin({ signal: stop.signal });
    await until(() => runs.length === 8);
    expect(await held()).toBe(10);
    runs[0]!.end();
    runs[1]!.end();
    await until(() => runs.length === 10);
    stop.abort();
    for (const { end } of runs) end();
    expect(await report).toMatchObject({ claimed: 10, succeeded: 10 });
  });

  test("gives back what never started when it is stopped, forgiven, while the others finish", async () => {
    nothingIsLate();
    await enqueue(10);
    const stop = new AbortController();
    const { runs, report } = begin({ signal: stop.signal });
    await until(() => runs.length === 8);
    stop.abort();
    await pause(0);
    runs[0]!.end();
    await until(async () => (await held()) === 7);
    for (const { end } of runs) end();
    expect(await report).toMatchObject({ claimed: 10, succeeded: 8, failed: 0, left: "stopped" });
    expect(runs).toHaveLength(8);
    expect(await waiting()).toEqual([
      { used: 0, held_by: null },
      { used: 0, held_by: null },
    ]);
    expect(await db.sql("SELECT FROM task_run")).toHaveLength(8);
  });

  test("gives back what never started when it is superseded, and its successor runs it", async () => {
    nothingIsLate();
    await enqueue(10);
    const { runs, report } = begin();
    await until(() => runs.length === 8);
    const seen: number[] = [];
    const next = run(db, [work.handle(({ n }) => void seen.push(n))], { resident: false });
    await until(async () => (await db.sql("SELECT FROM slot WHERE epoch = 2")).length === 1);
    // Its place goes to the ninth, its result tells the old one what has happened.
    runs[0]!.end();
    await until(async () => (await held()) === 8);
    for (const { end } of runs) end();
    const [old] = await Promise.all([report, next]);
    expect(old).toMatchObject({ left: "superseded" });
    await run(db, [work.handle(({ n }) => void seen.push(n))], { resident: false });
    expect([...runs.map(({ n }) => n), ...seen].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(await db.sql("SELECT FROM task_run WHERE result = 'SUCCESS'")).toHaveLength(10);
  });

  test("what has waited for a second is another's", async () => {
    await enqueue(10);
    const stop = new AbortController();
    const { runs, report } = begin({ signal: stop.signal });
    await until(() => runs.length === 8);
    const seen: number[] = [];
    const other = run(db, [work.handle(({ n }) => void seen.push(n))], { slot: 1, signal: stop.signal });
    await until(() => seen.length === 2);
    expect(runs).toHaveLength(8);
    stop.abort();
    for (const { end } of runs) end();
    expect((await report).succeeded + (await other).succeeded).toBe(10);
  });

  test("one that is cancelled while it waits ends as cancelled, without a run", async () => {
    // Nor is it given back for another reason.
    vi.spyOn(Ahead.prototype, "giveBack").mockReturnValue();
    vi.spyOn(Ahead.prototype, "lateInMs", "get").mockReturnValue(Number.POSITIVE_INFINITY);
    await enqueue(10);
    const stop = new AbortController();
    const { runs, report } = begin({ signal: stop.signal });
    await until(() => runs.length === 8);
    const [last] = await db.sql<{ id: string }>("SELECT CAST(max(id) AS text) AS id FROM task");
    expect(
      (await createOperator({ databases: [db.database], who: "ada" }).act({ action: "cancel", ids: [last!.id] })).count,
    ).toBe(1);
    runs[0]!.end();
    await until(async () => (await db.sql("SELECT FROM failed_task")).length === 1);
    expect(await db.sql("SELECT CAST(id AS text) AS id, outcome FROM failed_task")).toEqual([
      { id: last!.id, outcome: "CANCELLED" },
    ]);
    stop.abort();
    for (const { end } of runs) end();
    await report;
    expect(runs.map(({ n }) => n)).not.toContain(9);
    expect(await db.sql("SELECT FROM task_run WHERE task_id = $1", [last!.id])).toHaveLength(0);
  });

  test("a lost lease: what waits never starts, and its holder tells nothing of it", async () => {
    await enqueue(10);
    const { runs, report } = begin();
    await until(() => runs.length === 8);
    await db.sql("UPDATE heartbeat SET expired_at = clock_timestamp()");
    runs[0]!.end();
    expect(await report).toMatchObject({ left: "lease_lost" });
    expect(runs.filter(({ n }) => n >= 9)).toHaveLength(0);
    expect(await db.sql("SELECT FROM task_run")).toHaveLength(0);
  });

  test("a suspect waits until nothing is held, and runs alone", async () => {
    await register(db, "r1", { work: {} });
    const dead = new Speaker(db, { slot: 3 });
    await enqueueRaw(db, "work", 1, { priority: 100 });
    expect((await dead.say()).tasks).toHaveLength(1);
    await dead.fallSilent();
    const witness = new Speaker(db, { slot: 4 });
    await witness.say({ want: 0 });
    await witness.becomeWitness();
    expect((await witness.say({ want: 0 })).rescued).toBe(1);
    await db.sql("UPDATE task SET payload = '{\"n\": -1}'");
    await enqueue(60);
    let running = 0;
    const besides: number[] = [];
    const handler = work.handle(async ({ n }) => {
      running += 1;
      if (n < 0) besides.push(running);
      await pause(n < 0 ? 20 : 2);
      if (n < 0) besides.push(running);
      running -= 1;
    });
    expect(await run(db, [handler], { resident: false })).toMatchObject({ claimed: 61, succeeded: 61 });
    expect(besides).toEqual([1, 1]);
  });
});
