/** The tutorial's application over a real Postgres: its commands as they stand, its processor killed, its transactions rolled back. */
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { isSigned } from "../infra/local/demo/signature.ts";
import { createTaskClient, type TaskHandler } from "../lib/index.ts";
import { drainTasks } from "../lib/testing.ts";
import { createApp } from "./examples/app.ts";
import { openPool } from "./examples/pool.ts";
import { root } from "./support/command.ts";
import { openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { type Running, startNode, startStint, until } from "./support/stint.ts";

const KEY = "a key for tests";
const folder = new URL("examples/", import.meta.url);
const tutorial = readFileSync(new URL("README.md", folder), "utf8");

let db: TestDatabase;
let app: ReturnType<typeof createApp>;
let handlers: readonly TaskHandler[];
let outside: Outside;

interface Arrived {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** The mail provider and the subscribers' servers: one that notes what arrives, and answers as told. */
interface Outside {
  readonly url: string;
  readonly arrived: Arrived[];
  answer: (response: ServerResponse, arrived: Arrived) => void;
  close(): void;
}

const accept = (response: ServerResponse): void => void response.writeHead(204).end();

async function openOutside(): Promise<Outside> {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    const arrived = { path: request.url!, headers: request.headers, body };
    outside.arrived.push(arrived);
    outside.answer(response, arrived);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url, arrived: [], answer: accept, close: () => void server.close().closeAllConnections() };
}

beforeAll(async () => {
  db = await openDatabase("pg");
  vi.stubEnv("DATABASE_URL", db.url);
  vi.stubEnv("WEBHOOK_SIGNING_KEY", KEY);
  const pool = openPool(db.url);
  app = createApp(pool, createTaskClient({ database: db.database }));
  await pool.query(readFileSync(new URL("schema.sql", folder), "utf8"));
  // It reads DATABASE_URL as it is loaded.
  ({ handlers } = await import("./examples/handlers.ts"));
});

beforeEach(async () => {
  await reset(db);
  await db.sql("TRUNCATE public.customer, public.subscriber, public.sign_up_report");
  outside = await openOutside();
  vi.stubEnv("MAIL_URL", `${outside.url}/mail`);
});

afterEach(() => outside.close());

const environment = (url = db.url) => ({
  DATABASE_URL: url,
  MAIL_URL: `${outside.url}/mail`,
  WEBHOOK_SIGNING_KEY: KEY,
  PORT: "0",
});
const body = (email: unknown) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ email }),
});
const signUp = async (email: unknown): Promise<number> => (await app.request("/sign-ups", body(email))).status;
const count = async (from: string): Promise<number> =>
  (await db.sql<{ n: number }>(`SELECT count(*)::int AS n FROM ${from}`))[0]!.n;
const drain = async () => {
  await drainTasks({ database: db.database, handlers });
};
const subscribe = (...paths: string[]) =>
  db.sql("INSERT INTO public.subscriber SELECT unnest($1::text[])", [paths.map((path) => outside.url + path)]);
const mails = () => outside.arrived.filter(({ path }) => path === "/mail");

/** The tutorial's own command line as it stands, with the flags a test needs behind it. */
function start(command: string, { url = db.url, flags = [] as readonly string[] } = {}): Running {
  const line = tutorial
    .split("\n")
    .find((one) => one.startsWith(`node ${command}`) || one.startsWith(`npx ${command}`));
  const [runner, ...words] = line!.split(" ");
  if (runner === "node") return startNode([...words, ...flags], environment(url), root);
  return startStint([...words.slice(1), ...flags], environment(url));
}
const startProcessor = (flags: readonly string[] = [], url = db.url) =>
  start("stint run-task-processor", { url, flags: ["--sleepintervalms", "100", ...flags] });

