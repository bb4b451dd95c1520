import { beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { pause } from "../lib/clock.ts";
import { createTaskClient, defineTask, TaskBackoffError, TaskCancelError } from "../lib/index.ts";
import { createLog, type LogLine, silentLog } from "../lib/log.ts";
import { createRegistry } from "../lib/registry.ts";
import type { TaskHandler } from "../lib/task.ts";
import { type InvocationOptions, runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { register, Speaker, success } from "./support/exchange.ts";

const numbered = z.object({ n: z.number() });
const greet = defineTask({ identifier: "greet", payload: numbered });
const other = defineTask({ identifier: "other", payload: numbered });
const soon = { kind: "fixed", delayMs: 0 } as const;
const flaky = defineTask({ identifier: "flaky", payload: numbered, backoff: soon });
const slow = defineTask({ identifier: "slow", payload: numbered, timeoutMs: 100, maxAttempts: 1 });

const settings = {
  sleepIntervalMs: 200,
  graceMs: 20_000,
  queuePopSize: 10,
  backoffDefaultMs: 0,
  invocationMs: 900_000,
};

const run = (db: TestDatabase, handlers: readonly TaskHandler[], more: Partial<InvocationOptions> = {}) =>
  runInvocation({
    databases: [db.database],
    registry: createRegistry(handlers, 900_000),
    slot: 0,
    resident: false,
    settings,
    log: silentLog,
    ...more,
  });

describe.each(ADAPTERS)("an invocation over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const tasks = createTaskClient({ database: db.database });
  const payloads = (count: number) => Array.from({ length: count }, (_, n) => ({ n }));
  beforeEach(() => reset(db));

  test("runs what is due and leaves; each task ran once", async () => {
    await tasks.enqueueMany(greet, payloads(250));
    const seen: number[] = [];
    const report = await run(db, [greet.handle(({ n }) => void seen.push(n))]);
    expect(report).toMatchObject({ slot: 0, epoch: 1, claimed: 250, succeeded: 250, failed: 0, left: "nothing_due" });
    expect(seen.sort((a, b) => a - b)).toEqual(payloads(250).map(({ n }) => n));
    expect(
      await db.sql(
        "SELECT count(*)::int AS n FROM task_run WHERE task_outcome = 'SUCCEEDED' AND started_at <= finished_at",
      ),
    ).toEqual([{ n: 250 }]);
    expect(await db.sql("SELECT ended_at IS NOT NULL AS ended, held FROM heartbeat")).toEqual([
      { ended: true, held: 0 },
    ]);
  });

  test("a resident whose answer is lost looks again at once, as more may be due than fitted into it", async () => {
    const large = defineTask({ identifier: "large", payload: z.object({ text: z.string() }) });
    await tasks.enqueueMany(
      large,
      Array.from({ length: 100 }, () => ({ text: "x".repeat(48_000) })),
    );
    const leave = new AbortController();
    const all = Promise.withResolvers<void>();
    let started = 0;
    const handler = large.handle(async () => {
      if (++started === 100) all.resolve();
      await all.promise;
    });
    // Each answer twice, the first time to nobody.
    const deaf = {
      ...db.database,
      query: (async (statement, values, options) => {
        if (statement.name === "exchange") await db.database.query(statement, values, options);
        return await db.database.query(statement, values, options);
      }) as typeof db.database.query,
    };
    const running = run(db, [handler], {
      databases: [deaf],
      resident: true,
      signal: leave.signal,
      settings: { ...settings, queuePopSize: 100, sleepIntervalMs: 600_000, graceMs: 600_000 },
    });
    await all.promise;
    leave.abort();
    expect(await running).toMatchObject({ claimed: 100, left: "stopped" });
    expect(await db.sql("SELECT count(*)::int AS n FROM task_run WHERE task_outcome = 'SUCCEEDED'")).toEqual([
      { n: 100 },
    ]);
  });

  test("one task's failure, timeout, unknown identifier or unfit payload touches none of its batch-mates", async () => {
    await tasks.enqueue(slow, { n: 0 });
    await db.sql(
      "INSERT INTO task (identifier, payload, max_attempts) VALUES ('greet', '{\"n\": \"text\"}', 1), ('nobody', '{}', 1), ('flaky', '{\"n\": 1}', 1)",
    );
    await tasks.enqueueMany(greet, payloads(20));
    let aborted = false;
    const report = await run(db, [
      greet.handle(() => {}),
      flaky.handle(() => {
        throw new TypeError("broken");
      }),
      slow.handle(
        (_, { signal }) =>
          new Promise((_, reject) => {
            signal.addEventListener("abort", () => {
              aborted = true;
              reject(signal.reason);
            });
          }),
      ),
    ]);
    expect(report).toMatchObject({ succeeded: 20, failed: 3 });
    expect(aborted).toBe(true);
    expect(await db.sql("SELECT identifier, attempt FROM task")).toEqual([{ identifier: "nobody", attempt: 0 }]);
    const errors = await db.sql<{ identifier: string; error_details: string }>(
      "SELECT identifier, error_details FROM task_run WHERE result = 'FAILURE' ORDER BY identifier",
    );
    expect(errors.map((row) => row.identifier)).toEqual(["flaky", "greet", "slow"]);
    expect(errors[0]!.error_details).toMatch(/TypeError: broken/);
    expect(errors[1]!.error_details).toMatch(/does not fit its schema[\s\S]*at n/);
    expect(errors[2]!.error_details).toMatch(/timed out after 100 ms/);
  });

  test("an unfit payload waits a minute at the least for a processor that knows it, whatever its back-off", async () => {
    await db.sql("INSERT INTO task (identifier, payload) VALUES ('flaky', '{\"n\": \"of a newer release\"}')");
    await run(db, [flaky.handle(() => {})]);
    expect(
      await db.sql(
        "SELECT t.attempt, t.scheduled_for - r.finished_at > interval '59 seconds' AS later FROM task t JOIN task_run r ON r.task_id = t.id",
      ),
    ).toEqual([{ attempt: 1, later: true }]);
  });

  test("fails twice and then succeeds: three runs, the last a SUCCESS", async () => {
    await tasks.enqueue(flaky, { n: 0 });
    const attempts: number[] = [];
    const handler = flaky.handle((_, { attempt }) => {
      attempts.push(attempt);
      if (attempt < 3) throw new Error("not yet");
    });
    for (let tries = 0; tries < 10 && attempts.length < 3; tries += 1) await run(db, [handler]);
    expect(attempts).toEqual([1, 2, 3]);
    expect(await db.sql("SELECT attempt, result, task_outcome FROM task_run ORDER BY attempt")).toEqual([
      { attempt: 1, result: "FAILURE", task_outcome: null },
      { attempt: 2, result: "FAILURE", task_outcome: null },
      { attempt: 3, result: "SUCCESS", task_outcome: "SUCCEEDED" },
    ]);
  });

  test("TaskBackoffError chooses the time, TaskCancelError ends it; the hook hears of both", async () => {
    await tasks.enqueue(flaky, { n: 1 });
    await tasks.enqueue(other, { n: 2 });
    const until = new Date("2999-01-01T00:00:00.000Z");
    const heard: unknown[] = [];
    await run(
      db,
      [
        flaky.handle(() => {
          throw new TaskBackoffError({ delayUntil: until });
        }),
        other.handle(() => {
          throw new TaskCancelError("never");
        }),
      ],
      { onFailure: ({ task, final }) => void heard.push([task.identifier, final]) },
    );
    expect(await db.sql("SELECT identifier, scheduled_for FROM task")).toEqual([
      { identifier: "flaky", scheduled_for: until },
    ]);
    expect(await db.sql("SELECT identifier, outcome FROM failed_task")).toEqual([
      { identifier: "other", outcome: "CANCELLED" },
    ]);
    expect(heard.sort()).toEqual([
      ["flaky", false],
      ["other", true],
    ]);
  });

  test("the hook is waited for before the invocation leaves, one that does not end for a while only; what it throws is logged", async () => {
    await tasks.enqueueMany(flaky, payloads(2), { priority: "HIGH" });
    const heard: unknown[] = [];
    const lines: LogLine[] = [];
    await run(
      db,
      [
        flaky.handle(() => {
          throw new TypeError("broken");
        }),
      ],
      {
        log: createLog((line) => void lines.push(line)),
        async onFailure({ final }) {
          if (!final) throw { toString: null };
          await pause(100);
          heard.push(final);
          if (heard.length === 2) await new Promise(() => {});
        },
      },
    );
    expect(heard).toEqual([true, true]);
    expect(lines.filter(({ message }) => message === "onFailure threw")).toHaveLength(4);
  });

  test("a log that throws at a run or its hook costs neither the task nor the process anything", async () => {
    await tasks.enqueueMany(greet, payloads(2));
    await tasks.enqueueMany(flaky, payloads(1));
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    const log = createLog(({ message }) => {
      if (message === "task run" || message === "onFailure threw") throw new Error("the disk is full");
    });
    const broken = flaky.handle(() => {
      throw new TypeError("broken");
    });
    const onFailure = () => Promise.reject(new Error("too"));
    expect(await run(db, [greet.handle(() => {}), broken], { log, onFailure })).toMatchObject({
      succeeded: 2,
      failed: 3,
    });
    await pause(10);
    process.off("unhandledRejection", unhandled);
    expect(unhandled).not.toHaveBeenCalled();
  });

  test("one that was due for ever was picked up at once", async () => {
    await tasks.enqueueMany(greet, payloads(1));
    await db.sql("UPDATE task SET scheduled_for = '-infinity'");
    expect(await run(db, [greet.handle(() => {})])).toMatchObject({ succeeded: 1, pickUpMs: [0] });
  });

  test("no more run at a time than the queue pop size", async () => {
    await tasks.enqueueMany(greet, payloads(40));
    let running = 0;
    let most = 0;
    await run(db, [
      greet.handle(async () => {
        running += 1;
        most = Math.max(most, running);
        await pause(5);
        running -= 1;
      }),
    ]);
    expect(most).toBe(10);
  });

  test("a resident runs what comes later, and stops when told to, its task finished", async () => {
    const stop = new AbortController();
    const seen: number[] = [];
    const resident = run(db, [greet.handle(({ n }) => void seen.push(n))], { resident: true, signal: stop.signal });
    await pause(50);
    await tasks.enqueue(greet, { n: 7 });
    while (seen.length === 0) await pause(10);
    stop.abort();
    expect(await resident).toMatchObject({ succeeded: 1, left: "stopped" });
    expect(seen).toEqual([7]);
  });

  test("a newer tick supersedes a resident, which finishes what it holds", async () => {
    await tasks.enqueue(greet, { n: 1 });
    // Held in the database, it may not have begun yet.
    const { promise: finished, resolve: finish } = Promise.withResolvers<void>();
    const first = run(db, [greet.handle(() => finished)], { resident: true });
    while ((await db.sql("SELECT 1 FROM task WHERE held_by IS NOT NULL")).length === 0) await pause(10);
    const stop = new AbortController();
    const second = run(db, [greet.handle(() => {})], { resident: true, signal: stop.signal });
    while ((await db.sql("SELECT 1 FROM slot WHERE epoch = 2")).length === 0) await pause(10);
    finish();
    expect(await first).toMatchObject({ epoch: 1, succeeded: 1, left: "superseded" });
    stop.abort();
    expect(await second).toMatchObject({ epoch: 2, left: "stopped" });
  });

  test("an invocation that was expired aborts its handlers, and its results change nothing", async () => {
    await tasks.enqueue(greet, { n: 1 });
    let reason: unknown;
    const held = run(
      db,
      [
        greet.handle(
          (_, { signal }) =>
            new Promise((resolve) => {
              signal.addEventListener("abort", () => {
                reason = signal.reason;
                resolve(undefined);
              });
            }),
        ),
      ],
      { resident: true },
    );
    while ((await db.sql("SELECT 1 FROM task WHERE held_by IS NOT NULL")).length === 0) await pause(10);
    await db.sql("UPDATE heartbeat SET expired_at = clock_timestamp()");
    expect((await held).left).toBe("lease_lost");
    expect(reason).toMatchObject({ code: "aborted" });
    expect(await db.sql("SELECT 1 FROM task_run")).toHaveLength(0);
  });

  test("tasks of a silent invocation run again once a resident has been a witness", async () => {
    const answer = await tasks.enqueueMany(greet, payloads(3));
    const id = answer.status === "enqueued" ? answer.ids[0] : undefined;
    const handlers = [greet.handle(() => {})];
    await register(db, "r1", { greet: {} });
    const dead = new Speaker(db, { slot: 3 });
    const { tasks: lost } = await dead.say();
    expect(lost).toHaveLength(3);
    await dead.fallSilent();
    const report = await run(db, handlers);
    expect(report).toMatchObject({ rescued: 3, succeeded: 3 });
    expect((await dead.say({ results: lost.map(success) })).status).toBe("gone");
    expect(await db.sql("SELECT attempt, result FROM task_run WHERE task_id = $1 ORDER BY attempt", [id])).toEqual([
      { attempt: 1, result: "FAILURE" },
      { attempt: 2, result: "SUCCESS" },
    ]);
  });

  test("superseded while somebody is dying, a witness stays until it has called that one silent", async () => {
    await tasks.enqueue(greet, { n: 1 });
    await register(db, "r1", { greet: {} });
    const dying = new Speaker(db, { slot: 3 });
    const graceMs = 60_000;
    expect((await dying.say({ graceMs })).tasks).toHaveLength(1);
    const leave = new AbortController();
    const resident = run(db, [greet.handle(() => {})], {
      resident: true,
      signal: leave.signal,
      settings: { ...settings, graceMs },
    });
    const witness = "UPDATE heartbeat SET seen_since = seen_since - interval '1 hour' WHERE slot = 0";
    await vi.waitUntil(async () => (await db.sql(`${witness} RETURNING 1`)).length === 1, 20_000);
    // Not yet silent for the grace period, more than half of it.
    await dying.fallSilent(graceMs * 0.6);
    const successor = new Speaker(db, { slot: 0 });
    await successor.say({ want: 0 });
    const seq = async () =>
      (await db.sql<{ seq: number }>("SELECT seq FROM heartbeat WHERE epoch = 1 AND slot = 0"))[0]!.seq;
    const before = await seq();
    await vi.waitUntil(async () => (await seq()) > before + 2, 20_000);
    await dying.fallSilent(graceMs * 0.5);
    const left = await resident;
    leave.abort();
    expect(left).toMatchObject({ left: "superseded", rescued: 1, claimed: 0 });
    expect(await db.sql("SELECT suspect_since IS NOT NULL AS suspect, held_by FROM task")).toEqual([
      { suspect: true, held_by: null },
    ]);
  });

  test("superseded while all are well, it leaves at once", async () => {
    const resident = run(db, [greet.handle(() => {})], { resident: true });
    await vi.waitUntil(async () => (await db.sql("SELECT FROM heartbeat")).length === 1, 20_000);
    await register(db, "r1", { greet: {} });
    const successor = new Speaker(db, { slot: 0 });
    await successor.say({ want: 0 });
    const seq = async () => (await db.sql<{ seq: number }>("SELECT seq FROM heartbeat WHERE epoch = 1"))[0]!.seq;
    const before = await seq();
    expect(await resident).toMatchObject({ left: "superseded", rescued: 0 });
    // One exchange told it, one more was the end.
    expect((await seq()) - before).toBeLessThanOrEqual(3);
  });

  test("two databases without what is due are not the worker's business: a missing schema is said at once", async () => {
    const bare = await openDatabase(adapter, { migrated: false });
    await expect(run(bare, [greet.handle(() => {})])).rejects.toMatchObject({
      code: "schema_missing",
      message: expect.stringContaining("stint migrate"),
    });
  });

  test("a schema older than the release is refused in the first call, and nothing is claimed", async () => {
    await tasks.enqueue(greet, { n: 1 });
    const newest = await db.sql<{ name: string; sha256: string }>(
      "DELETE FROM migration WHERE name = (SELECT max(name) FROM migration) RETURNING name, sha256",
    );
    const ended = await run(db, [greet.handle(() => {})]).catch((error: unknown) => error);
    await db.sql("INSERT INTO migration (name, sha256) VALUES ($1, $2)", [newest[0]!.name, newest[0]!.sha256]);
    expect(ended).toMatchObject({
      code: "schema_missing",
      message: expect.stringContaining(`it lacks ${newest[0]!.name}. Run \`stint migrate\``),
    });
    expect(await db.sql("SELECT FROM heartbeat")).toHaveLength(0);
    expect(await db.sql("SELECT FROM task WHERE held_by IS NULL")).toHaveLength(1);
  });

  test("results that do not fit into one request are handed in in several, at the end too", async () => {
    await tasks.enqueueMany(greet, payloads(1000));
    // Quotes: each is four bytes in JSON within JSON.
    const value = '"'.repeat(2000);
    const report = await run(db, [greet.handle(() => value)], { settings: { ...settings, queuePopSize: 1000 } });
    expect(report).toMatchObject({ claimed: 1000, succeeded: 1000, staleCompletions: 0, left: "nothing_due" });
    expect(
      await db.sql("SELECT count(*)::int AS n FROM task_run WHERE result_value = to_jsonb(CAST($1 AS text))", [value]),
    ).toEqual([{ n: 1000 }]);
  });

  test("it leaves before its time is up, and gives back what it could not finish, forgiven", async () => {
    await tasks.enqueue(defineTask({ identifier: "stubborn", payload: numbered, timeoutMs: 2000 }), { n: 1 });
    const stubborn = defineTask({ identifier: "stubborn", payload: numbered, timeoutMs: 2000 });
    // 2.3 s of a limit of 3 s, of which 0.3 s are the reserve: the task fits when it is claimed; once it runs, time does, twice as fast.
    let startedAt: number | undefined;
    const handler = stubborn.handle(() => {
      startedAt = performance.now();
      return new Promise(() => {});
    });
    const report = await runInvocation({
      databases: [db.database],
      registry: createRegistry([handler], 3000),
      slot: 0,
      resident: true,
      settings: { ...settings, invocationMs: 3000 },
      log: silentLog,
      remainingMs: () => 2600 - (startedAt === undefined ? 0 : 2 * (performance.now() - startedAt)),
    });
    expect(report).toMatchObject({ claimed: 1, succeeded: 0, failed: 0, left: "out_of_time" });
    expect(await db.sql("SELECT held_by, attempt - forgiven AS used FROM task")).toEqual([{ held_by: null, used: 0 }]);
  });
});
