/** The packaged processor as Lambda runs it: one process, one invocation at a time, a time limit, frozen in between. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { deliverWebhook } from "../functions/tasks/definitions.ts";
import { createTaskClient } from "../lib/index.ts";
import { temporaryFolder } from "./support/command.ts";
import { openDatabase, reset, type TestDatabase } from "./support/database.ts";
import {
  GRACE_MS,
  LOOP,
  type Packaged,
  packageProcessor,
  type Receiver,
  startPackaged,
  startReceiver,
} from "./support/package.ts";
import type { Sandbox } from "./support/runtime-api.ts";
import { until } from "./support/stint.ts";

const SLOW_MS = 180_000;
const folder = temporaryFolder();
const runtime = resolve(import.meta.dirname, "runtime");
/** JavaScript of the client that Lambda itself runs; its native part has a stand-in. */
const LAMBDAS_OWN = ["--require", join(runtime, "native.cjs"), join(runtime, "node_modules/aws-lambda-ric/index.mjs")];

let packaged: Packaged;

beforeAll(async () => {
  packaged = await packageProcessor(folder);
  if (existsSync(join(runtime, "node_modules/.package-lock.json"))) return;
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
  const { status, stderr } = spawnSync("npm", args, { cwd: runtime, encoding: "utf8" });
  if (status !== 0) throw new Error(`npm ci in test/runtime: ${stderr}`);
}, SLOW_MS);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const start = (db: TestDatabase, client: readonly string[], timeoutMs?: number): Promise<Sandbox> =>
  startPackaged(packaged, db, { client, ...(timeoutMs !== undefined && { timeoutMs }) });

const enqueue = (db: TestDatabase, url: string, count = 1) =>
  createTaskClient({ database: db.database }).enqueueMany(
    deliverWebhook,
    Array.from({ length: count }, (_, order) => ({ url, event: "order.paid", body: { order } })),
  );

const runs = (db: TestDatabase) =>
  db.sql<{ result: string; attempt: number }>(
    "SELECT result, attempt FROM task_run WHERE identifier = $1 ORDER BY task_id, attempt",
    [deliverWebhook.identifier],
  );

/** The holder has been silent for longer than the grace period: its row moves, not the clock. */
const silence = (db: TestDatabase) =>
  db.sql(
    `UPDATE heartbeat SET last_seen_at = last_seen_at - interval '1 minute', seen_since = seen_since - interval '1 minute'
    WHERE ended_at IS NULL AND expired_at IS NULL`,
  );

/** Right after an exchange. */
async function betweenExchanges(db: TestDatabase): Promise<void> {
  const spoken = async () => Number((await db.sql<{ seq: number }>("SELECT max(seq) AS seq FROM heartbeat"))[0]!.seq);
  const seq = await spoken();
  await until("it has just been answered", async () => (await spoken()) > seq);
}

const waiting = (db: TestDatabase) =>
  db.sql("SELECT held_by IS NOT NULL AS held FROM task WHERE identifier = $1", [deliverWebhook.identifier]);

test("the processor's package holds its own parts and nobody else's, each with its map", () => {
  expect(packaged.handler).toBe("functions/processor.handler");
  const files = readdirSync(packaged.folder, { recursive: true, encoding: "utf8" }).filter(
    (path) => path !== "functions",
  );
  expect(files.filter((path) => !/^functions\/processor\.(\w[\w-]*\.)?mjs(\.map)?$/.test(path))).toEqual([]);
  const modules = files.filter((path) => path.endsWith(".mjs"));
  expect(modules.filter((path) => !files.includes(`${path}.map`))).toEqual([]);
  expect(modules.some((path) => path.includes(".data-api-"))).toBe(true);
});

describe.each([
  ["the tests' own loop", LOOP],
  ["Lambda's own client", LAMBDAS_OWN],
])("%s", async (_name, client) => {
  const db = await openDatabase("data-api");
  const [hooks, holding] = [await startReceiver(), await startReceiver()];
  beforeEach(() => reset(db));

  test("warm starts: several invocations in one process, nothing goes on between them", async () => {
    const sandbox = await start(db, client);
    for (const invocation of [1, 2, 3]) {
      await enqueue(db, `${hooks.url}/`, 5);
      const { status, body, stillActive } = await sandbox.invoke({ slot: 0 });
      expect({ status, stillActive }).toEqual({ status: "succeeded", stillActive: "" });
      expect(body).toMatchObject({ slot: 0, epoch: invocation, failed: 0, left: "nothing_due" });
      expect(body.succeeded).toBeGreaterThanOrEqual(5);
      // Not frozen, as a process may stay for a while: it does nothing all the same.
      const before = [sandbox.output, await db.sql("SELECT * FROM heartbeat ORDER BY started_at")];
      sandbox.thaw();
      await new Promise((done) => setTimeout(done, 300));
      expect([sandbox.output, await db.sql("SELECT * FROM heartbeat ORDER BY started_at")]).toEqual(before);
    }
    expect(await runs(db)).toEqual(Array.from({ length: 15 }, () => ({ result: "SUCCESS", attempt: 1 })));
    expect(await waiting(db)).toEqual([]);
  });

  test("an error is answered with its code in front, and the next invocation works", async () => {
    const sandbox = await start(db, client);
    const refused = await sandbox.invoke({ slot: 99 });
    expect(refused.status).toBe("failed");
    expect(refused.body.errorMessage).toMatch(/^slot_invalid: /);
    expect((await sandbox.invoke({ slot: 0 })).body).toMatchObject({ left: "nothing_due" });
  });

  test("killed with a task in its hands: the next invocation rescues it and runs it", async () => {
    await enqueue(db, `${holding.url}/hold`);
    const first = await start(db, client);
    const invocation = first.invoke({ slot: 0, resident: true });
    await until("the webhook is on its way", () => holding.arrived() === 1);
    // One that is under way would be carried out after its death, and make it seem alive.
    await betweenExchanges(db);
    first.kill();
    expect((await invocation).status).toBe("stopped");
    expect(await waiting(db)).toEqual([{ held: true }]);
    await silence(db);
    const second = await start(db, client);
    const rescue = second.invoke({ slot: 0 });
    await until("it is delivered again", () => holding.arrived() === 2);
    holding.letGo();
    expect((await rescue).body).toMatchObject({ rescued: 1, left: "nothing_due" });
    expect(await runs(db)).toEqual([
      { result: "FAILURE", attempt: 1 },
      { result: "SUCCESS", attempt: 2 },
    ]);
  });
});