describe("a sign-up and its e-mail", () => {
  test("committed: the e-mail is sent by exactly one run", async () => {
    expect(await signUp("ada@example.com")).toBe(201);
    await drain();
    await drain();
    expect(mails().map((mail) => JSON.parse(mail.body).to)).toEqual(["ada@example.com"]);
    expect(await db.sql("SELECT identifier, result FROM task_run")).toEqual([
      { identifier: "emails.welcome", result: "SUCCESS" },
    ]);
  });

  test("rolled back at its COMMIT: no customer, no e-mail, no webhook", async () => {
    await subscribe("/a", "/b");
    await db.sql(`CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF (SELECT count(*) FROM task_processor.task) <> 3 THEN RAISE EXCEPTION 'nothing was enqueued'; END IF;
        RAISE EXCEPTION 'refused at commit';
      END $$`);
    await db.sql(
      "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON public.customer DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.refuse()",
    );
    const complaint = vi.spyOn(console, "error").mockImplementation(() => {});
    try {
      expect(await signUp("ada@example.com")).toBe(500);
      expect(String(complaint.mock.calls[0]![0])).toContain("refused at commit");
    } finally {
      complaint.mockRestore();
      await db.sql("DROP FUNCTION public.refuse CASCADE");
    }
    expect([await count("public.customer"), await count("task")]).toEqual([0, 0]);
    await drain();
    expect(outside.arrived).toEqual([]);
  });

  test("the same address twice, also at once: one customer, one e-mail", async () => {
    const statuses = await Promise.all(Array.from({ length: 8 }, () => signUp("ada@example.com")));
    expect(statuses.sort()).toEqual([201, ...Array(7).fill(409)]);
    await drain();
    expect(mails().length).toBe(1);
  });

  test.each([undefined, "", "ada", 7])("no address, no customer: %s", async (email) => {
    expect(await signUp(email)).toBe(400);
    expect([await count("public.customer"), await count("task")]).toEqual([0, 0]);
  });

  test("who has left since gets none, and it is not tried again", async () => {
    await signUp("ada@example.com");
    await db.sql("DELETE FROM public.customer");
    await drain();
    expect(mails()).toEqual([]);
    expect(await db.sql("SELECT task_outcome FROM task_run")).toEqual([{ task_outcome: "CANCELLED" }]);
  });
});

test("the tutorial's processes on a new database: one is killed with an e-mail in its hands, and another sends it under the same key", async () => {
  const fresh = await openDatabase("pg", { migrated: false });
  const left = async () => (await fresh.sql("SELECT FROM task")).length;
  expect((await start("stint migrate", fresh).ended).code).toBe(0);
  const apis = [start("test/examples/api.ts", fresh), start("test/examples/api.ts", fresh)];
  await until("both listen", () => apis.every((api) => /http:\S+/.test(api.output())), ...apis);
  const [first, second] = apis.map((api) => /http:\S+/.exec(api.output())![0]);
  outside.answer = () => {};
  const grace = ["--graceperiodms", "10000"];
  const doomed = startProcessor(grace, fresh.url);
  expect((await fetch(`${first}/sign-ups`, body("ada@example.com"))).status).toBe(201);
  expect((await fetch(`${second}/sign-ups`, body("ada@example.com"))).status).toBe(409);
  expect((await fetch(`${second}/health`)).status).toBe(200);
  await until("the provider has it", () => mails().length === 1, doomed, ...apis);
  doomed.child.kill("SIGKILL");
  await doomed.ended;
  expect((await start("stint monitoring", fresh).ended).code).toBe(0);
  outside.answer = accept;
  const heir = startProcessor(grace, fresh.url);
  await until("it is sent", async () => (await left()) === 0, heir);
  expect(mails().map((mail) => JSON.parse(mail.body).to)).toEqual(["ada@example.com", "ada@example.com"]);
  expect(new Set(mails().map((mail) => mail.headers["idempotency-key"])).size).toBe(1);
  // A built-in schedule may have come due as well.
  const sent = "SELECT FROM task_run WHERE task_outcome = 'SUCCEEDED' AND identifier = 'emails.welcome'";
  expect((await fresh.sql(sent)).length).toBe(1);
  const processes = [heir, ...apis];
  for (const { child } of processes) child.kill("SIGTERM");
  expect(await Promise.all(processes.map(async ({ ended }) => (await ended).code))).toEqual([0, 0, 0]);
});

test("a connection that ends in the middle of a sign-up fails that one, and the API goes on", async () => {
  const blocker = await db.client();
  await blocker.query("BEGIN; LOCK TABLE public.customer");
  const complaint = vi.spyOn(console, "error").mockImplementation(() => {});
  const waiting = signUp("ada@example.com");
  const held = "pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND query LIKE 'INSERT INTO customer%'";
  await until("it waits", async () => (await count(held)) === 1);
  await db.sql(`SELECT pg_terminate_backend(pid) FROM ${held}`);
  expect(await waiting).toBe(500);
  complaint.mockRestore();
  await blocker.query("ROLLBACK");
  expect(await count("task")).toBe(0);
  expect(await signUp("ada@example.com")).toBe(201);
});

