/** What an operator lists and does, over both adapters; each action against a worker at the same moment. */
import { beforeEach, describe, expect, test } from "vitest";
import { listTasks, performAction, readAudit, showTask } from "../lib/operator.ts";
import { type Action, taskDetailSchema, tasksSchema } from "../lib/operator-schema.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";
import { enqueueRaw, failure, register, Speaker, success, type Told } from "./support/exchange.ts";

const LATER = { delayUntil: "2999-01-01T00:00:00Z" };

describe.each(ADAPTERS)("an operator over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const act = (action: object, options = {}) =>
    performAction([db.database], { dryRun: false, ...action } as Action, "ada", options);
  const states = async () =>
    Object.fromEntries(
      (
        await db.sql<{ state: string; n: number }>(
          `SELECT state, CAST(count(*) AS int) AS n FROM (
            SELECT CASE WHEN held_by IS NULL THEN 'waiting' ELSE 'running' END AS state FROM task
            UNION ALL SELECT outcome FROM failed_task) s GROUP BY 1`,
        )
      ).map(({ state, n }) => [state, n]),
    );
  const counted = async (result: string) =>
    (
      await db.sql<{ n: number }>(
        "SELECT CAST(coalesce(sum(runs), 0) AS int) AS n FROM run_counter WHERE result = $1",
        [result],
      )
    )[0]!.n;
  const ids = async (filter: object) => (await listTasks(db.database, filter)).tasks.map(({ id }) => id);

  beforeEach(async () => {
    await reset(db);
    await register(db, "r1", { greet: { maxAttempts: 1 }, other: {} });
  });

  /** 1 failed, 2 succeeded, 3 running, 4 waiting, 5 scheduled, 6 waiting of another kind with a key, 7 cancelled, 8 retrying. */
  async function oneOfEach() {
    await enqueueRaw(db, "greet", 3);
    const speaker = new Speaker(db);
    const [one, two, three] = (await speaker.say()).tasks;
    await speaker.say({ want: 0, results: [failure(one!), success(two!)] });
    await enqueueRaw(db, "greet");
    await enqueueRaw(db, "greet", 1, LATER);
    await enqueueRaw(db, "other", 1, { key: "k", onDuplicate: "keep" });
    await enqueueRaw(db, "greet", 2);
    await act({ action: "cancel", ids: ["7"] });
    await db.sql("UPDATE task SET attempt = 1, scheduled_for = 'infinity' WHERE id = 8");
    await db.sql("UPDATE task SET scheduled_for = now() + interval '1 hour' WHERE id = 8");
    return { speaker, three: three! };
  }

  test("lists tasks by each filter, newest first", async () => {
    await oneOfEach();
    const page = await listTasks(db.database, {});
    expect(tasksSchema.parse(page)).toEqual(page);
    expect(page.tasks.map(({ id, state }) => [id, state])).toEqual([
      ["8", "retrying"],
      ["6", "waiting"],
      ["5", "scheduled"],
      ["4", "waiting"],
      ["3", "running"],
    ]);
    expect(await ids({ state: "failed" })).toEqual(["1"]);
    expect(await ids({ state: "cancelled" })).toEqual(["7"]);
    expect(await ids({ state: "succeeded" })).toEqual(["2"]);
    expect(await ids({ state: "succeeded", identifier: "other" })).toEqual([]);
    expect(await ids({ state: "running" })).toEqual(["3"]);
    expect(await ids({ state: "waiting" })).toEqual(["6", "4"]);
    expect(await ids({ state: "scheduled" })).toEqual(["5"]);
    expect(await ids({ state: "retrying" })).toEqual(["8"]);
    expect(await ids({ key: "k" })).toEqual(["6"]);
    expect(await ids({ identifier: "other" })).toEqual(["6"]);
    expect(await ids({ from: "2999-01-01T00:00:00Z" })).toEqual([]);
    expect(await ids({ to: "2999-01-01T00:00:00Z", identifier: "greet" })).toEqual(["8", "5", "4", "3"]);
    expect((await listTasks(db.database, { state: "failed" })).tasks[0]).toMatchObject({ error: "Error: no" });
  });

  test.each([
    {},
    { state: "failed" },
    { state: "succeeded" },
    { state: "succeeded", identifier: "greet" },
  ])("pages of %o, by keyset, show each task once, whatever comes in between", async (filter) => {
    await enqueueRaw(db, "greet", 7);
    const speaker = new Speaker(db);
    if ("state" in filter) {
      const { tasks } = await speaker.say();
      // All in one exchange, of one moment.
      await speaker.say({
        want: 0,
        results: tasks.map((task) => (filter.state === "failed" ? failure(task) : success(task))),
      });
    }
    const seen: string[] = [];
    let cursor: string | undefined;
    for (let pages = 0; pages < 9; pages++) {
      const page = await listTasks(db.database, filter as never, { limit: 3, cursor });
      seen.push(...page.tasks.map(({ id }) => id));
      await enqueueRaw(db, "greet");
      if (page.next === null) break;
      cursor = page.next;
    }
    expect([...seen].sort()).toEqual(["1", "2", "3", "4", "5", "6", "7"]);
    expect(new Set(seen).size).toBe(7);
  });

  test("shows one task with its runs; the payload only when asked for", async () => {
    await oneOfEach();
    const failed = await showTask(db.database, "1");
    expect(taskDetailSchema.parse(failed)).toEqual(failed);
    expect(failed).toMatchObject({
      task: { state: "failed", attempt: 1 },
      runs: [
        { attempt: 1, result: "FAILURE", outcome: "FAILED", error: "Error: no", durationMs: expect.closeTo(1, 1) },
      ],
    });
    expect(failed).not.toHaveProperty("payload");
    expect(await showTask(db.database, "1", { payload: true })).toMatchObject({ payload: { n: 0 } });
    expect(await showTask(db.database, "3")).toMatchObject({
      task: { state: "running", holder: expect.any(String) },
      runs: [],
    });
    expect(await showTask(db.database, "999")).toBeNull();
  });

  test("retries failed and cancelled tasks, with all their attempts", async () => {
    await oneOfEach();
    expect(await act({ action: "retry", filter: {}, dryRun: true })).toMatchObject({ count: 1 });
    expect(await act({ action: "retry", ids: ["1", "7", "3", "4", "2"] })).toEqual({
      action: "retry",
      dryRun: false,
      count: 2,
      done: true,
    });
    expect(await showTask(db.database, "1")).toMatchObject({ task: { state: "waiting", attempt: 1, attemptsUsed: 0 } });
    expect(await act({ action: "retry", ids: ["1"] })).toMatchObject({ count: 0 });
  });

  test.each([
    ["COMMIT", ["k1"], ["k1", "k2"]],
    ["ROLLBACK", [], ["k1", "k2"]],
  ])("retries the others of a batch where a producer is just storing one with the same key: %s", async (end, kept, waiting) => {
    for (const key of ["k1", "k2"])
      await enqueueRaw(db, "greet", 1, { key, onDuplicate: "keep", ...(key === "k1" ? { serialKey: "s" } : {}) });
    const [behind] = await enqueueRaw(db, "greet", 1, { serialKey: "s" });
    await act({ action: "cancel", ids: ["1", "2", behind] });
    expect(await states()).toEqual({ CANCELLED: 3 });
    const producer = await db.client();
    await producer.query("BEGIN");
    await producer.query("SELECT enqueue_task(identifier => 'greet', key => 'k1')");
    const retried = act({ action: "retry", ids: ["1", "2", behind] });
    const busy =
      "pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database() AND query LIKE '%act_on_tasks%'";
    while ((await db.sql(`SELECT FROM ${busy}`)).length === 0) {}
    await producer.query(end);
    expect(await retried).toMatchObject({ count: 3 - kept.length });
    expect((await db.sql("SELECT key FROM failed_task")).map(({ key }) => key)).toEqual(kept);
    expect((await db.sql("SELECT key FROM task WHERE key IS NOT NULL ORDER BY key")).map(({ key }) => key)).toEqual(
      waiting,
    );
    // Whoever is first of the serial key now has the turn.
    expect(await db.sql("SELECT has_turn FROM task WHERE serial_key = 's' ORDER BY id LIMIT 1")).toEqual([
      { has_turn: true },
    ]);
  });

  test("a dry run counts what the action then changes, and changes nothing", async () => {
    await oneOfEach();
    const before = await db.sql("SELECT * FROM task ORDER BY id");
    const actions = [
      { action: "run_now", filter: {} },
      { action: "set_priority", priority: 0, filter: {} },
      { action: "set_due", due: "2020-01-01T00:00:00Z", filter: { identifier: "greet" } },
      { action: "delete", filter: { state: "waiting" } },
      { action: "cancel", filter: {} },
    ];
    for (const action of actions) {
      const dry = await act({ ...action, dryRun: true });
      if (action === actions[0]) expect(await db.sql("SELECT * FROM task ORDER BY id")).toEqual(before);
      expect(await act(action), action.action).toEqual({ ...dry, dryRun: false });
      expect(dry.count).toBeGreaterThan(0);
    }
  });

  test("held tasks are never changed but by cancelling", async () => {
    const { speaker, three } = await oneOfEach();
    const held = async () => db.sql("SELECT * FROM task WHERE id = 3");
    const before = await held();
    for (const action of [
      { action: "run_now" },
      { action: "set_priority", priority: 100 },
      { action: "set_due", due: "2999-01-01T00:00:00Z" },
      { action: "delete" },
      { action: "retry" },
    ])
      expect(await act({ ...action, ids: ["3"] }), action.action).toMatchObject({ count: 0 });
    expect(await held()).toEqual(before);
    expect(await act({ action: "cancel", ids: ["3"] })).toMatchObject({ count: 1 });
    expect(await speaker.say({ want: 0 })).toMatchObject({ cancelling: ["3"] });
    expect(await speaker.say({ want: 0, results: [{ ...failure(three), outcome: "CANCELLED" }] })).toMatchObject({
      failed: 2,
    });
  });

  test("what a worker has locked is passed over, not waited for", async () => {
    await enqueueRaw(db, "greet", 2);
    const client = await db.client();
    await client.query("BEGIN");
    await client.query("SELECT FROM task WHERE id = 1 FOR UPDATE");
    expect(await act({ action: "set_priority", priority: 0, filter: {} })).toMatchObject({ count: 1 });
    expect(await act({ action: "delete", filter: {} })).toMatchObject({ count: 1 });
    await client.query("ROLLBACK");
    expect(await states()).toEqual({ waiting: 1 });
  });

  test("deleted tasks are counted, and the next of their serial key has its turn", async () => {
    await enqueueRaw(db, "greet", 3, { serialKey: "s" });
    await enqueueRaw(db, "other", 1);
    expect(await act({ action: "delete", ids: ["1", "4"] })).toMatchObject({ count: 2 });
    expect(await counted("deleted")).toBe(2);
    expect((await new Speaker(db).say()).tasks.map(({ id }) => id)).toEqual(["2"]);
  });

  test("all that match, in batches that each commit, leave one row in the audit log", async () => {
    await enqueueRaw(db, "greet", 25);
    expect(await act({ action: "delete", filter: { identifier: "greet" } }, { batch: 4 })).toMatchObject({
      count: 25,
      done: true,
    });
    const { entries, next } = await readAudit(db.database);
    expect(next).toBeNull();
    expect(entries).toEqual([
      {
        id: "1",
        at: expect.any(String),
        who: "ada",
        action: "delete",
        what: { filter: { identifier: "greet" } },
        count: 25,
      },
    ]);
  });

  test("out of time, it says that there is more, and the rest is done by the next", async () => {
    await enqueueRaw(db, "greet", 5);
    expect(await act({ action: "delete", filter: {} }, { batch: 2, actMs: 0 })).toMatchObject({ done: false });
    expect(await act({ action: "delete", filter: {} }, { batch: 2 })).toMatchObject({ done: true });
    expect(await states()).toEqual({});
  });

  test("pauses and resumes, runs, enables and disables schedules; each leaves a row", async () => {
    await db.sql(
      "INSERT INTO recurring_task (identifier, schedule, next_at) VALUES ('beat', 'every 1h', now() + interval '1 hour')",
    );
    const did = async (action: string, identifier: string) => (await act({ action, identifier })).count;
    expect(await did("pause", "greet")).toBe(1);
    expect(await did("pause", "greet")).toBe(0);
    await enqueueRaw(db, "greet");
    expect((await new Speaker(db).say()).tasks).toEqual([]);
    expect(await did("resume", "greet")).toBe(1);
    expect(await did("recurring_run", "beat")).toBe(1);
    expect(await db.sql("SELECT FROM recurring_task WHERE next_at <= now()")).toHaveLength(1);
    expect(await did("recurring_disable", "beat")).toBe(1);
    expect(await did("recurring_run", "beat")).toBe(0);
    expect(await did("recurring_enable", "beat")).toBe(1);
    expect(await did("recurring_enable", "none")).toBe(0);
    expect((await readAudit(db.database)).entries.map(({ action, count }) => [action, count]).reverse()).toEqual([
      ["pause", 1],
      ["pause", 0],
      ["resume", 1],
      ["recurring_run", 1],
      ["recurring_disable", 1],
      ["recurring_run", 0],
      ["recurring_enable", 1],
      ["recurring_enable", 0],
    ]);
  });

  test("beside workers that claim and finish, nothing is lost and nothing is done twice", async () => {
    await enqueueRaw(db, "greet", 300);
    const work = async (slot: number) => {
      const speaker = new Speaker(db, { slot });
      let results: Told[] = [];
      for (let round = 0; round < 25; round++)
        results = (await speaker.say({ results, want: 5 })).tasks.map((task, n) =>
          n % 2 ? success(task) : failure(task),
        );
      await speaker.say({ results, want: 0, ending: true });
    };
    const meddle = async () => {
      const answers = [];
      for (const action of ["delete", "cancel", "retry", "set_priority", "delete", "retry", "cancel"])
        answers.push(
          await act(
            {
              action,
              priority: 0,
              filter: { to: "2999-01-01T00:00:00Z", ...(action === "retry" && { state: "failed" }) },
            },
            { batch: 20 },
          ),
        );
      return answers;
    };
    await Promise.all([work(0), work(1), meddle()]);
    const [{ succeeded }] = (await db.sql<{ succeeded: number }>(
      "SELECT CAST(count(*) AS int) AS succeeded FROM task_run WHERE task_outcome = 'SUCCEEDED'",
    )) as [{ succeeded: number }];
    const kept = Object.values(await states()).reduce((sum, n) => sum + n, 0);
    expect(kept + succeeded + (await counted("deleted"))).toBe(300);
  });
});
