import { expect, test } from "vitest";
import * as z from "zod/mini";
import { createTaskClient, defineRecurringTask, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { readWaiting } from "../lib/monitoring.ts";
import { createRegistry } from "../lib/registry.ts";
import { runInvocation } from "../lib/worker.ts";
import { openDatabase, type TestDatabase } from "./support/database.ts";
import { register, Speaker } from "./support/exchange.ts";

const numbered = z.object({ n: z.number() });
const note = defineTask({ identifier: "note", payload: numbered });
const beat = defineRecurringTask({ identifier: "beat", every: "1h", schema: z.object({}), payload: {} });
const settings = { sleepIntervalMs: 100, graceMs: 5000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null };

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