test("each subscriber hears of a sign-up once; one that fails is tried again alone", async () => {
  const paths = Array.from({ length: 12 }, (_, n) => `/subscriber-${n}`);
  await subscribe(...paths);
  let refused = 0;
  outside.answer = (response, { path }) => {
    if (path !== "/subscriber-7" || refused > 0) return accept(response);
    refused += 1;
    response.writeHead(503).end();
  };
  expect(await signUp("ada@example.com")).toBe(201);
  const processor = startProcessor();
  await until("all is done", async () => (await count("task")) === 0, processor);
  const hooks = outside.arrived.filter(({ path }) => path !== "/mail");
  expect(hooks.map(({ path }) => path).sort()).toEqual([...paths, "/subscriber-7"].sort());
  expect(hooks.every((hook) => isSigned(KEY, hook.headers, hook.body))).toBe(true);
  expect(new Set(hooks.map(({ headers }) => headers["webhook-id"])).size).toBe(paths.length);
  const [customer] = await db.sql<{ id: string }>("SELECT id FROM public.customer");
  expect(JSON.parse(hooks[0]!.body)).toEqual({ event: "customer.signed_up", body: { customerId: customer!.id } });
  expect(await count("task_run WHERE identifier = 'webhooks.deliver' AND result = 'FAILURE'")).toBe(1);
});

test("the nightly report runs once per occurrence with several slots, and makes up for nights that were missed", async () => {
  await signUp("ada@example.com");
  await signUp("grace@example.com");
  const move = "UPDATE public.customer SET signed_up_at = signed_up_at + CAST($2 AS interval) WHERE email = $1";
  await db.sql(move, ["ada@example.com", "-3 days"]);
  await db.sql(move, ["grace@example.com", "1 day"]);
  const processors = [startProcessor(["--numthreads", "4"]), startProcessor(["--numthreads", "4"])];
  const ran = () => count("task_run WHERE identifier = 'reports.sign_ups' AND result = 'SUCCESS'");
  await until("it is planned", async () => (await count("recurring_task")) >= 1, ...processors);
  for (const round of [1, 2, 3]) {
    await db.sql(
      "UPDATE recurring_task SET next_at = date_trunc('second', clock_timestamp()) WHERE identifier = 'reports.sign_ups'",
    );
    await until(`occurrence ${round} has run`, async () => (await ran()) >= round, ...processors);
    // The grid has whole seconds: the next due time is another one.
    await new Promise((resolve) => setTimeout(resolve, 1100));
    expect(await ran()).toBe(round);
  }
  expect(await count("task_run WHERE identifier = 'reports.sign_ups'")).toBe(3);
  // A day that is not over is not reported yet.
  expect(await db.sql("SELECT sign_ups FROM public.sign_up_report")).toEqual([{ sign_ups: 1 }]);
});

describe("the tutorial", () => {
  test("each of its pieces of code stands in the file that the line before it names", () => {
    const blocks = [...tutorial.matchAll(/([^\n]*)\n\n```ts\n([\s\S]*?)```/g)];
    expect(blocks.length).toBe(tutorial.split("```ts\n").length - 1);
    const strangers = blocks.filter(([, before, code]) => {
      const named = [...before!.matchAll(/`([\w./-]+\.ts)`/g)].at(-1)?.[1] ?? "handlers.ts";
      const file = named.includes("/") ? new URL(`../${named}`, import.meta.url) : new URL(named, folder);
      return !readFileSync(file, "utf8").includes(code!);
    });
    expect(strangers.map(([whole]) => whole)).toEqual([]);
  });

  test("every file of the folder is named in it, and no other; its variables are read", () => {
    const settings = readFileSync(new URL("settings.ts", folder), "utf8");
    for (const name of ["DATABASE_URL", "MAIL_URL", "PORT"]) {
      expect(settings).toContain(name);
      expect(tutorial).toContain(name);
    }
    const named = new Set([...tutorial.matchAll(/`([\w-]+\.(?:ts|sql))`/g)].map(([, file]) => file!));
    expect([...named].sort()).toEqual(
      readdirSync(folder)
        .filter((file) => file !== "README.md")
        .sort(),
    );
  });
});
