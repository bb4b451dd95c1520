/** The stand-in's HTTP surface under 10,000 requests it was not made for. SEED=n repeats a run. */
import { Agent, request as send } from "node:http";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { afterAll, expect, test } from "vitest";
import { startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { Random } from "./chaos/random.ts";
import { openDatabase } from "./support/database.ts";
import { type HostileRequest, hostileRequest, signed } from "./support/hostile-requests.ts";
import { until } from "./support/stint.ts";

const seed = Number(process.env.SEED ?? 20261124);
const connections = 8;
const arns = { resourceArn: LOCAL.resourceArn, secretArn: LOCAL.secretArn };
const db = await openDatabase("data-api", { migrated: false });
const api = await startDataApi({
  clusters: [{ resourceArn: LOCAL.resourceArn, url: db.url }],
  maxConnections: connections,
  statementTimeoutMs: 2_000,
  transactionIdleMs: 1_000,
  requestTimeoutMs: 2_000,
});
const agent = new Agent({ keepAlive: true, maxSockets: 32 });
afterAll(async () => {
  agent.destroy();
  await api.close();
});

interface Answer {
  status: number;
  error: string | undefined;
  body: string;
}

/** Undefined: the connection was closed instead. */
const ask = ({ method, path, headers, body }: Omit<HostileRequest, "kind">) =>
  new Promise<Answer | undefined>((resolve) => {
    const call = send({ port: api.port, host: "127.0.0.1", agent, method, path, headers }, async (response) => {
      const answer = await text(response).catch(() => undefined);
      const error = response.headers["x-amzn-errortype"];
      resolve(
        answer === undefined ? undefined : { status: response.statusCode!, error: error as string, body: answer },
      );
    });
    call.on("error", () => resolve(undefined));
    call.end(body);
  });

const execute = async (sql: string) => {
  const body = Buffer.from(JSON.stringify({ ...arns, sql }));
  const answer = await ask({ method: "POST", path: "/Execute", headers: signed, body });
  expect(answer).toMatchObject({ status: 200 });
  return JSON.parse(answer!.body);
};

/** It answers, its pool is whole, no transaction is open. */
async function expectWell(): Promise<void> {
  expect(await execute("SELECT 1")).toMatchObject({ records: [[{ longValue: 1 }]] });
  const mine = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rds-data-api'";
  await until("no transaction is open", async () => {
    const open = await db.sql(`SELECT 1 ${mine} AND xact_start IS NOT NULL`);
    return open.length === 0;
  });
  // Where the machine is busy one may have ended before the last begins: again, then. A session that is lost stays lost.
  await until("as many statements run at once as there are connections", async () => {
    const all = Array.from({ length: connections }, () => execute("SELECT pg_backend_pid(), pg_sleep(0.5)::text"));
    return new Set((await Promise.all(all)).map(({ records }) => records[0][0].longValue)).size === connections;
  });
  const [row] = await db.sql<{ n: number }>(`SELECT count(*)::int AS n ${mine}`);
  expect(row!.n).toBeLessThanOrEqual(connections);
  const locks = "SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()";
  expect(await db.sql(`${locks} WHERE locktype = 'advisory'`)).toEqual([]);
}

/** What is wrong with an answer, or undefined. */
function faultOf({ kind, method }: HostileRequest, answer: Answer | undefined): string | undefined {
  if (answer === undefined) return kind === "odd headers" ? undefined : "the connection was closed";
  const { status, error, body } = answer;
  if (status === 200) return isJson(body) ? undefined : "no JSON";
  // Node's own parser refuses headers before anything of ours sees them.
  if (kind === "odd headers" && [400, 431].includes(status) && error === undefined) return undefined;
  // The backend was ended by its own statement.
  if (status === 504 && error === "DatabaseUnavailableException") return undefined;
  if (status >= 500) return `${status} ${error}`;
  if (!/^[A-Z]\w+$/.test(error ?? "")) return `no error name: ${error}`;
  if (method !== "HEAD" && (!isJson(body) || typeof JSON.parse(body).message !== "string")) return "no message";
  return undefined;
}

const isJson = (body: string) => {
  try {
    JSON.parse(body);
    return true;
  } catch {
    return false;
  }
};

const open = async (): Promise<Socket> => {
  const socket = connect(api.port, "127.0.0.1");
  socket.on("error", () => {});
  await new Promise((resolve) => socket.once("connect", resolve));
  return socket;
};

test("10,000 requests within a minute: each has its answer, and the next caller does not notice", {
  timeout: 60_000,
}, async () => {
  await db.sql("CREATE TABLE public.t (n int)");
  const random = new Random(seed);
  const wrong: string[] = [];
  const statuses = new Map<number | undefined, number>();
  const kinds = new Set<string>();
  const halves: Socket[] = [];
  let sent = 0;
  const caller = async () => {
    while (sent < 10_000) {
      const at = sent++;
      const mine = random.fork();
      if (at % 100 === 0) halves.push(await halfOpen(mine));
      const request = hostileRequest(mine, arns);
      const answer = await ask(request);
      kinds.add(request.kind);
      statuses.set(answer?.status, (statuses.get(answer?.status) ?? 0) + 1);
      const fault = faultOf(request, answer);
      if (fault)
        wrong.push(
          `#${at} ${request.kind}: ${fault}: ${request.method} ${request.path} ${request.body.subarray(0, 300)}`,
        );
    }
  };
  await Promise.all(Array.from({ length: 32 }, caller));
  expect(wrong.slice(0, 10)).toEqual([]);
  expect(kinds.size).toBe(9);
  // All sorts of answers, or the requests were not what they were meant to be.
  for (const status of [200, 400, 403, 404, 413, 431]) expect(statuses.get(status), String(status)).toBeGreaterThan(0);
  await expectWell();
  for (const socket of halves) socket.destroy();
  await expectWell();
});

/** Says half of something and stays. */
async function halfOpen(random: Random): Promise<Socket> {
  const socket = await open();
  const request = `POST /Execute HTTP/1.1\r\nHost: local\r\nContent-Length: 1000\r\n\r\n{"sql":`;
  socket.write(request.slice(0, random.below(request.length)));
  if (random.chance(0.3)) socket.end();
  return socket;
}

test("a thousand connections that all ask are all answered", async () => {
  const body = JSON.stringify({ ...arns, sql: "SELECT 1" });
  const head = Object.entries({ host: "local", ...signed, "content-length": String(body.length), connection: "close" });
  const request = `POST /Execute HTTP/1.1\r\n${head.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`;
  const sockets = await Promise.all(Array.from({ length: 1000 }, open));
  const answers = await Promise.all(
    sockets.map((socket) => {
      socket.write(request);
      return text(socket);
    }),
  );
  expect(answers.filter((answer) => !/^HTTP\/1\.1 200 [\s\S]*"longValue":1/.test(answer))).toEqual([]);
  await expectWell();
});

test("bodies that come a byte at a time are given up, and hold nobody up meanwhile", async () => {
  const slow = await Promise.all(Array.from({ length: 50 }, open));
  const answers = slow.map((socket) => text(socket));
  for (const socket of slow) socket.write("POST /Execute HTTP/1.1\r\nHost: local\r\nContent-Length: 100000\r\n\r\n");
  const drip = setInterval(() => {
    for (const socket of slow) if (socket.writable) socket.write("x");
  }, 100);
  try {
    await expectWell();
    for (const answer of await Promise.all(answers)) expect(answer).toMatch(/^HTTP\/1\.1 408/);
  } finally {
    clearInterval(drip);
  }
  await expectWell();
});
