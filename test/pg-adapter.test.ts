import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { afterAll, expect, test } from "vitest";
import { connectPg } from "../lib/database/pg.ts";
import { countWaiting } from "../lib/sql/tasks.ts";
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
