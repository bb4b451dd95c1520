import { beforeEach, describe, expect, test } from "vitest";
import { exchange, registerRelease } from "../lib/sql/exchange.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";
import { enqueueRaw, failure, register, Speaker, success } from "./support/exchange.ts";

/** Of the least each takes, in turn: what else the machine does meets both alike. */
async function ratio(one: () => Promise<number>, other: () => Promise<number>): Promise<number> {
  const [ones, others]: number[][] = [[], []];
  for (let round = 0; round < 5; round += 1) {
    ones!.push(await one());
    others!.push(await other());
  }
  return Math.min(...ones!) / Math.min(...others!);
}

describe.each(ADAPTERS)("exchange over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  beforeEach(async () => {
    await reset(db);
    await register(db, "r1", { a: {}, b: {}, long: { timeoutMs: 600_000 } });
  });

  test("claims in the order priority, due time, id, and records what is handed in", async () => {
    await enqueueRaw(db, "a", 2);
    await enqueueRaw(db, "b", 1, { priority: 0 });
    const [early] = await enqueueRaw(db, "b", 1, { delayUntil: "2020-01-01T00:00:00Z" });
    const me = new Speaker(db);
    const { tasks } = await me.say();
    expect(tasks.map((task) => task.id)).toEqual(["3", early, "1", "2"]);
    const done = await me.say({ results: tasks.map(success) });
    expect(done).toMatchObject({ succeeded: 4, stale: 0, tasks: [] });
    expect(await db.sql("SELECT count(*)::int AS n FROM task")).toEqual([{ n: 0 }]);
    expect(await db.sql("SELECT task_id, result, task_outcome FROM task_run ORDER BY task_id")).toHaveLength(4);
  });

  test("ties in priority and due time go by id, also over identifiers", async () => {
    const due = { delayUntil: "2020-01-01T00:00:00Z" };
    for (const identifier of ["b", "a", "b", "a"]) await enqueueRaw(db, identifier, 1, due);
    const me = new Speaker(db);
    expect((await me.say({ want: 3 })).tasks.map((task) => task.id)).toEqual(["1", "2", "3"]);
    expect((await me.say({ want: 3 })).tasks.map((task) => task.id)).toEqual(["4"]);
  });

  test("a repeated exchange claims and records nothing more, and tells again what it told", async () => {
    await enqueueRaw(db, "a", 6);
    const me = new Speaker(db);
    const first = await me.say({ want: 2 });
    me.seq += 1;
    const words = { want: 2, acked: 1, results: [success(first.tasks[0]!)] };
    const heard = await me.repeat(words);
    const again = await me.repeat(words);
    expect(heard.tasks).toHaveLength(2);
    expect(again.tasks).toEqual(heard.tasks);
    expect(again.succeeded).toBe(1);
    expect(await db.sql("SELECT count(*)::int AS n FROM task WHERE held_by IS NOT NULL")).toEqual([{ n: 3 }]);
    expect(await db.sql("SELECT count(*)::int AS n FROM task_run")).toEqual([{ n: 1 }]);
  });

  test("while a claim was never acknowledged nothing more is claimed", async () => {
    await enqueueRaw(db, "a", 6);
    const me = new Speaker(db);
    const first = await me.say({ want: 2 });
    me.seq += 1;
    expect((await me.repeat({ want: 2, acked: 0 })).tasks).toEqual(first.tasks);
    expect(await db.sql("SELECT count(*)::int AS n FROM task WHERE held_by IS NOT NULL")).toEqual([{ n: 2 }]);
  });

  test("a lower number than the row's is old and changes nothing", async () => {
    await enqueueRaw(db, "a", 2);
    const me = new Speaker(db);
    await me.say({ want: 0 });
    await me.say({ want: 0 });
    me.seq = 1;
    expect((await me.repeat()).status).toBe("old");
    expect(await db.sql("SELECT count(*)::int AS n FROM task WHERE held_by IS NOT NULL")).toEqual([{ n: 0 }]);
  });

  test("a row is created by number 1 only", async () => {
    const me = new Speaker(db);
    me.seq = 1;
    expect((await me.say()).status).toBe("gone");
    expect(await db.sql("SELECT 1 FROM heartbeat")).toHaveLength(0);
  });

  test("the newest tick takes the seat; the one before claims nothing more and finishes what it holds", async () => {
    await enqueueRaw(db, "a", 2);
    const old = new Speaker(db);
    const young = new Speaker(db);
    const { tasks, epoch } = await old.say({ want: 1 });
    expect((await young.say({ want: 0 })).epoch).toBe(epoch + 1);
    const next = await old.say({ results: tasks.map(success), want: 5 });
    expect(next).toMatchObject({ newest: false, succeeded: 1, tasks: [] });
    await old.say({ ending: true });
    expect(await db.sql("SELECT holder FROM slot")).toEqual([{ holder: young.id }]);
    expect((await young.say()).tasks).toHaveLength(1);
  });

  test("a seat that is asked for only if free is not taken from a living holder, and is from one that ended", async () => {
    const holder = new Speaker(db);
    await holder.say();
    const other = new Speaker(db);
    expect((await other.say({ onlyFree: true })).status).toBe("seat_taken");
    expect(await db.sql("SELECT 1 FROM heartbeat")).toHaveLength(1);
    await holder.say({ ending: true });
    other.seq = 0;
    expect((await other.say({ onlyFree: true })).status).toBe("ok");
  });

  test("a witness expires a silent invocation and takes back its tasks as suspects, each with a FAILURE run", async () => {
    await enqueueRaw(db, "a", 3);
    const dead = new Speaker(db, { slot: 1 });
    const lost = await dead.say();
    await dead.fallSilent();
    const witness = new Speaker(db);
    expect((await witness.say({ want: 0 })).silent).toBe(true);
    expect((await witness.say({ want: 0 })).rescued).toBe(0);
    await witness.becomeWitness();
    expect((await witness.say({ want: 0 })).rescued).toBe(3);
    expect(await db.sql("SELECT result, task_outcome FROM task_run")).toEqual(
      Array(3).fill({ result: "FAILURE", task_outcome: null }),
    );
    const late = await dead.say({ results: lost.tasks.map(success) });
    expect(late.status).toBe("gone");
    const claimed = await witness.say();
    expect(claimed.tasks).toEqual([
      expect.objectContaining({ id: lost.tasks[0]!.id, attempt: 2, used: 1, suspect: true }),
    ]);
  });

  test("a suspect runs alone: nothing is claimed beside it, and nobody who holds anything claims it", async () => {
    await enqueueRaw(db, "a", 1);
    const dead = new Speaker(db, { slot: 1 });
    await dead.say();
    await dead.fallSilent();
    await enqueueRaw(db, "a", 5);
    const witness = new Speaker(db);
    await witness.say({ want: 0 });
    await witness.becomeWitness();
    await witness.say({ want: 0 });
    const alone = await witness.say();
    expect(alone.tasks.map((task) => task.suspect)).toEqual([true]);
    expect((await witness.say()).tasks).toEqual([]);
    const busy = new Speaker(db, { slot: 2 });
    expect((await busy.say({ want: 2 })).tasks.map((task) => task.suspect)).toEqual([false, false]);
    const after = await witness.say({ results: alone.tasks.map(success) });
    expect(after.tasks).toHaveLength(3);
  });

  test("a suspect that starves makes whoever sees it claim nothing more until it has run", async () => {
    const [suspect] = await enqueueRaw(db, "a", 1);
    await enqueueRaw(db, "a", 9, { priority: 0 });
    const me = new Speaker(db);
    const first = await me.say({ want: 3 });
    expect(first).toMatchObject({ starves: false, tasks: [{}, {}, {}] });
    await db.sql(
      "UPDATE task SET suspect_since = clock_timestamp() - interval '1 minute', scheduled_for = scheduled_for - interval '1 minute', priority = 100 WHERE id = $1",
      [suspect],
    );
    expect(await me.say({ want: 3 })).toMatchObject({ tasks: [], more: true, starves: true });
    // Nor does one that holds nothing here, while tasks of another database run in its process.
    const other = new Speaker(db, { slot: 1 });
    expect(await other.say({ want: 3, alone: false })).toMatchObject({ tasks: [], more: true, starves: true });
    const third = await me.say({ results: first.tasks.map(success) });
    expect(third).toMatchObject({ tasks: [{ id: suspect, suspect: true }], starves: false });
    expect((await other.say({ want: 3, alone: false })).tasks).toHaveLength(3);
  });

  test("many suspects that starve leave every other claim of an invocation to the others", async () => {
    await enqueueRaw(db, "a", 10);
    await db.sql(
      "UPDATE task SET suspect_since = clock_timestamp() - interval '1 minute', scheduled_for = scheduled_for - interval '1 hour' WHERE id <= 7",
    );
    const me = new Speaker(db);
    let told = await me.say({ want: 2 });
    const claims = [told.tasks.map(({ suspect }) => suspect)];
    for (let n = 0; n < 8; n += 1) {
      told = await me.say({ want: 2, results: told.tasks.map(success) });
      claims.push(told.tasks.map(({ suspect }) => suspect));
    }
    // When nothing else is left, the next turn is a suspect's again.
    expect(claims).toEqual([[true], [false, false], [true], [false], [true], [], [true], [], [true]]);
    expect(told.starves).toBe(false);
    expect(await me.say({ want: 2, results: told.tasks.map(success) })).toMatchObject({ tasks: [], starves: true });
  });

  test("an invocation with a longer grace period is silent after its own only", async () => {
    await enqueueRaw(db, "a", 2);
    const patient = new Speaker(db, { slot: 1 });
    await patient.say({ graceMs: 60_000 });
    const witness = new Speaker(db);
    await witness.say({ want: 0 });
    await witness.becomeWitness();
    await patient.fallSilent(25_000);
    expect(await witness.say({ want: 0 })).toMatchObject({ rescued: 0, silent: false, fading: false });
    await patient.fallSilent(10_000);
    expect(await witness.say({ want: 0 })).toMatchObject({ rescued: 0, silent: false, fading: true });
    expect((await patient.say({ graceMs: 60_000, want: 0 })).status).toBe("ok");
    await patient.fallSilent(61_000);
    expect((await witness.say({ want: 0 })).rescued).toBe(2);
  });

  test("a lost attempt counts only where the task was alone, or a suspect already", async () => {
    await enqueueRaw(db, "a", 2);
    const witness = new Speaker(db);
    await witness.say({ want: 0 });
    const lose = async (slot: number) => {
      const dead = new Speaker(db, { slot });
      const { tasks } = await dead.say();
      await dead.fallSilent();
      await witness.becomeWitness();
      await witness.say({ want: 0 });
      return tasks.length;
    };
    expect(await lose(1)).toBe(2);
    expect(await db.sql("SELECT attempt - forgiven AS used FROM task")).toEqual([{ used: 0 }, { used: 0 }]);
    for (const slot of [2, 3, 4]) expect(await lose(slot)).toBe(1);
    expect(await db.sql("SELECT attempt - forgiven AS used, outcome FROM failed_task")).toEqual([
      { used: 3, outcome: "FAILED" },
    ]);
    expect(await db.sql("SELECT attempt - forgiven AS used FROM task")).toEqual([{ used: 0 }]);
  });

  test("results are fenced by holder and attempt", async () => {
    await enqueueRaw(db, "a", 2);
    const me = new Speaker(db);
    const { tasks } = await me.say();
    const thief = new Speaker(db, { slot: 1 });
    await thief.say({ want: 0 });
    expect(await thief.say({ results: [success(tasks[0]!)] })).toMatchObject({ succeeded: 0, stale: 1 });
    expect(await me.say({ results: [{ ...success(tasks[0]!), attempt: 2 }] })).toMatchObject({
      succeeded: 0,
      stale: 1,
    });
    expect(await me.say({ results: tasks.map(success) })).toMatchObject({ succeeded: 2, stale: 1 });
  });

  test("a failure is due again later; out of attempts it stands in failed_task with its payload and runs", async () => {
    const [id] = await enqueueRaw(db, "a", 1, { maxAttempts: 2 });
    const me = new Speaker(db);
    const first = await me.say();
    const second = await me.say({ results: [failure(first.tasks[0]!)] });
    expect(second.tasks.map((task) => [task.id, task.attempt])).toEqual([[id, 2]]);
    await me.say({ results: [failure(second.tasks[0]!)] });
    expect(await db.sql("SELECT id, payload, outcome FROM failed_task")).toEqual([
      { id, payload: { n: 0 }, outcome: "FAILED" },
    ]);
    expect(await db.sql("SELECT attempt, result, task_outcome, error_details FROM task_run ORDER BY attempt")).toEqual([
      { attempt: 1, result: "FAILURE", task_outcome: null, error_details: "Error: no" },
      { attempt: 2, result: "FAILURE", task_outcome: "FAILED", error_details: "Error: no" },
    ]);
  });

  test("the end releases what was not finished, forgiven, and frees the slot; its repetition hears that it ended", async () => {
    await enqueueRaw(db, "a", 2);
    const me = new Speaker(db);
    await me.say();
    await me.say({ ending: true });
    expect(await me.repeat({ ending: true })).toMatchObject({ status: "gone", ended: true });
    expect(await db.sql("SELECT held_by, attempt - forgiven AS used FROM task")).toEqual(
      Array(2).fill({ held_by: null, used: 0 }),
    );
    expect(await db.sql("SELECT holder FROM slot")).toEqual([{ holder: null }]);
  });

  test("unknown identifiers and timeouts that do not fit are left alone and stand in nobody's way", async () => {
    await enqueueRaw(db, "stranger", 3, { priority: 0 });
    await enqueueRaw(db, "long", 3, { priority: 0 });
    await enqueueRaw(db, "a", 1);
    const me = new Speaker(db);
    const heard = await me.say({ remainingMs: 100_000 });
    expect(heard.tasks.map((task) => task.identifier)).toEqual(["a"]);
    expect(heard.more).toBe(false);
    expect(await db.sql("SELECT count(*)::int AS n FROM task WHERE attempt = 0")).toEqual([{ n: 6 }]);
  });

  test("an unknown release is told so, and nothing is made", async () => {
    const me = new Speaker(db, { release: "r9" });
    expect((await me.say()).status).toBe("unknown_release");
    expect(await db.sql("SELECT 1 FROM heartbeat")).toHaveLength(0);
  });

  test("an answer is bounded in bytes, and the first task comes all the same", async () => {
    await enqueueRaw(db, "a", 10);
    const me = new Speaker(db);
    expect((await me.say({ bytes: 1 })).tasks).toHaveLength(1);
    const second = await me.say({ bytes: 1000 });
    expect(second.tasks.length).toBeGreaterThan(1);
    expect(second.tasks.length).toBeLessThan(9);
    expect(second.more).toBe(true);
  });

  test("more is said exactly when something was left", async () => {
    await enqueueRaw(db, "a", 4);
    const me = new Speaker(db);
    expect(await me.say({ want: 3 })).toMatchObject({ more: true });
    expect(await me.say({ want: 1 })).toMatchObject({ more: false, repeated: false });
    // Repeated, it does not know any more.
    expect(await me.repeat({ want: 1 })).toMatchObject({ repeated: true });
  });

  test("concurrent claims share the tasks: each goes to one, none is left", async () => {
    await enqueueRaw(db, "a", 400);
    await enqueueRaw(db, "b", 400);
    const speakers = Array.from({ length: 8 }, (_, slot) => new Speaker(db, { slot }));
    const told: string[] = [];
    for (let round = 0; round < 10; round += 1) {
      const answers = await Promise.all(speakers.map((speaker) => speaker.say({ want: 20 })));
      for (const { tasks } of answers) told.push(...tasks.map((task) => task.id));
      if (answers.every(({ tasks }) => tasks.length === 0)) break;
    }
    expect(told).toHaveLength(800);
    expect(new Set(told).size).toBe(800);
  });

  test("many identifiers, few of them busy: claims are in one order over all of them, whatever the share of each", async () => {
    const names = Array.from({ length: 25 }, (_, n) => `kind.${n}`);
    await register(db, "many", Object.fromEntries(names.map((name) => [name, {}])));
    // Some have hundreds in a row, some a few anywhere; equal due times among them.
    await db.sql(
      `INSERT INTO task (identifier, payload, priority, scheduled_for)
      SELECT 'kind.' || floor(25 * power(random(), 4)), '{}', (ARRAY[25, 50])[1 + floor(random() * 2)], now() - interval '1 hour' + floor(random() * 200) * interval '1 second'
      FROM generate_series(1, 1500)`,
    );
    await db.sql("UPDATE task SET identifier = 'kind.24', scheduled_for = now() - interval '2 hours' WHERE id <= 300");
    const order = (await db.sql<{ id: string }>("SELECT id FROM task ORDER BY priority, scheduled_for, id")).map(
      ({ id }) => id,
    );
    const me = new Speaker(db, { release: "many" });
    const told: string[] = [];
    for (let more = true; more; ) {
      const answer = await me.say({ want: 1 + Math.floor(Math.random() * 120) });
      told.push(...answer.tasks.map(({ id }) => id));
      more = answer.more;
    }
    expect(told).toEqual(order);
  });

  test("several identifiers: a claim is full and in order beside another one, keeps to its bytes and to limits, and holds no more than it told", async () => {
    await db.database.query(registerRelease, {
      request: JSON.stringify({
        release: "limited",
        tasks: ["a", "b", "c"].map((identifier) => ({
          identifier,
          timeoutMs: 60_000,
          maxAttempts: 3,
          ...(identifier === "c" && { concurrency: 2 }),
        })),
      }),
    });
    // c, a, b in turn, a second apart; of b the first two are large.
    await db.sql(
      `INSERT INTO task (identifier, payload, scheduled_for)
      SELECT (ARRAY['c', 'a', 'b'])[1 + n % 3], CASE WHEN n IN (2, 5) THEN jsonb_build_object('text', repeat('x', 3000)) ELSE '{}' END, now() - interval '1 hour' + n * interval '1 second'
      FROM generate_series(0, 59) AS n ORDER BY n`,
    );
    const ids = ({ tasks }: { tasks: readonly { id: string }[] }) => tasks.map(({ id }) => Number(id));
    const other = await db.client();
    await other.query("BEGIN");
    await other.query("SELECT FROM task WHERE id IN (2, 3) FOR UPDATE");
    const me = new Speaker(db, { release: "limited" });
    const first = await me.say({ want: 4 });
    expect(ids(first)).toEqual([1, 4, 5, 6]);
    await other.query("ROLLBACK");
    const second = await me.say({
      want: 4,
      results: first.tasks.filter(({ identifier }) => identifier === "c").map(success),
    });
    expect(ids(second)).toEqual([2, 3, 7, 8]);
    // A byte limit ends it at the task that does not fit, however many small ones stand behind.
    await db.sql("UPDATE task SET payload = jsonb_build_object('text', repeat('x', 3000)) WHERE id = 11");
    const third = await me.say({ want: 30, bytes: 2500 });
    expect(ids(third)).toEqual([9, 10]);
    expect(third.more).toBe(true);
    expect(await db.sql("SELECT CAST(id AS integer) AS id FROM task WHERE held_by IS NOT NULL ORDER BY id")).toEqual(
      [2, 3, 5, 6, 7, 8, 9, 10].map((id) => ({ id })),
    );
    const rest = await me.say({ want: 100 });
    expect(ids(rest)).toEqual(Array.from({ length: 50 }, (_, n) => n + 11).filter((id) => id % 3 !== 1));
    expect(rest.more).toBe(false);
  });

  test("several identifiers: one large task in front does not make the claim small", async () => {
    const names = ["a", "b", "c", "d", "e", "f"];
    await register(db, "six", Object.fromEntries(names.map((name) => [name, {}])));
    // Each in turn, a second apart; three like the first would fit into the answer, and all that are small.
    await db.sql(
      `INSERT INTO task (identifier, payload, scheduled_for)
      SELECT (ARRAY['a', 'b', 'c', 'd', 'e', 'f'])[1 + n % 6], CASE n WHEN 0 THEN json_build_object('text', repeat('x', 5000)) ELSE '{}' END, now() - interval '1 hour' + n * interval '1 second'
      FROM generate_series(0, 47) AS n ORDER BY n`,
    );
    const me = new Speaker(db, { release: "six" });
    const first = await me.say({ want: 40, bytes: 18_000 });
    expect(first.tasks.map(({ id }) => Number(id))).toEqual(Array.from({ length: 40 }, (_, n) => n + 1));
    expect(first.more).toBe(true);
    const rest = await me.say({ want: 40, bytes: 18_000 });
    expect(rest.tasks.map(({ id }) => Number(id))).toEqual([41, 42, 43, 44, 45, 46, 47, 48]);
    expect(rest.more).toBe(false);
  });

  test("many identifiers: where the first tasks are locked, a claim takes the next ones", async () => {
    const names = Array.from({ length: 20 }, (_, n) => `kind.${n}`);
    await register(db, "twenty", Object.fromEntries(names.map((name) => [name, {}])));
    await db.sql(
      `INSERT INTO task (identifier, payload, scheduled_for)
      SELECT 'kind.' || n, '{}', now() - interval '1 hour' + n * interval '1 second' FROM generate_series(0, 19) AS n ORDER BY n`,
    );
    const other = await db.client();
    await other.query("BEGIN");
    await other.query("SELECT FROM task WHERE id <= 3 FOR UPDATE");
    const me = new Speaker(db, { release: "twenty" });
    expect((await me.say({ want: 2 })).tasks.map(({ id }) => Number(id))).toEqual([4, 5]);
    await other.query("COMMIT");
    expect((await me.say({ want: 4 })).tasks.map(({ id }) => Number(id))).toEqual([1, 2, 3, 6]);
  });

  test.each([
    2, 7, 8, 9, 31, 32, 33, 70, 150,
  ])("%i identifiers: a claim of any size takes the first that are free, within limits and bytes", async (identifiers) => {
    const names = Array.from({ length: identifiers }, (_, n) => `kind.${n}`);
    const seed = Math.random();
    const client = await db.client();
    const other = await db.client();
    for (const one of [client, other]) await one.query("SELECT setseed($1)", [seed]);
    // Bursts and equal due times; of every fourth identifier three may run. Others are claiming some of the rest.
    await client.query(
      `INSERT INTO task (identifier, payload, scheduled_for)
      SELECT 'kind.' || CASE WHEN random() < 0.5 THEN n % $1 ELSE (n / 40) % $1 END, json_build_object('text', repeat('x', CAST(1000 * random() ^ 4 AS integer))),
        now() - interval '1 hour' + floor(n * random() / 3) * interval '1 second'
      FROM generate_series(0, 1499) AS n`,
      [identifiers],
    );
    const limited = names.filter((_, n) => n % 4 === 3);
    const rooms = JSON.stringify(Object.fromEntries(limited.map((name) => [name, 3])));
    await other.query("BEGIN");
    await other.query("SELECT FROM task WHERE identifier <> ALL ($1) AND random() < 0.3 FOR UPDATE", [limited]);
    const claims = [];
    for (const want of [1, 2, identifiers - 1, identifiers, identifiers + 1, 300])
      for (const bytes of [3000, 40_000, 10_000_000]) {
        await client.query("BEGIN");
        const { rows: free } = await client.query(
          `SELECT CAST(id AS integer) AS id, running <= $3 OR turn = 1 AS fits FROM (
            SELECT *, sum(bytes) OVER in_order AS running, row_number() OVER in_order AS turn FROM (
              SELECT id, scheduled_for, bytes + 300 AS bytes, row_number() OVER (PARTITION BY identifier ORDER BY scheduled_for, id) AS place, identifier = ANY ($1) AS limited
              FROM (SELECT * FROM task FOR UPDATE SKIP LOCKED) AS free) AS placed
            WHERE NOT limited OR place <= 3 WINDOW in_order AS (ORDER BY scheduled_for, id)) AS allowed
          ORDER BY turn LIMIT $2`,
          [limited, want, bytes],
        );
        await client.query("ROLLBACK");
        await client.query("BEGIN");
        const { rows } = await client.query("SELECT ids FROM pick_tasks($1, clock_timestamp(), $2, $3, '[]', $4)", [
          names,
          want,
          bytes,
          rooms,
        ]);
        await client.query("ROLLBACK");
        claims.push({
          want,
          bytes,
          ids: rows[0].ids.map(Number),
          first: free.filter((task) => task.fits).map(({ id }) => id),
        });
      }
    await other.query("ROLLBACK");
    for (const { want, bytes, ids, first } of claims)
      expect(ids, `${want} within ${bytes}, seed ${seed}`).toEqual(first);
  });

  test("several identifiers: a claim is planned once a connection, of up to 32 and of as many as are wanted", async () => {
    await db.sql(
      `INSERT INTO task (identifier, payload, scheduled_for)
      SELECT 'kind.' || n % 40, '{}', now() - interval '1 hour' + n * interval '1 second' FROM generate_series(0, 399) AS n`,
    );
    // A new look at its statistics would plan anew.
    await db.sql("ALTER TABLE task SET (autovacuum_enabled = off)");
    const client = await db.client();
    let plans = 0;
    client.on("notice", ({ message }) => (plans += message === "PLANNER STATISTICS" ? 1 : 0));
    await client.query("SET client_min_messages = log; SET log_planner_stats = on");
    const plansOf = async (identifiers: number, want: number, rooms = {}): Promise<number> => {
      plans = 0;
      const names = Array.from({ length: identifiers }, (_, n) => `kind.${n}`);
      const { rows } = await client.query(
        "SELECT cardinality(ids) AS claimed FROM pick_tasks($1, clock_timestamp(), $2, 480000, '[]', $3)",
        [names, want, JSON.stringify(rooms)],
      );
      expect(rows).toEqual([{ claimed: want }]);
      return plans;
    };
    const claims: [identifiers: number, want: number][] = [
      [3, 10],
      [8, 10],
      [20, 10],
      [32, 50],
      [40, 10],
    ];
    for (const [identifiers, want] of claims) await plansOf(identifiers, want);
    // The statement that calls is planned each time.
    for (const [identifiers, want] of claims) expect(await plansOf(identifiers, want)).toBe(1);
    await plansOf(33, 50);
    expect(await plansOf(33, 50)).toBeGreaterThan(1);
    // Those without room are no part of it.
    const full = Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`kind.${n}`, 0]));
    await plansOf(33, 20, full);
    expect(await plansOf(33, 20, full)).toBe(1);
    await db.sql("ALTER TABLE task RESET (autovacuum_enabled)");
  });

  test("several identifiers: large tasks in front of small ones take few rounds", async () => {
    const client = await db.client();
    const names = Array.from({ length: 20 }, (_, n) => `kind.${n}`);
    const cost = async (large: number): Promise<number> => {
      await db.sql("TRUNCATE task");
      await db.sql(
        `INSERT INTO task (identifier, payload, scheduled_for)
        SELECT 'kind.' || n % 20, CASE WHEN n < $1 THEN json_build_object('text', repeat('x', 48000)) ELSE '{}' END, now() - interval '1 hour' + n * interval '1 second'
        FROM generate_series(0, 399) AS n`,
        [large],
      );
      const times: number[] = [];
      for (let round = 0; round < 5; round += 1) {
        await client.query("BEGIN");
        const startedAt = performance.now();
        const { rows } = await client.query(
          "SELECT cardinality(ids) AS claimed FROM pick_tasks($1, clock_timestamp(), 200, 480000, '[]', '{}')",
          [names],
        );
        times.push(performance.now() - startedAt);
        await client.query("ROLLBACK");
        expect(rows[0].claimed).toBeGreaterThan(100);
      }
      return Math.min(...times);
    };
    await cost(0);
    // A round for each small one would take forty times as long.
    expect((await cost(9)) / (await cost(0))).toBeLessThan(10);
  });

  test("many identifiers: what a claim costs grows with their number, not with what is due of each", async () => {
    await db.sql(
      `INSERT INTO task (identifier, payload, scheduled_for)
      SELECT 'kind.' || n % 500, '{}', now() - interval '1 hour' + n * interval '1 millisecond' FROM generate_series(0, 9999) AS n`,
    );
    const client = await db.client();
    const claim = async (identifiers: number): Promise<number> => {
      const names = Array.from({ length: identifiers }, (_, n) => `kind.${n}`);
      await client.query("BEGIN");
      const startedAt = performance.now();
      const { rows } = await client.query(
        "SELECT cardinality(ids) AS claimed FROM pick_tasks($1, clock_timestamp(), 2000, 100000000, '[]', '{}')",
        [names],
      );
      const tookMs = performance.now() - startedAt;
      await client.query("ROLLBACK");
      expect(rows).toEqual([{ claimed: 2000 }]);
      return tookMs;
    };
    // Five times as many; a plan that reads the index again for each row takes fifty times as long.
    expect(
      await ratio(
        () => claim(500),
        () => claim(100),
      ),
    ).toBeLessThan(15);
  });

  test("a claim passes over what another is claiming at the moment, and is full all the same", async () => {
    const ids = await enqueueRaw(db, "a", 12);
    const other = await db.client();
    await other.query("BEGIN");
    await other.query("SELECT FROM task WHERE id <= $1 FOR UPDATE", [ids[4]]);
    const me = new Speaker(db);
    const { tasks, more } = await me.say({ want: 5 });
    expect(tasks.map(({ id }) => id)).toEqual(ids.slice(5, 10));
    expect(more).toBe(true);
    expect((await me.say({ want: 5 })).tasks.map(({ id }) => id)).toEqual(ids.slice(10));
    await other.query("ROLLBACK");
    expect((await me.say({ want: 5 })).tasks.map(({ id }) => id)).toEqual(ids.slice(0, 5));
  });

  test("what comes in place of what another is claiming is weighed again", async () => {
    const small = await enqueueRaw(db, "a", 3);
    const large = await enqueueRaw(db, "a", 3, { payloads: Array(3).fill({ text: "x".repeat(2000) }) });
    const other = await db.client();
    await other.query("BEGIN");
    await other.query("SELECT FROM task WHERE id <= $1 FOR UPDATE", [small[2]]);
    const me = new Speaker(db);
    const first = await me.say({ want: 3, bytes: 3000 });
    expect(first.tasks.map(({ id }) => id)).toEqual([large[0]]);
    expect(first.more).toBe(true);
    await other.query("ROLLBACK");
    const rest = await me.say({ want: 10 });
    expect(rest.tasks.map(({ id }) => id)).toEqual([...small, ...large.slice(1)]);
    expect(rest.more).toBe(false);
  });

  test("an answer packs many tasks into a row, none over the 64 KB of the Data API", async () => {
    await enqueueRaw(db, "a", 500);
    const rowsOf = async (me: Speaker): Promise<string[]> => {
      me.seq += 1;
      const request = JSON.stringify(me.request({ want: 500 }));
      return (await db.database.query(exchange, { request })).map(({ answer }) => answer);
    };
    const small = await rowsOf(new Speaker(db));
    expect(small.length).toBeLessThan(20);
    expect(small.slice(0, -1).flatMap((row) => JSON.parse(`[${row}]`))).toHaveLength(2 * 500);
    // Each fills the last byte of its row's part before the largest payload comes on top.
    await enqueueRaw(db, "b", 40, {
      payloads: Array.from({ length: 40 }, (_, n) => ({ text: "x".repeat(n % 2 === 0 ? 7800 : 49_000) })),
    });
    const large = await rowsOf(new Speaker(db, { slot: 1 }));
    expect(large.length).toBeGreaterThan(8);
    for (const row of large) expect(Buffer.byteLength(row)).toBeLessThan(64 * 1024);
  });

  test("release 0.1.0 is answered as it expects while it still runs: the exchange first, then a row a task in order", async () => {
    const [late, early] = [await enqueueRaw(db, "a", 1), await enqueueRaw(db, "a", 2, { priority: 0 })];
    const old = new Speaker(db);
    const speak = async (words: object): Promise<unknown[][]> => {
      old.seq += 1;
      const request = { ...old.request(), ...words };
      const rows = await db.sql<{ answer: string }>("SELECT exchange_v1($1) AS answer", [JSON.stringify(request)]);
      return rows.map(({ answer }) => JSON.parse(answer));
    };
    const [header, ...tasks] = await speak({ want: 3 });
    expect(header).toMatchObject({ status: "ok", claimed: 3 });
    expect(tasks.map(([id]) => id)).toEqual([...early, ...late]);
    const results = tasks.map(([id, , attempt]) => success({ id: id as string, attempt: attempt as number }));
    expect(await speak({ acked: 1, results })).toMatchObject([{ status: "ok", succeeded: 3, stale: 0 }]);
  });

  test("what succeeded and returned something, what did not and what failed are handed in together", async () => {
    await enqueueRaw(db, "a", 3);
    const me = new Speaker(db);
    const [plain, kept, failed] = (await me.say()).tasks;
    const results = [success(plain!), { ...success(kept!), value: { sent: true } }, failure(failed!)];
    expect(await me.say({ results, want: 0 })).toMatchObject({ succeeded: 2, failed: 1, stale: 0 });
    expect(await db.sql("SELECT result, result_value FROM task_run ORDER BY task_id")).toEqual([
      { result: "SUCCESS", result_value: null },
      { result: "SUCCESS", result_value: { sent: true } },
      { result: "FAILURE", result_value: null },
    ]);
    expect(await db.sql("SELECT held FROM heartbeat")).toEqual([{ held: 0 }]);
  });

  test("where all of a batch fail or are cancelled, what each costs does not grow with their number", async () => {
    const me = new Speaker(db);
    const client = await db.client();
    await db.sql(
      `INSERT INTO task (identifier, payload, held_by, held_since, claim_seq, attempt, max_attempts)
      SELECT 'a', '{}', CAST($1 AS uuid), now(), 1, 1, 1 + n % 2 FROM generate_series(1, 5000) AS n`,
      [me.id],
    );
    const handIn = async (count: number): Promise<number> => {
      await client.query("BEGIN");
      const { rows: tasks } = await client.query(
        `SELECT jsonb_agg(jsonb_build_object('id', id, 'attempt', 1, 'outcome', CASE WHEN id % 5 = 0 THEN 'CANCELLED' ELSE 'FAILURE' END,
          'started', 2, 'finished', 1, 'delayMs', 1000, 'error', 'no')) AS results FROM (SELECT id FROM task ORDER BY id LIMIT $1) AS t`,
        [count],
      );
      const startedAt = performance.now();
      const { rows } = await client.query("SELECT * FROM record_results($1, now(), $2)", [
        me.id,
        JSON.stringify(tasks[0].results),
      ]);
      const tookMs = performance.now() - startedAt;
      await client.query("ROLLBACK");
      expect(rows).toEqual([{ succeeded: 0, failed: count, released: 0 }]);
      return tookMs / count;
    };
    // Each failure compared with each is eleven times as dear here.
    expect(
      await ratio(
        () => handIn(5000),
        () => handIn(200),
      ),
    ).toBeLessThan(5);
  });

  test("another isolation level is refused", async () => {
    const client = await db.client();
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await expect(client.query("SELECT exchange_v2('{\"results\": []}')")).rejects.toMatchObject({ code: "TP001" });
    await client.query("ROLLBACK");
  });
});
