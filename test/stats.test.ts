import { beforeEach, describe, expect, test } from "vitest";
import { performAction } from "../lib/operator.ts";
import type { Action } from "../lib/operator-schema.ts";
import { readStats } from "../lib/stats.ts";
import { statsSchema } from "../lib/stats-schema.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";
import { enqueueRaw, failure, GRACE_MS, register, Speaker, success } from "./support/exchange.ts";

const settings = { graceMs: GRACE_MS, sleepIntervalMs: 2000 };

describe.each(ADAPTERS)("stats over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const read = async (databases = [db.database]) => {
    const stats = await readStats(databases, settings);
    expect(statsSchema.parse(stats)).toEqual(stats);
    return stats;
  };
  const of = async (identifier: string) => (await read()).identifiers.find((one) => one.identifier === identifier)!;
  /** Runs of a kind, ended evenly over the last so many minutes, each of n ms. */
  const ran = (identifier: string, number: number, minutes: number, result = "SUCCESS") =>
    db.sql(
      `INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result)
      SELECT n + CAST($5 AS bigint), 1, $1, gen_random_uuid(), f.at - n * interval '1 millisecond', f.at, $4
      FROM generate_series(1, CAST($2 AS int)) AS n CROSS JOIN LATERAL (SELECT now() - interval '1 second' - $3 * interval '1 minute' * (n - 1) / $2 AS at) AS f`,
      [identifier, number, minutes, result, Math.floor(Math.random() * 1e12)],
    );

  beforeEach(async () => {
    await reset(db);
    await register(db, "r1", { greet: { maxAttempts: 1 } });
  });

  test("nothing yet is a whole answer", async () => {
    const stats = await read();
    expect(stats).toMatchObject({ identifiers: [], truncated: false, slots: [], recurring: [], paused: [] });
    expect(stats.totals).toMatchObject({ waiting: { count: 0, estimated: false }, oldestWaitingMs: null });
    expect(stats.throughput).toHaveLength(60);
  });

  test("each unfinished task counts once, in its state, also those that wait for their turn and suspects", async () => {
    const speaker = new Speaker(db);
    await enqueueRaw(db, "greet", 2);
    const [one, two] = (await speaker.say()).tasks;
    await speaker.say({ want: 0, results: [failure(one!), success(two!)] });
    await enqueueRaw(db, "greet");
    await speaker.say();
    await enqueueRaw(db, "greet", 4);
    await enqueueRaw(db, "greet", 2, { delayUntil: "2999-01-01T00:00:00Z" });
    await enqueueRaw(db, "greet", 3, { serialKey: "s" });
    await db.sql("UPDATE task SET attempt = 1, scheduled_for = now() + interval '1 hour' WHERE id = 4");
    await db.sql("UPDATE task SET suspect_since = now(), attempt = 1 WHERE id = 5");
    await db.sql("UPDATE task SET scheduled_for = now() - interval '1 minute' WHERE id = 6");
    const greet = await of("greet");
    expect(greet).toMatchObject({
      known: true,
      paused: false,
      waiting: { count: 6, estimated: false },
      running: { count: 1 },
      scheduled: { count: 2 },
      retrying: { count: 1 },
      failed: { count: 1 },
      hour: { succeeded: 1, failed: 1, estimated: false, p50Ms: expect.closeTo(1, 1) },
    });
    expect(greet.oldestWaitingMs).toBeGreaterThanOrEqual(60_000);
    const stats = await read();
    expect(stats.throughput.reduce((sum, minute) => sum + minute.succeeded + minute.failed, 0)).toBe(2);
    expect(stats.throughput.at(-1)!.minute.slice(0, 16)).toBe(stats.at.slice(0, 16));
    expect(stats.totals.waiting.count).toBe(6);
  });

  test("identifiers that no live release knows, and those that are paused", async () => {
    await enqueueRaw(db, "nobody");
    await enqueueRaw(db, "greet");
    await new Speaker(db).say({ want: 0 });
    await performAction([db.database], { action: "pause", identifier: "greet" } as Action, "ada");
    expect(await read()).toMatchObject({ unknownIdentifiers: ["nobody"], paused: ["greet"] });
    expect(await of("greet")).toMatchObject({ known: true, paused: true });
    await db.sql("UPDATE heartbeat SET last_seen_at = now() - interval '31 minutes'");
    expect((await read()).unknownIdentifiers).toEqual(["greet", "nobody"]);
  });

  test("slots with epoch, holder and whether they are stuck", async () => {
    const speakers = [0, 1, 2, 3].map((slot) => new Speaker(db, { slot }));
    for (const speaker of speakers) await speaker.say();
    await speakers[1]!.say({ want: 0, ending: true });
    await speakers[2]!.fallSilent(GRACE_MS + 3000);
    await speakers[3]!.say({ want: 0, ending: true });
    await speakers[3]!.fallSilent(121_000);
    const { slots } = await read();
    expect(slots.map(({ state, healthy }) => [state, healthy])).toEqual([
      ["working", true],
      ["left", true],
      ["stuck", false],
      ["late", false],
    ]);
    expect(slots[0]).toMatchObject({ database: 0, slot: 0, epoch: 1, holder: speakers[0]!.id, release: "r1", held: 0 });
  });

  test("schedules with their next and last run", async () => {
    await db.sql(
      "INSERT INTO recurring_task (identifier, schedule, next_at, skipped) VALUES ('beat', 'every 1h', now() + interval '1 hour', 2)",
    );
    await ran("beat", 1, 1, "FAILURE");
    expect((await read()).recurring).toEqual([
      expect.objectContaining({
        identifier: "beat",
        enabled: true,
        skipped: 2,
        lastResult: "FAILURE",
        lastOccurrence: null,
        lastDurationMs: expect.closeTo(1, 3),
      }),
    ]);
  });

  test("a burst of ten thousand within a second is counted whole, by identifier and by minute", async () => {
    await db.sql(`INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result)
      SELECT n, 1, 'greet', gen_random_uuid(), f.at - interval '5 milliseconds', f.at, CASE WHEN n % 400 = 0 THEN 'FAILURE' ELSE 'SUCCESS' END
      FROM generate_series(1, 10000) AS n CROSS JOIN LATERAL (SELECT date_trunc('minute', now()) - interval '7 minutes' + n * interval '100 microseconds' AS at) AS f`);
    const whole = { succeeded: 9975, failed: 25, estimated: false };
    expect(await of("greet")).toMatchObject({ hour: { ...whole, p50Ms: 5, p99Ms: 5 }, day: whole });
    expect((await read()).throughput.filter((one) => one.succeeded + one.failed > 0)).toEqual([
      { minute: expect.any(String), ...whole },
    ]);
  });

  test("beyond the bound, waiting ones are an estimate near the truth that says so; runs are still exact", async () => {
    await db.sql("INSERT INTO task (identifier) SELECT 'greet' FROM generate_series(1, 15000)");
    await ran("greet", 20_000, 50);
    await ran("greet", 1000, 50, "FAILURE");
    await db.sql("ANALYZE task, task_run");
    const { waiting, hour } = await of("greet");
    expect(waiting.estimated).toBe(true);
    expect(waiting.count).toBeGreaterThan(12_000);
    expect(waiting.count).toBeLessThan(18_000);
    expect(hour).toMatchObject({ succeeded: 20_000, failed: 1000, estimated: false });
    expect(hour.p50Ms).toBeGreaterThan(7000);
    expect(hour.p50Ms).toBeLessThan(13_000);
    expect(hour.p99Ms).toBeGreaterThan(18_000);
  });

  test("more identifiers than are told apart: it says so", async () => {
    await db.sql("INSERT INTO task (identifier) SELECT 'kind ' || n FROM generate_series(1, 210) AS n");
    const stats = await read();
    expect([stats.identifiers.length, stats.truncated]).toEqual([200, true]);
  });

  test("over two databases counts add up", async () => {
    await enqueueRaw(db, "greet", 3);
    const stats = await read([db.database, db.database]);
    expect(stats.identifiers).toHaveLength(1);
    expect(stats.totals.waiting.count).toBe(6);
  });
});
