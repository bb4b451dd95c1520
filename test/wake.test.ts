import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Context } from "aws-lambda";
import { afterAll, beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { pause } from "../lib/clock.ts";
import type { Config } from "../lib/config.ts";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { createLog, type LogLine, silentLog } from "../lib/log.ts";
import { arrangeNextWake } from "../lib/next-wake.ts";
import { createProcessorHandler } from "../lib/processor.ts";
import { throttleWake } from "../lib/producer-wake.ts";
import { createRegistry } from "../lib/registry.ts";
import { readTick, runTick } from "../lib/tick.ts";
import { MOST_DELAY_MS, queueWake } from "../lib/wake-queue.ts";
import { arrangingWakes } from "../lib/wakes.ts";
import { type InvocationReport, runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";
import { enqueueRaw, register, Speaker, type Words } from "./support/exchange.ts";

describe.each(ADAPTERS)("waking further slots over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  beforeEach(() => reset(db));

  const wake = { slots: 4, most: 2 };
  const wakes = async (speaker: Speaker, words: Words & { wake?: object }) =>
    ((await speaker.say(words as Words)) as { wake?: number[] | null }).wake ?? null;

  describe("in the database", () => {
    beforeEach(async () => {
      await register(db, "r1", { greet: {} });
      await enqueueRaw(db, "greet", 50);
    });

    test("free seats are told lowest first, each once, and none when all are called for", async () => {
      const first = new Speaker(db, { slot: 1 });
      const second = new Speaker(db, { slot: 2 });
      expect(await wakes(first, { want: 1, wake })).toBeNull(); // its own seat has just been made
      await second.say({ want: 1 });
      expect(await wakes(first, { want: 1, wake: { slots: 4, most: 1 } })).toEqual([0]);
      expect(await wakes(second, { want: 1, wake })).toEqual([3]);
      expect(await wakes(first, { want: 1, wake })).toBeNull();
    });

    test("a seat whose caller was not heard is called for again after the grace period; one sat on is not", async () => {
      const resident = new Speaker(db, { slot: 0 });
      await resident.say({ want: 1 });
      expect(await wakes(resident, { want: 1, wake })).toEqual([1, 2]);
      const woken = new Speaker(db, { slot: 1 });
      await woken.say({ want: 1, onlyFree: true });
      await db.sql("UPDATE slot SET woken_at = woken_at - interval '1 minute'");
      expect(await wakes(resident, { want: 1, wake: { slots: 3, most: 9 } })).toEqual([2]);
      await woken.say({ want: 0, ending: true });
      expect(await wakes(resident, { want: 1, wake: { slots: 3, most: 9 } })).toEqual([1]);
    });

    test("nobody is called when all is taken, by one that leaves, is superseded, or repeats itself", async () => {
      const one = new Speaker(db, { slot: 0 });
      await one.say({ want: 1 });
      expect(await wakes(one, { want: 60, wake })).toBeNull();
      await enqueueRaw(db, "greet", 5);
      expect(await wakes(one, { want: 1, wake, ending: true })).toBeNull();
      const old = new Speaker(db, { slot: 1 });
      await old.say({ want: 1 });
      await new Speaker(db, { slot: 1 }).say({ want: 0 });
      expect(await wakes(old, { want: 1, wake })).toBeNull();
      const repeating = new Speaker(db, { slot: 2 });
      await repeating.say({ want: 0 });
      expect(await wakes(repeating, { want: 1, wake: { slots: 4, most: 1 } })).toEqual([0]);
      expect(((await repeating.repeat({ want: 1, wake } as Words)) as { wake?: unknown }).wake).toBeNull();
    });
  });

  test("one visitor with too much to do gets help up to the slots; who was woken wakes nobody; each task runs once", async () => {
    const settings = {
      sleepIntervalMs: 200,
      graceMs: 20_000,
      queuePopSize: 4,
      backoffDefaultMs: 0,
      invocationMs: 900_000,
    };
    const work = defineTask({ identifier: "work", payload: z.object({ n: z.number() }) });
    const tasks = createTaskClient({ database: db.database });
    await tasks.enqueueMany(
      work,
      Array.from({ length: 160 }, (_, n) => ({ n })),
    );
    const seen: number[] = [];
    const helped = Promise.withResolvers<void>();
    const registry = createRegistry(
      [
        work.handle(async ({ n }) => {
          // What is left then is enough for a helper, however long it takes to come.
          if (seen.length >= 80) await helped.promise;
          await pause(20);
          seen.push(n);
        }),
      ],
      900_000,
    );
    const called: number[] = [];
    const helpers: Promise<InvocationReport>[] = [];
    const common = { databases: [db.database], registry, settings, log: silentLog, resident: false };
    const call = async (slot: number): Promise<void> => {
      called.push(slot);
      helpers.push(runInvocation({ ...common, slot, onlyFree: true, beforeWork: async () => helped.resolve() }));
    };
    const report = await runInvocation({ ...common, slot: 0, wake: { slots: 3, call } });
    const reports = await Promise.all(helpers);
    expect(called.slice(0, 2)).toEqual([1, 2]);
    expect(reports.filter(({ claimed }) => claimed > 0).length).toBeGreaterThan(0);
    expect(report.claimed + reports.reduce((sum, { claimed }) => sum + claimed, 0)).toBe(160);
    expect(seen.sort((a, b) => a - b)).toEqual(Array.from({ length: 160 }, (_, n) => n));
  });

  test("a call that fails is waited for, logged, and costs no task", async () => {
    const settings = {
      sleepIntervalMs: 200,
      graceMs: 20_000,
      queuePopSize: 2,
      backoffDefaultMs: 0,
      invocationMs: 900_000,
    };
    const work = defineTask({ identifier: "work", payload: z.object({ n: z.number() }) });
    const tasks = createTaskClient({ database: db.database });
    await tasks.enqueueMany(
      work,
      Array.from({ length: 20 }, (_, n) => ({ n })),
    );
    let open = 0;
    const report = await runInvocation({
      databases: [db.database],
      registry: createRegistry([work.handle(() => pause(1))], 900_000),
      settings,
      log: silentLog,
      resident: false,
      slot: 0,
      wake: {
        slots: 5,
        call: async () => {
          open += 1;
          await pause(300);
          open -= 1;
          throw new Error("throttled");
        },
      },
    });
    expect(report).toMatchObject({ succeeded: 20, left: "nothing_due" });
    expect(open).toBe(0);
    expect(await db.sql("SELECT count(*)::int AS n FROM slot WHERE woken_at IS NOT NULL")).not.toEqual([{ n: 0 }]);
  });
});

test("what the processor may be called with", () => {
  const all = { slots: [0, 1, 2], resident: false, onlyFree: true, mayWake: true, lingerMs: 1500 };
  const one = { slots: [2], resident: false, onlyFree: false, mayWake: true, lingerMs: 0 };
  expect(readTick({ slot: 2 }, 3)).toEqual(one);
  expect(readTick({ slot: 2, resident: true }, 3)).toEqual({ ...one, resident: true });
  expect(readTick({ slot: 2, woken: true, resident: true }, 3)).toEqual({ ...one, onlyFree: true, mayWake: false });
  expect(readTick({ wake: true }, 3)).toEqual(all);
  expect(readTick({ Records: [{ body: '{"wake":true}' }] }, 3)).toEqual(all);
  for (const bad of [null, {}, { slot: -1 }, { wake: false }, { Records: [] }, { Records: [{ body: "no" }] }])
    expect(() => readTick(bad, 3)).toThrow(expect.objectContaining({ code: "event_invalid" }));
  expect(() => readTick({ slot: 3 }, 3)).toThrow(expect.objectContaining({ code: "slot_invalid" }));
});

describe("the processor function", async () => {
  const db = await openDatabase("pg");
  const calls: { path: string; type: string | undefined; event: unknown }[] = [];
  const under: Promise<unknown>[] = [];
  const work = defineTask({ identifier: "work", payload: z.object({ n: z.number() }) });
  const processor = createProcessorHandler({ handlers: [work.handle(() => pause(20))], log: silentLog });
  const invoke = (event: unknown) =>
    processor(event, { getRemainingTimeInMillis: () => 900_000, awsRequestId: "test" } as Context);
  // Stands for Lambda: accepts an asynchronous invocation and runs the same function.
  const lambda = createServer((request, response) => {
    let body = "";
    request.on("data", (text) => {
      body += text;
    });
    request.on("end", () => {
      const event = JSON.parse(body);
      calls.push({ path: request.url!, type: request.headers["x-amz-invocation-type"] as string, event });
      response.writeHead(202).end();
      under.push(invoke(event));
    });
  });
  await new Promise<void>((resolve) => lambda.listen(0, "127.0.0.1", resolve));
  afterAll(() => {
    vi.unstubAllEnvs();
    lambda.closeAllConnections();
    lambda.close();
  });

  test("a producer's call drains, calls the free seats by Lambda, and theirs call nobody", async () => {
    for (const [name, value] of Object.entries({
      DATABASE_URL: db.url,
      TASK_PROCESSOR_NUM_THREADS: "4",
      TASK_PROCESSOR_QUEUE_POP_SIZE: "3",
      TASK_PROCESSOR_WAKE_FUNCTION: "stint-test-processor",
      AWS_ENDPOINT_URL_LAMBDA: `http://127.0.0.1:${(lambda.address() as AddressInfo).port}`,
    }))
      vi.stubEnv(name, value);
    await createTaskClient({ database: db.database }).enqueueMany(
      work,
      Array.from({ length: 150 }, (_, n) => ({ n })),
    );
    const report = await invoke({ wake: true });
    const others = (await Promise.all(under)) as InvocationReport[];
    expect(report).toMatchObject({ slot: 0, left: "nothing_due" });
    expect(calls.length).toBeGreaterThan(0);
    for (const { path, type, event } of calls) {
      expect([path, type]).toEqual(["/2015-03-31/functions/stint-test-processor/invocations", "Event"]);
      expect(event).toEqual({ slot: expect.any(Number), woken: true });
    }
    const claimed = [report, ...others].reduce((sum, one) => sum + one.claimed, 0);
    expect(claimed).toBe(150);
    expect(await db.sql("SELECT count(*)::int AS n FROM task_run WHERE task_outcome = 'SUCCEEDED'")).toEqual([
      { n: 150 },
    ]);
  });

  test("a producer's wake: after what is due, once in a second, never for a delayed or uncommitted one", async () => {
    await reset(db);
    const woken: unknown[] = [];
    const client = createTaskClient({
      database: db.database,
      wake: async () => {
        woken.push(invoke({ wake: true }));
      },
    });
    await client.enqueue(work, { n: 1 }, { delayUntil: new Date("2999-01-01") });
    expect(woken.length).toBe(0);
    const transaction = await db.client();
    await transaction.query("BEGIN");
    await client.enqueue(work, { n: 2 }, { transaction });
    expect(woken.length).toBe(0);
    await transaction.query("COMMIT");
    // Neither the second in which nobody else is called ends, nor the time that the called one stays, before all is stored.
    const clock = vi.spyOn(performance, "now").mockReturnValue(performance.now());
    await client.wake();
    expect(woken.length).toBe(1);
    // Heard by the one that was called, though it calls nobody.
    await client.enqueueMany(work, [{ n: 3 }, { n: 4 }]);
    await client.enqueue(work, { n: 5 });
    expect(woken.length).toBe(1);
    clock.mockRestore();
    await Promise.all(woken);
    expect(await db.sql("SELECT count(*)::int AS n FROM task_run WHERE task_outcome = 'SUCCEEDED'")).toEqual([
      { n: 4 },
    ]);
  });

  test("a producer's wake that fails costs the enqueue nothing", async () => {
    const client = createTaskClient({ database: db.database, wake: () => Promise.reject(new Error("throttled")) });
    expect(await client.enqueue(work, { n: 1 })).toMatchObject({ status: "enqueued" });
    const wake = (): never => {
      throw new Error("before it could promise anything");
    };
    const other = createTaskClient({ database: db.database, wake });
    expect(await other.enqueue(work, { n: 2 })).toMatchObject({ status: "enqueued" });
  });
});

test("a producer's wake that does not settle is waited for a while, and logged; what comes of it later is nobody's business", async () => {
  const lines: LogLine[] = [];
  const ends: ((error: Error) => void)[] = [];
  const wake = throttleWake(
    () => new Promise((_, reject) => ends.push(reject)),
    createLog((line) => void lines.push(line)),
    50,
  );
  await Promise.all([wake(), wake()]);
  expect(ends).toHaveLength(1);
  expect(lines).toEqual([
    { level: "warn", message: "could not wake a processor", error: "Error: no answer within 50 ms" },
  ]);
  const unhandled = vi.fn();
  process.on("unhandledRejection", unhandled);
  ends[0]!(new Error("after all"));
  await pause(20);
  process.off("unhandledRejection", unhandled);
  expect(unhandled).not.toHaveBeenCalled();
  expect(lines).toHaveLength(1);
});

describe("wakes at a time, through a queue", async () => {
  const db = await openDatabase("data-api");
  const note = defineTask({ identifier: "note", payload: z.object({}) });
  const client = createTaskClient({ database: db.database });
  const registry = createRegistry([note.handle(() => {})], null);
  const quick = { sleepIntervalMs: 100, backoffDefaultMs: 0, invocationMs: 900_000 };
  const sent: number[] = [];
  // Stands for SQS: takes messages, in the JSON protocol, and keeps their delays.
  const queue = createServer((request, response) => {
    let body = "";
    request.on("data", (text) => {
      body += text;
    });
    request.on("end", () => {
      const { MessageBody, DelaySeconds } = JSON.parse(body);
      expect(JSON.parse(MessageBody)).toEqual({ wake: true });
      sent.push(DelaySeconds);
      const MD5OfMessageBody = createHash("md5").update(MessageBody).digest("hex");
      response.writeHead(200, { "content-type": "application/x-amz-json-1.0" });
      response.end(JSON.stringify({ MessageId: "1", MD5OfMessageBody }));
    });
  });
  await new Promise<void>((resolve) => queue.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(queue.address() as AddressInfo).port}`;
  afterAll(() => {
    queue.closeAllConnections();
    queue.close();
  });
  const send = queueWake(`${endpoint}/000000000000/stint-wakes`, { endpoint });
  const common = {
    databases: [db.database],
    release: registry.release,
    graceMs: 20_000,
    send,
    mostMs: MOST_DELAY_MS,
    log: silentLog,
  };
  const arranged = async (beginning = false) => {
    sent.length = 0;
    await arrangeNextWake({ ...common, beginning });
    return [...sent];
  };
  const dueIn = (seconds: number) => ({ delayUntil: new Date(Date.now() + seconds * 1000) });
  beforeEach(async () => {
    await reset(db);
    await db.sql("TRUNCATE arranged_wake");
    await register(db, registry.release, { note: {} });
  });

  test("nothing to come: no call; a task to come: one call for its time, however often it is asked", async () => {
    expect(await arranged()).toEqual([]);
    await client.enqueue(note, {}, dueIn(300));
    const [delay, ...more] = await arranged();
    expect(more).toEqual([]);
    expect(delay).toBeGreaterThan(200);
    expect(delay).toBeLessThanOrEqual(301);
    expect(await arranged()).toEqual([]);
  });

  test("an earlier task gets an earlier call, a later one none; when its time has passed the next is arranged", async () => {
    await client.enqueue(note, {}, dueIn(300));
    await arranged();
    await client.enqueue(note, {}, dueIn(600));
    expect(await arranged()).toEqual([]);
    await client.enqueue(note, {}, dueIn(60));
    expect((await arranged())[0]).toBeLessThanOrEqual(61);
    await db.sql("UPDATE arranged_wake SET at = at - interval '2 minutes'");
    await db.sql("DELETE FROM task WHERE scheduled_for < clock_timestamp() + interval '2 minutes'");
    const [delay] = await arranged();
    expect(delay).toBeGreaterThan(200);
    expect(delay).toBeLessThanOrEqual(301);
  });

  test("what is due beyond the queue's 15 minutes is reached in steps; a paused or unknown identifier calls nobody", async () => {
    await db.sql(
      "INSERT INTO task (identifier, scheduled_for) VALUES ('stranger', clock_timestamp() + interval '1 minute')",
    );
    expect(await arranged()).toEqual([]);
    await client.enqueue(note, {}, dueIn(86_400));
    expect(await arranged()).toEqual([900]);
    await db.sql("TRUNCATE arranged_wake");
    await db.sql("INSERT INTO paused_identifier (identifier) VALUES ('note')");
    expect(await arranged()).toEqual([]);
  });

  test("a dead man's call: one who begins with something to do, and one who lives, are looked after a quarter past the grace period", async () => {
    expect(await arranged(true)).toEqual([]);
    await client.enqueue(note, {}, dueIn(300));
    expect(await arranged(true)).toEqual([]);
    await client.enqueue(note, {});
    expect(await arranged(true)).toEqual([25]);
    await db.sql("DELETE FROM task");
    await db.sql("TRUNCATE arranged_wake");
    await new Speaker(db, { release: registry.release }).say();
    const [delay] = await arranged();
    expect(delay).toBeLessThanOrEqual(25);
    expect(delay).toBeGreaterThan(10);
  });

  test("a call that finds nothing to do leads to no other; one that works is guarded before it claims", async () => {
    const settings = { ...quick, graceMs: 20_000, queuePopSize: 4 };
    const underWay: number[][] = [];
    const beforeClaim: number[] = [];
    const working = createRegistry([note.handle(() => void underWay.push([...sent]))], null);
    const call = async () => {
      sent.length = 0;
      const { databases, log } = common;
      return await arrangingWakes(
        { graceMs: settings.graceMs, sqsEndpoint: endpoint } as Config,
        `${endpoint}/000000000000/stint-wakes`,
        { databases, release: working.release, log },
        (beforeWork) => {
          beforeClaim.push(sent.length);
          return runTick(readTick({ wake: true }, 2), { databases, registry: working, settings, log, beforeWork });
        },
      );
    };
    expect(await call()).toMatchObject({ claimed: 0 });
    expect(sent).toEqual([]);
    await client.enqueueMany(note, [{}, {}]);
    expect(await call()).toMatchObject({ succeeded: 2 });
    expect(sent.length).toBe(1);
    expect(sent[0]).toBeGreaterThan(20);
    expect(sent[0]).toBeLessThanOrEqual(25);
    expect(underWay).toEqual([sent, sent]);
    expect(beforeClaim).toEqual([0, 1]);
    // It comes, when there is nothing left to look after.
    await db.sql("UPDATE arranged_wake SET at = at - interval '1 minute'");
    await call();
    expect(sent).toEqual([]);
  });

  describe.each(ADAPTERS)("beside a database that does not answer over %s", async (adapter) => {
    const other = await openDatabase(adapter);
    /** Whoever asks it when to wake waits until the lock is given back. */
    const hang = async (): Promise<() => Promise<void>> => {
      await reset(other);
      await other.sql("TRUNCATE arranged_wake");
      await register(other, registry.release, { note: {} });
      const holder = await other.client();
      await holder.query("BEGIN; LOCK TABLE arranged_wake");
      return async () => void (await holder.query("COMMIT"));
    };

    test("the other's wake is sent, and nobody waits; what is answered later is sent all the same", async () => {
      const release = await hang();
      await client.enqueue(note, {}, dueIn(300));
      await createTaskClient({ database: other.database }).enqueue(note, {}, dueIn(600));
      sent.length = 0;
      await arrangeNextWake({ ...common, databases: [other.database, db.database], beginning: false });
      await vi.waitUntil(() => sent.length > 0, 20_000);
      expect(sent).toEqual([expect.closeTo(300, -2)]);
      await release();
      await vi.waitUntil(() => sent.length === 2, 20_000);
      expect(sent[1]).toBeGreaterThan(sent[0]!);
    });

    test("the other's lease and tasks are none the worse", async () => {
      const release = await hang();
      const settings = { ...quick, graceMs: 16_000, queuePopSize: 4 };
      await client.enqueueMany(note, [{}, {}, {}]);
      const lines: string[] = [];
      const report = await arrangingWakes(
        { graceMs: settings.graceMs, sqsEndpoint: endpoint } as Config,
        `${endpoint}/000000000000/stint-wakes`,
        { databases: [db.database, other.database], release: registry.release, log: silentLog },
        (beforeWork) =>
          runTick(readTick({ wake: true }, 2), {
            databases: [db.database, other.database],
            registry,
            settings,
            log: createLog(({ message }) => lines.push(message)),
            beforeWork,
          }),
      );
      expect(report).toMatchObject({ succeeded: 3, left: "nothing_due" });
      expect(lines.filter((line) => line === "task run")).toHaveLength(3);
      for (const one of [db, other])
        expect(await one.sql("SELECT 1 FROM heartbeat WHERE ended_at IS NULL")).toHaveLength(0);
      await release();
    });
  });

  test("a queue that does not answer holds up nobody for longer than an eighth of the grace period", async () => {
    const silent = createServer((request) => void request.resume());
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const there = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    await client.enqueue(note, {}, dueIn(300));
    const hopeless = queueWake(`${there}/000000000000/stint-wakes`, { endpoint: there });
    const state: string[] = [];
    const send = async (delayMs: number): Promise<void> => {
      state.push("asked");
      await hopeless(delayMs).finally(() => state.push("given up"));
    };
    await arrangeNextWake({ ...common, send, graceMs: 16_000, beginning: false });
    await vi.waitUntil(() => state.length > 0, 20_000);
    expect(state).toEqual(["asked"]);
    silent.closeAllConnections();
    silent.close();
  });

  test("the application's schedules call somebody; the built-in ones run when somebody comes", async () => {
    const schedule = (identifier: string, seconds: number) =>
      db.sql(
        "INSERT INTO recurring_task (identifier, schedule, next_at) VALUES ($1, '', clock_timestamp() + $2 * interval '1 second')",
        [identifier, seconds],
      );
    await register(db, "r2", { nightly: {}, "task_processor.fold_counters": {} });
    await schedule("task_processor.fold_counters", 100);
    const arrange = () => arrangeNextWake({ ...common, release: "r2", beginning: false });
    sent.length = 0;
    await arrange();
    expect(sent).toEqual([]);
    await schedule("nightly", 300);
    await arrange();
    expect(sent.length).toBe(1);
    expect(sent[0]).toBeGreaterThan(200);
  });

  test("one that died holding tasks is found by who is called then: they run again, though nobody polls", async () => {
    await client.enqueue(note, {});
    await new Speaker(db, { release: registry.release, slot: 0 }).say();
    await db.sql(
      "UPDATE heartbeat SET last_seen_at = last_seen_at - interval '1 minute', seen_since = seen_since - interval '1 minute'",
    );
    const settings = { ...quick, graceMs: 20_000, queuePopSize: 4 };
    const options = { databases: [db.database], registry, settings, log: silentLog };
    const report = await runTick(readTick({ Records: [{ body: '{"wake":true}' }] }, 2), options);
    expect(report).toMatchObject({ slot: 1, rescued: 1, succeeded: 1, left: "nothing_due" });
  });
});
