/** A statement that its caller has given up may still wait in Postgres. What it was to do must not be done later, behind everyone's back. */
import type pg from "pg";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { pause } from "../lib/clock.ts";
import type { Database } from "../lib/database/port.ts";
import { type Limits, store } from "../lib/enqueue-store.ts";
import { codeOf } from "../lib/errors.ts";
import { defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { arrangeNextWake } from "../lib/next-wake.ts";
import { createOperator } from "../lib/operate.ts";
import { createRegistry } from "../lib/registry.ts";
import { type InvocationOptions, runInvocation } from "../lib/worker.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";

const settings = { sleepIntervalMs: 50, graceMs: 2000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null };
const task = defineTask({ identifier: "app.task", payload: z.object({ n: z.number() }), queueSize: 100 });
const unlimited = defineTask({ identifier: "app.task", payload: z.object({ n: z.number() }) });
const registry = createRegistry([task.handle(() => {})], null);

describe.each(ADAPTERS)("given up over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const others: pg.Client[] = [];
  beforeEach(() => reset(db));
  afterEach(async () => {
    for (const other of others.splice(0)) await other.query("ROLLBACK");
  });

  const invoke = (more: Partial<InvocationOptions> = {}) =>
    runInvocation({ databases: [db.database], registry, slot: 0, resident: true, settings, log: silentLog, ...more });
  const waiting = () =>
    db.sql("SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'");
  const allIsDone = () =>
    vi.waitUntil(async () => {
      const active = await db.sql(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
      );
      return active.length === 0;
    }, 30_000);
  const locking = async (text: string): Promise<pg.Client> => {
    const other = await db.client();
    await other.query("BEGIN");
    await other.query(text);
    others.push(other);
    return other;
  };
  /** As a client that is more impatient than its statements say. */
  const hasty: Database = {
    ...db.database,
    query: (statement, values) => db.database.query(statement, values, { timeoutMs: 200 }),
  };

  test("an exchange of a lease that is lost claims nothing later", async () => {
    const staying = invoke();
    await vi.waitUntil(async () => (await db.sql("SELECT FROM heartbeat WHERE seq > 0")).length > 0, 30_000);
    const other = await locking("SELECT FROM heartbeat FOR UPDATE");
    await db.sql("INSERT INTO task (identifier) SELECT 'app.task' FROM generate_series(1, 3)");
    expect((await staying).left).toBe("lease_lost");
    await allIsDone();
    await other.query("COMMIT");
    await allIsDone();
    expect(await db.sql("SELECT id FROM task WHERE held_by IS NOT NULL")).toEqual([]);
  });

  test("a first exchange takes no seat later", async () => {
    await db.sql("INSERT INTO slot (number, epoch) VALUES (0, 7)");
    await db.sql("INSERT INTO task (identifier) VALUES ('app.task')");
    const other = await locking("SELECT FROM slot FOR UPDATE");
    const leave = new AbortController();
    const staying = invoke({ databases: [hasty], signal: leave.signal });
    await vi.waitUntil(async () => (await waiting()).length > 0, 30_000);
    leave.abort();
    expect((await staying).left).toBe("lease_lost");
    await allIsDone();
    await other.query("COMMIT");
    await allIsDone();
    expect(await db.sql("SELECT epoch::int AS epoch, holder FROM slot")).toEqual([{ epoch: 7, holder: null }]);
    expect(await db.sql("SELECT id FROM task WHERE held_by IS NOT NULL")).toEqual([]);
  });

  test.each([
    ["a serial key", { serialKey: "one" }, "SELECT take_serial_key('app.task', 'one')"],
    ["room in the queue", {}, "SELECT admit('app.task', 100, 1)"],
    ["a key", { key: "one" }, "INSERT INTO task (identifier, key) VALUES ('app.task', 'one')"],
  ])("an enqueue that waits for %s is not in doubt", async (_, options, holding) => {
    const other = await locking(holding);
    // Postgres waits for three of six seconds.
    const limits: Limits = { repeatMs: 1500, attemptMs: 6000, leastMs: 6000, furtherMs: 0 };
    const definition = "key" in options ? unlimited : task;
    const error = await store(db.database, definition as never, ['{"n":1}'], options, false, limits).catch((e) => e);
    expect(codeOf(error)).toBe("database_failed");
    expect(await waiting()).toEqual([]);
    await other.query("ROLLBACK");
    expect(await db.sql("SELECT id FROM task")).toEqual([]);
  });

  test("an enqueue that waits for one lock after another is not in doubt either", async () => {
    const room = await locking("SELECT admit('app.task', 100, 1)");
    const serial = await locking("SELECT take_serial_key('app.task', 'one')");
    const key = await locking("INSERT INTO task (identifier, key) VALUES ('app.task', 'one')");
    // Ten seconds an attempt, also the last one: five for all locks.
    const limits: Limits = { repeatMs: 2000, attemptMs: 10_000, leastMs: 10_000, furtherMs: 0 };
    const options = { key: "one", serialKey: "one" };
    const storing = store(db.database, task as never, ['{"n":1}'], options, false, limits).catch((e) => e);
    for (const lock of [room, serial]) {
      await Promise.race([storing, pause(4500)]);
      await lock.query("ROLLBACK");
    }
    const error = await storing;
    await key.query("ROLLBACK");
    await allIsDone();
    expect(await db.sql("SELECT id FROM task")).toEqual([]);
    expect(codeOf(error)).toBe("database_failed");
  });

  test("what an operator has asked for is not done after what was asked for next", async () => {
    await db.sql("INSERT INTO recurring_task (identifier, schedule, next_at) VALUES ('app.beat', '{}', 'infinity')");
    await db.sql(
      "INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, attempt, forgiven, serial_key, failed_at, outcome) VALUES (1, 'app.task', '{}', 50, now(), now(), 1, 0, 'one', now(), 'FAILED')",
    );
    const other = await locking("INSERT INTO paused_identifier (identifier) VALUES ('app.task')");
    await other.query("SELECT FROM recurring_task FOR UPDATE");
    await other.query("SELECT take_serial_key('app.task', 'one')");
    const impatient = createOperator({ databases: [hasty], who: "test" });
    const acts = [
      impatient.act({ action: "pause", identifier: "app.task" }),
      impatient.act({ action: "recurring_disable", identifier: "app.beat" }),
      impatient.act({ action: "retry", ids: ["1"] }),
    ];
    expect((await Promise.allSettled(acts)).map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
    await allIsDone();
    await other.query("ROLLBACK");
    const { act } = createOperator({ databases: [db.database], who: "test" });
    await act({ action: "resume", identifier: "app.task" });
    await act({ action: "recurring_enable", identifier: "app.beat" });
    await allIsDone();
    expect(await db.sql("SELECT FROM paused_identifier")).toEqual([]);
    expect(await db.sql("SELECT enabled FROM recurring_task")).toEqual([{ enabled: true }]);
    expect(await db.sql("SELECT FROM task")).toEqual([]);
  });

  test("a retry that waits for a serial key leaves out what fails meanwhile: its key is not held", async () => {
    const failed = (id: number, key: string) =>
      db.sql(
        "INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, attempt, forgiven, serial_key, failed_at, outcome) VALUES ($1, 'app.task', '{}', 50, now(), now(), 1, 0, $2, now(), 'FAILED')",
        [id, key],
      );
    await failed(1, "one");
    const other = await locking("SELECT take_serial_key('app.task', 'one')");
    const retried = db.sql("SELECT retry_tasks(ARRAY[1, 2]::bigint[]) AS count");
    await vi.waitUntil(async () => (await waiting()).length > 0, 30_000);
    await failed(2, "two");
    await other.query("ROLLBACK");
    expect(await retried).toEqual([{ count: 1 }]);
    expect(await db.sql("SELECT id::int AS id FROM failed_task")).toEqual([{ id: 2 }]);
    expect(await db.sql("SELECT id::int AS id, has_turn FROM task")).toEqual([{ id: 1, has_turn: true }]);
  });

  test("a wake that nobody heard of does not stand as one under way", async () => {
    await db.sql("INSERT INTO release (id) VALUES ('r')");
    await db.sql(
      "INSERT INTO release_task (release_id, identifier, timeout_ms, max_attempts) VALUES ('r', 'app.task', 1000, 3)",
    );
    await db.sql("INSERT INTO task (identifier, scheduled_for) VALUES ('app.task', now() + interval '1 minute')");
    await db.sql(
      "INSERT INTO arranged_wake (at) VALUES (now() + interval '1 hour') ON CONFLICT (single) DO UPDATE SET at = excluded.at",
    );
    const other = await locking("SELECT FROM arranged_wake FOR UPDATE");
    const sent: number[] = [];
    const send = async (delayMs: number): Promise<void> => void sent.push(delayMs);
    const options = { databases: [db.database], release: "r", graceMs: 16_000, send, mostMs: 900_000, log: silentLog };
    await arrangeNextWake({ ...options, beginning: false, waitMs: 30_000 });
    await allIsDone();
    await other.query("COMMIT");
    await arrangeNextWake({ ...options, beginning: false, waitMs: 30_000 });
    expect(sent).toHaveLength(1);
  });
});
