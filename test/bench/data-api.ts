import { Agent, request } from "node:http";
import { ExecuteStatementCommand, type Field, RDSDataClient } from "@aws-sdk/client-rds-data";
import pg from "pg";
import { type LocalPostgres, startPostgres } from "../../infra/local/postgres.ts";
import { LOCAL } from "../../infra/local/stack.ts";
import { connectDataApi } from "../../lib/database/data-api.ts";
import { textFor } from "../../lib/database/parameters.ts";
import { connectPg } from "../../lib/database/pg.ts";
import type { Database, Statement } from "../../lib/database/port.ts";
import { migrate } from "../../lib/sql/migrate.ts";
import type { TestDatabase } from "../support/database.ts";
import { enqueueRaw, register, Speaker, success } from "../support/exchange.ts";
import { signed } from "../support/hostile-requests.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { interleaved, rounded } from "./support/measure.ts";
import { type Server, serveAnswer, serveBare, serveDataApi } from "./support/servers.ts";

export const about =
  "What the Data API stand-in costs beside Postgres itself, and the SDK beside both; beside it a bare server, the least that can stand between HTTP and Postgres (`support/bare-server.ts`). Milliseconds unless named otherwise.";

export const targets: readonly Target[] = [
  { figure: "overhead of a call", atMost: 0.35 },
  { figure: "overhead through the SDK", atMost: 0.35 },
  { figure: "throughput lost, raw HTTP, %", atMost: 25 },
];

const { resourceArn, secretArn, region } = LOCAL;
const sql = "SELECT :n + 1 AS n";
const parameters = [{ name: "n", value: { longValue: 1 } }];

export async function bench({ quick }: BenchOptions): Promise<Figures> {
  const share = quick ? 0.05 : 1;
  const postgres = await startPostgres({ settings: { fsync: "off" } });
  const api = await serveDataApi(postgres.url);
  // Rotating, two backends take turns, and what one had in the processor's caches the other has thrown out.
  const warm = await serveDataApi(postgres.url, "--no-rotate");
  const bare = await serveBare(postgres.url);
  const pool = new pg.Pool({ connectionString: postgres.url, max: 8 });
  try {
    return {
      ...(await perCall(api, bare, pool, share)),
      ...(await throughSdk(api, bare, share)),
      ...(await together(api, share)),
      ...(await exchanges({ api, warm, bare }, postgres, share)),
    };
  } finally {
    await pool.end();
    await Promise.all([api, warm, bare].map((server) => server.stop()));
    await postgres.stop("immediate");
  }
}

const agent = new Agent({ keepAlive: true });

function post(port: number, body: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = { ...signed, "content-length": Buffer.byteLength(body) };
    const call = request({ port, host: "127.0.0.1", agent, method: "POST", path: "/Execute", headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
      response.on("error", reject);
    });
    call.on("error", reject);
    call.end(body);
  });
}

async function perCall(api: Server, bare: Server, pool: pg.Pool, share: number): Promise<Figures> {
  const body = JSON.stringify({ resourceArn, secretArn, sql, parameters });
  const times = await interleaved(
    {
      standIn: () => post(api.port, body),
      bare: () => post(bare.port, body),
      pool: () => pool.query("SELECT $1::int8 + 1 AS n", [1]),
    },
    { rounds: 15, calls: 300 * share, warmUp: 1000 * share },
  );
  return {
    "one call, raw HTTP to the stand-in": rounded(times.standIn.median),
    "the same statement, pg pool": rounded(times.pool.median),
    "the same, raw HTTP to the bare server": rounded(times.bare.median),
    "overhead of a call": rounded(times.standIn.median - times.pool.median),
    "overhead of a call, fastest tenth": rounded(times.standIn.tenth - times.pool.tenth),
    "overhead of a call, bare server": rounded(times.bare.median - times.pool.median),
  };
}

async function throughSdk(api: Server, bare: Server, share: number): Promise<Figures> {
  const answer = JSON.stringify({ records: [[{ longValue: 2 }]], numberOfRecordsUpdated: 0 });
  const empty = await serveAnswer(answer);
  const calling = (endpoint: string) => {
    const client = new RDSDataClient({
      endpoint,
      region,
      credentials: { accessKeyId: "bench", secretAccessKey: "bench" },
    });
    return () => client.send(new ExecuteStatementCommand({ resourceArn, secretArn, sql, parameters }));
  };
  const times = await interleaved(
    { standIn: calling(api.endpoint), bare: calling(bare.endpoint), empty: calling(empty.endpoint) },
    { rounds: 15, calls: 200 * share, warmUp: 1000 * share },
  );
  await empty.stop();
  return {
    "one call, SDK to the stand-in": rounded(times.standIn.median),
    "the same, SDK to an empty server": rounded(times.empty.median),
    "overhead through the SDK": rounded(times.standIn.median - times.empty.median),
    "overhead through the SDK, fastest tenth": rounded(times.standIn.tenth - times.empty.tenth),
    "overhead through the SDK, bare server": rounded(times.bare.median - times.empty.median),
  };
}