describe.concurrent("what takes its time", async () => {
  const places: { db: TestDatabase; hooks: Receiver }[] = [];
  for (let n = 0; n < 3; n += 1) places.push({ db: await openDatabase("data-api"), hooks: await startReceiver() });

  test("blocked beyond its time limit it is stopped hard, and its task is not lost", async () => {
    const { db, hooks } = places[0]!;
    await enqueue(db, `${hooks.url}/hold`);
    // The task takes ten seconds at the most, and has to fit when it is claimed.
    const sandbox = await start(db, LOOP, 20_000);
    const invocation = sandbox.invoke({ slot: 0, resident: true });
    await until("the webhook is on its way", () => hooks.arrived() === 1);
    sandbox.block();
    expect((await invocation).status).toBe("stopped");
    expect(await waiting(db)).toEqual([{ held: true }]);
    await silence(db);
    const next = (await start(db, LOOP)).invoke({ slot: 0 });
    await until("it is delivered again", () => hooks.arrived() === 2);
    hooks.letGo();
    expect((await next).body).toMatchObject({ rescued: 1 });
    expect(await waiting(db)).toEqual([]);
  });

  test("a resident told that its time is short leaves before its limit, and releases what it cannot finish", async () => {
    const { db, hooks } = places[1]!;
    await enqueue(db, `${hooks.url}/hold`);
    const sandbox = await start(db, LOOP, 12_000);
    const { status, body } = await sandbox.invoke({ slot: 0, resident: true });
    expect({ status, left: body.left }).toEqual({ status: "succeeded", left: "out_of_time" });
    expect(await waiting(db)).toEqual([{ held: false }]);
  });

  test("frozen with a task in its hands and thawed after its lease: it stops, and its result changes nothing", async () => {
    const { db, hooks } = places[2]!;
    await enqueue(db, `${hooks.url}/hold`);
    const frozen = await start(db, LOOP);
    const invocation = frozen.invoke({ slot: 0, resident: true });
    await until("the webhook is on its way", () => hooks.arrived() === 1);
    // One that is being sent goes out when it thaws, and is refused.
    await betweenExchanges(db);
    frozen.freeze();
    await silence(db);
    const other = (await start(db, LOOP)).invoke({ slot: 1 });
    await until("another delivers it", () => hooks.arrived() === 2);
    hooks.letGo();
    // A recurring task of its own may have come due as well.
    const { body: said } = await other;
    const succeeded = await db.sql("SELECT FROM task_run WHERE result = 'SUCCESS'");
    expect(said).toMatchObject({ rescued: 1, succeeded: succeeded.length });
    // By now more than the grace period has passed for the frozen one; its handler finds its answer when it thaws.
    await new Promise((done) => setTimeout(done, GRACE_MS));
    const before = await db.sql("SELECT * FROM heartbeat, slot ORDER BY 1, number");
    await enqueue(db, `${hooks.url}/`);
    // Whatever it asks of the database would be counted.
    db.dataApi!.faults.set({ match: "exchange_v2", serverError: 1 });
    frozen.thaw();
    const { status, body } = await invocation;
    expect(db.dataApi!.faults.injected.serverError ?? 0).toBe(0);
    expect({ status, left: body.left, succeeded: body.succeeded }).toEqual({
      status: "succeeded",
      left: "lease_lost",
      succeeded: 0,
    });
    expect(await db.sql("SELECT * FROM heartbeat, slot ORDER BY 1, number")).toEqual(before);
    // What is due since then it left alone.
    expect(hooks.arrived()).toBe(2);
    expect(await waiting(db)).toEqual([{ held: false }]);
    expect(await runs(db)).toEqual([
      { result: "FAILURE", attempt: 1 },
      { result: "SUCCESS", attempt: 2 },
    ]);
  });
});
