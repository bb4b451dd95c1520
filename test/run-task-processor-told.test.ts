/** Whether a task processor that has ended may have left something held: what its exit code says. */
import { beforeEach, describe, expect, test, vi } from "vitest";
import { runTaskProcessor } from "../infra/run-task-processor.ts";
import { pause } from "../lib/clock.ts";
import { readConfig } from "../lib/config.ts";
import { createTaskClient } from "../lib/index.ts";
import { createLog } from "../lib/log.ts";
import { handlers, nap } from "./fixtures/tasks.ts";
import { openDatabase, reset } from "./support/database.ts";

const db = await openDatabase("data-api");
const { faults } = db.dataApi!;
const EXCHANGE = "exchange_v";

beforeEach(async () => {
  faults.clear();
  for (const kind of Object.keys(faults.injected)) delete faults.injected[kind];
  await reset(db);
  await createTaskClient({ database: db.database }).enqueue(nap, { ms: 30_000 });
});

const isHeld = async (): Promise<boolean> =>
  (await db.sql("SELECT 1 FROM task WHERE identifier = 'test.nap' AND held_by IS NOT NULL")).length > 0;

/** One thread. `stop` ends it; `said` are its messages. */
function start(): { ended: Promise<boolean>; stop: () => void; said: string[] } {
  const stopping = new AbortController();
  const said: string[] = [];
  const ended = runTaskProcessor({
    config: readConfig({
      DATABASE_URL: db.url,
      TASK_PROCESSOR_NUM_THREADS: "1",
      TASK_PROCESSOR_SLEEP_INTERVAL_MS: "100",
      TASK_PROCESSOR_GRACE_PERIOD_MS: "12000",
    }),
    databases: [db.database],
    handlers,
    log: createLog(({ message }) => said.push(message)),
    signal: stopping.signal,
  });
  return { ended, stop: () => stopping.abort(), said };
}

const until = (holds: () => unknown) => vi.waitUntil(holds, { timeout: 30_000, interval: 5 });

describe("something may be held", () => {
  test("the first exchange claimed, its answer was lost, and the signal came before the next", async () => {
    // It is known by then: an unknown release claims nothing.
    const before = start();
    await until(isHeld);
    before.stop();
    expect(await before.ended).toBe(true);
    faults.set({ match: EXCHANGE, commitThenDrop: 1 });
    const { ended, stop } = start();
    await until(isHeld);
    stop();
    expect(await ended).toBe(false);
    expect(await isHeld()).toBe(true);
  });

  test("the database refused for good while something was held", async () => {
    const { ended, stop, said } = start();
    await until(isHeld);
    const [{ name }] = (await db.sql(
      "SELECT proname AS name FROM pg_proc WHERE proname ~ '^exchange_v' ORDER BY proname DESC LIMIT 1",
    )) as [{ name: string }];
    await db.sql(`ALTER FUNCTION ${name} RENAME TO away`);
    try {
      await until(() => said.some((message) => message.includes("is away or refuses")));
      stop();
      expect(await ended).toBe(false);
      expect(await isHeld()).toBe(true);
    } finally {
      await db.sql(`ALTER FUNCTION away RENAME TO ${name}`);
    }
  });

  test("a lease was lost, and the database has not answered since", async () => {
    const { ended, stop, said } = start();
    await until(isHeld);
    faults.set({ match: EXCHANGE, throttle: 1 });
    await until(() => said.some((message) => message.startsWith("lost its lease")));
    const struck = faults.injected.throttle ?? 0;
    // It tries for a seat again.
    await pause(200);
    await until(() => (faults.injected.throttle ?? 0) > struck);
    stop();
    expect(await ended).toBe(false);
    expect(await isHeld()).toBe(true);
  });
});

describe("nothing is held", () => {
  test("the database has never let an exchange in", async () => {
    faults.set({ match: EXCHANGE, throttle: 1 });
    const { ended, stop } = start();
    await until(() => (faults.injected.throttle ?? 0) > 0);
    stop();
    expect(await ended).toBe(true);
    expect(await isHeld()).toBe(false);
  });

  test("the signal comes with the first answer", async () => {
    const { ended, stop } = start();
    await until(isHeld);
    stop();
    expect(await ended).toBe(true);
    expect(await isHeld()).toBe(false);
  });
});
