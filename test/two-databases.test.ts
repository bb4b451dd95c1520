import { expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { pause } from "../lib/clock.ts";
import { createTaskClient, defineRecurringTask, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { readWaiting } from "../lib/monitoring.ts";
import { createRegistry } from "../lib/registry.ts";
import { runInvocation } from "../lib/worker.ts";
import { openDatabase, type TestDatabase } from "./support/database.ts";
import { register, Speaker } from "./support/exchange.ts";

const numbered = z.object({ n: z.number() });
const note = defineTask({ identifier: "note", payload: numbered });
const beat = defineRecurringTask({ identifier: "beat", every: "365d", schema: z.object({}), payload: {} });
const settings = { sleepIntervalMs: 100, graceMs: 20_000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null };

test("both are drained, recurring tasks live in the last one, and moving there and back loses nothing", async () => {
  const main = await openDatabase("pg");
  const separate = await openDatabase("data-api");
  const seen: number[] = [];
  const handlers = [note.handle(({ n }) => void seen.push(n)), beat.handle(() => {})];
  const run = (...databases: TestDatabase[]) =>
    runInvocation({
      databases: databases.map(({ database }) => database),
      registry: createRegistry(handlers, null),
      slot: 0,
      resident: false,
      settings,
      log: silentLog,
    });
  const enqueue = (db: TestDatabase, from: number, count: number) =>
    createTaskClient({ database: db.database }).enqueueMany(
      note,
      Array.from({ length: count }, (_, n) => ({ n: from + n })),
    );

  await enqueue(main, 0, 30);
  // Some of them are in the hands of an invocation that dies during the switch.
  await register(main, "r1", { note: {} });
  const dead = new Speaker(main, { slot: 4 });
  expect((await dead.say({ want: 5 })).tasks).toHaveLength(5);
  await dead.fallSilent();
  // There: producers write to the separate one, both are drained.
  await enqueue(separate, 100, 30);
  const there = await run(main, separate);
  expect(there).toMatchObject({ succeeded: 60, rescued: 5 });
  expect(await main.sql("SELECT 1 FROM recurring_task")).toHaveLength(0);
  expect(await separate.sql("SELECT identifier FROM recurring_task")).toEqual([{ identifier: "beat" }]);
  // And back.
  await enqueue(separate, 200, 10);
  await enqueue(main, 300, 10);
  expect((await run(separate, main)).succeeded).toBe(20);
  expect(new Set(seen).size).toBe(80);
  expect(seen).toHaveLength(80);
  expect(await readWaiting([main.database, separate.database])).toEqual({ waiting: 0 });
});

test.each([
  "resident",
  "visitor",
])("a %s that found all places asked for by one database asks the other at once", async (kind) => {
  const [idle, due] = [await openDatabase("pg"), await openDatabase("pg")];
  await createTaskClient({ database: due.database }).enqueue(note, { n: 1 });
  const leave = new AbortController();
  let runs = 0;
  const counted = note.handle(() => {
    runs += 1;
  });
  const invocation = runInvocation({
    databases: [idle.database, due.database],
    registry: createRegistry([counted], null),
    slot: 0,
    resident: kind === "resident",
    signal: leave.signal,
    // Whoever waits to confirm its lease waits for longer than this test.
    settings: { ...settings, sleepIntervalMs: 150_000, graceMs: 800_000 },
    log: silentLog,
  });
  await vi.waitUntil(() => runs === 1, 60_000);
  leave.abort();
  expect(await invocation).toMatchObject({ succeeded: 1 });
});

test("a suspect of one that starves runs before the other's work is at its end, alone", async () => {
  const [idle, busy] = [await openDatabase("pg"), await openDatabase("pg")];
  const order: string[] = [];
  let running = 0;
  let beside = 0;
  let starved: Promise<unknown> | undefined;
  const lost = defineTask({ identifier: "lost", payload: numbered });
  const handlers = [
    note.handle(async ({ n }) => {
      // None of those behind goes on before it is there.
      if (n >= 20) {
        starved ??= starving();
        await starved;
      }
      running += 1;
      await pause(10 + Math.random() * 40);
      running -= 1;
      order.push("note");
    }),
    lost.handle(async () => {
      beside = running;
      order.push("lost");
      await pause(20);
      beside = Math.max(beside, running);
    }),
  ];
  const starving = () =>
    idle.sql(
      `INSERT INTO task (identifier, payload, suspect_since, scheduled_for)
      VALUES ('lost', '{"n": 0}', clock_timestamp() - interval '1 hour', clock_timestamp() - interval '1 hour')`,
    );
  await createTaskClient({ database: busy.database }).enqueueMany(
    note,
    Array.from({ length: 400 }, (_, n) => ({ n })),
  );
  const leave = new AbortController();
  const resident = runInvocation({
    databases: [idle.database, busy.database],
    registry: createRegistry(handlers, null),
    slot: 0,
    resident: true,
    signal: leave.signal,
    settings,
    log: silentLog,
  });
  await vi.waitUntil(() => order.length === 401, 120_000);
  leave.abort();
  expect(await resident).toMatchObject({ succeeded: 401, failed: 0 });
  expect(beside).toBe(0);
  expect(order.indexOf("lost")).toBeLessThan(200);
});