/** Ideally 1: eight callers take as long as one does. 8 would be one after the other. */
async function together(api: Server, share: number): Promise<Figures> {
  const body = JSON.stringify({ resourceArn, secretArn, sql: "SELECT pg_sleep(0.02)::text" });
  const calls = (clients: number) => () => Promise.all(Array.from({ length: clients }, () => post(api.port, body)));
  const times = await interleaved({ one: calls(1), eight: calls(8) }, { rounds: 10, calls: 20 * share });
  return { "8 clients at once against 1, ratio": rounded(times.eight.median / times.one.median, 2) };
}

const batch = 100;

/** The statements over raw HTTP: what is left of the client without the SDK. */
const rawDatabase = (api: Server, schema: string, texts = new Map<Statement, string>()) => ({
  async query(statement: Statement, values: Record<string, string>) {
    // Once, as the adapters do.
    if (!texts.has(statement)) texts.set(statement, textFor(statement.sql, schema));
    const body = JSON.stringify({
      resourceArn,
      secretArn,
      sql: texts.get(statement),
      parameters: Object.entries(values).map(([name, stringValue]) => ({ name, value: { stringValue } })),
    });
    const { records } = JSON.parse(await post(api.port, body)) as { records: Field[][] };
    return records.map((record) => ({ [statement.columns[0]!]: record[0]!.stringValue }));
  },
});

/** Each exchange hands in 100 results and claims the next 100. */
async function exchanges(
  { api, warm, bare }: Record<"api" | "warm" | "bare", Server>,
  postgres: LocalPostgres,
  share: number,
): Promise<Figures> {
  process.env.AWS_ACCESS_KEY_ID ??= "bench";
  process.env.AWS_SECRET_ACCESS_KEY ??= "bench";
  const rounds = 16;
  const calls = 20 * share;
  const warmUp = 40 * share;
  const speaking = async (schema: string, connect: (schema: string) => Pick<Database, "query">) => {
    const setUp = connectPg({ url: postgres.url, schema });
    await migrate(setUp);
    const filled = { database: setUp } as TestDatabase;
    await register(filled, "r1", { bench: {} });
    for (let tasks = 0; tasks < (rounds * calls + warmUp + 2) * batch; tasks += 2000)
      await enqueueRaw(filled, "bench", 2000);
    await setUp.close();
    const speaker = new Speaker({ database: connect(schema) } as TestDatabase);
    let held = (await speaker.say({ want: batch })).tasks;
    return async () => {
      held = (await speaker.say({ want: batch, results: held.map(success) })).tasks;
      if (held.length !== batch) throw new Error(`Claimed ${held.length} of ${batch}.`);
    };
  };
  const open: Database[] = [];
  const opened = (database: Database) => {
    open.push(database);
    return database;
  };
  const contestants = {
    sdk: await speaking("bench_sdk", (schema) => opened(connectDataApi({ ...LOCAL, schema, endpoint: api.endpoint }))),
    raw: await speaking("bench_raw", (schema) => rawDatabase(api, schema) as unknown as Database),
    warm: await speaking("bench_warm", (schema) => rawDatabase(warm, schema) as unknown as Database),
    bare: await speaking("bench_bare", (schema) => rawDatabase(bare, schema) as unknown as Database),
    pg: await speaking("bench_pg", (schema) => opened(connectPg({ url: postgres.url, schema }))),
  };
  const times = await interleaved(contestants, { rounds, calls, warmUp });
  await Promise.all(open.map((database) => database.close()));
  const rate = (of: keyof typeof times) => Math.round((batch * 1000) / times[of].median);
  const lost = (of: keyof typeof times) => rounded((1 - times.pg.median / times[of].median) * 100, 1);
  return {
    "tasks a second, exchange of 100, pg": rate("pg"),
    "tasks a second, exchange of 100, raw HTTP": rate("raw"),
    "tasks a second, exchange of 100, raw HTTP, one session": rate("warm"),
    "tasks a second, exchange of 100, raw HTTP to the bare server": rate("bare"),
    "tasks a second, exchange of 100, SDK": rate("sdk"),
    "throughput lost, raw HTTP, %": lost("raw"),
    "throughput lost, raw HTTP, one session, %": lost("warm"),
    "throughput lost, raw HTTP to the bare server, %": lost("bare"),
    "throughput lost, SDK, %": lost("sdk"),
  };
}
