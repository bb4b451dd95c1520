import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { afterAll, expect, test } from "vitest";
import { connectPg } from "../lib/database/pg.ts";
import type { Database, Transaction } from "../lib/database/port.ts";
import { countWaiting, enqueueTasks } from "../lib/sql/tasks.ts";
import { openDatabase } from "./support/database.ts";

const db = await openDatabase("pg");

/** A message of the server: type, length, fields. */
function fatal(state: string, text: string): Buffer {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${state}\0M${text}\0\0`);
  const head = Buffer.alloc(5);
  head.write("E");
  head.writeInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}

const { pathname, username, password, hostname, port } = new URL(db.url);
const host = decodeURIComponent(hostname);
const server = (): Socket =>
  host.startsWith("/") ? connect(`${host}/.s.PGSQL.${port}`) : connect(Number(port || 5432), host);

test("a connection that is ended in the very packet that greets it is an answer to the caller, not the end of the process", async () => {
  let greetings = 0;
  const sockets = new Set<Socket>();
  const proxy = createServer((client) => {
    const upstream = server();
    for (const socket of [client, upstream]) sockets.add(socket.on("error", () => {}));
    client.pipe(upstream);
    let greeted = false;
    upstream.on("data", (chunk) => {
      // Ready for query, idle: the last six bytes of the greeting.
      const ready = chunk.subarray(-6).equals(Buffer.from([0x5a, 0, 0, 0, 5, 0x49]));
      if (ready && !greeted) {
        greeted = true;
        greetings += 1;
        client.end(Buffer.concat([chunk, fatal("57P01", "terminating connection due to administrator command")]));
      } else client.write(chunk);
    });
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    proxy.close();
  });
  const url = `postgres://${username}:${password}@127.0.0.1:${(proxy.address() as AddressInfo).port}${pathname}`;
  const database = connectPg({ url, schema: "task_processor" });
  await expect(database.query(countWaiting, {})).rejects.toMatchObject({ code: expect.stringMatching(/^database_/) });
  expect(greetings).toBe(1);
  await database.close();
});

/** One connection, and a lock on the tasks that everything waits for. */
async function locked(): Promise<{ database: Database; unlock: () => Promise<unknown> }> {
  const database = connectPg({ url: db.url, schema: "task_processor", maxConnections: 1 });
  // Connected by now: what follows is timed.
  await database.query(countWaiting, {});
  const locker = await db.client();
  await locker.query("BEGIN; LOCK TABLE task IN ACCESS EXCLUSIVE MODE");
  return { database, unlock: () => locker.query("ROLLBACK") };
}

const enqueueIn = (transaction: Transaction) =>
  transaction.query(enqueueTasks, { request: JSON.stringify({ identifier: "a", priority: 50, payloads: [{}] }) });

test("a transaction that is out of time ends, its connection is given up, and nothing is stored", async () => {
  const { database, unlock } = await locked();
  await expect(database.transaction(enqueueIn, { timeoutMs: 200 })).rejects.toMatchObject({
    code: "database_outcome_unknown",
  });
  await unlock();
  await db.sql("BEGIN; LOCK TABLE task IN ACCESS EXCLUSIVE MODE; COMMIT");
  expect(await database.query(countWaiting, {})).toEqual([{ waiting: "0" }]);
  await database.close();
});

test("who gets no connection in time has sent nothing, and the connection that comes late is given back", async () => {
  const { database, unlock } = await locked();
  const first = database.query(countWaiting, {});
  const unavailable = { code: "database_unavailable" };
  await expect(database.query(countWaiting, {}, { timeoutMs: 100 })).rejects.toMatchObject(unavailable);
  await expect(database.transaction(enqueueIn, { timeoutMs: 100 })).rejects.toMatchObject(unavailable);
  await unlock();
  expect(await first).toEqual([{ waiting: "0" }]);
  expect(await database.query(countWaiting, {})).toEqual([{ waiting: "0" }]);
  await database.close();
});

test("a statement whose connection Postgres ends is in doubt", async () => {
  const { database, unlock } = await locked();
  const waiting = database.query(countWaiting, {});
  const doubt = expect(waiting).rejects.toMatchObject({ code: "database_outcome_unknown", sqlState: "57P01" });
  await expect
    .poll(
      () =>
        db.sql(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
        ),
      { timeout: 30_000 },
    )
    .toHaveLength(1);
  await doubt;
  await unlock();
  expect(await database.query(countWaiting, {})).toEqual([{ waiting: "0" }]);
  await database.close();
});

test("what a transaction's work throws comes out as it is, and is rolled back", async () => {
  const bug = new TypeError("a bug");
  const work = async (transaction: Transaction): Promise<never> => {
    await enqueueIn(transaction);
    throw bug;
  };
  await expect(db.database.transaction(work)).rejects.toBe(bug);
  expect(await db.database.query(countWaiting, {})).toEqual([{ waiting: "0" }]);
});

test("a connection that breaks before it is one: nothing was sent", async () => {
  const proxy = createServer((client) => void client.once("data", () => client.destroy()));
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const { port } = proxy.address() as AddressInfo;
  const database = connectPg({ url: `postgres://a:b@127.0.0.1:${port}/c`, schema: "task_processor" });
  await expect(database.query(countWaiting, {})).rejects.toMatchObject({ code: "database_unavailable" });
  await database.close();
  proxy.close();
});
