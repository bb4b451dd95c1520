/** Every statement of lib/sql runs under exactly the roles it is for, over both adapters. */
import { randomUUID } from "node:crypto";
import { globSync } from "node:fs";
import { resolve } from "node:path";
import pg from "pg";
import { afterAll, describe, expect, inject, test } from "vitest";
import { startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { connectDataApi } from "../lib/database/data-api.ts";
import { connectPg } from "../lib/database/pg.ts";
import type { Database, Statement } from "../lib/database/port.ts";
import { taskProcessorHealthCheck } from "../lib/health.ts";
import { createOperator } from "../lib/operate.ts";
import { migrate } from "../lib/sql/migrate.ts";
import { migrations } from "../lib/sql/migrations/inlined.ts";
import { applyRoles, ROLE_KINDS, type RoleKind, randomPassword, scramVerifier } from "../lib/sql/roles.ts";
import { enqueueTasks } from "../lib/sql/tasks.ts";
import { ADAPTERS, type AdapterName, openDatabase, type TestDatabase } from "./support/database.ts";
import { register, Speaker, success } from "./support/exchange.ts";
import { administer } from "./support/postgres.ts";
import { startStint } from "./support/stint.ts";

const root = resolve(import.meta.dirname, "..");
const modules = await Promise.all(globSync("lib/sql/*.ts", { cwd: root }).map((file) => import(resolve(root, file))));
const statements = modules
  .flatMap((module) => Object.values(module as object))
  .filter((value): value is Statement => typeof value === "object" && value !== null && "sql" in value);

const PRODUCER: RoleKind[] = ["producer"];
const WORKER: RoleKind[] = ["worker"];
const OPERATOR: RoleKind[] = ["operator"];
const READERS: RoleKind[] = ["worker", "monitor", "operator"];

const WATCHERS: RoleKind[] = ["monitor", "operator"];

/** What is not named here is an operator's, or a monitor's too: never a producer's or a worker's. */
const ALLOWED: Record<string, readonly RoleKind[]> = {
  enqueue: PRODUCER,
  check_database: PRODUCER,
  enqueue_and_notify: PRODUCER,
  enqueue_in_time: PRODUCER,
  enqueue_in_time_and_notify: PRODUCER,
  take_health_row: PRODUCER,
  drop_canary: PRODUCER,
  exchange: WORKER,
  register_release: WORKER,
  plan_recurring: WORKER,
  fire_recurring: WORKER,
  clean_up: WORKER,
  arrange_wake: WORKER,
  fold_counters: WORKER,
  leave_health_row: WORKER,
  count_waiting: READERS,
  read_unfinished: READERS,
  read_slots: READERS,
  read_backlog: READERS,
  list_tasks: WATCHERS,
  show_task: WATCHERS,
  read_audit: WATCHERS,
  read_stats: WATCHERS,
  read_metrics: WATCHERS,
  read_recurring_stats: WATCHERS,
  act_on_tasks: OPERATOR,
  act_on_identifier: OPERATOR,
  migrate_applied: ROLE_KINDS,
  read_transaction_id: ROLE_KINDS,
  read_transaction_status: ROLE_KINDS,
};

interface Peopled {
  readonly db: TestDatabase;
  readonly as: Record<RoleKind, Database>;
}

/** A database with the four roles, and a connection of each. */
async function people(adapter: AdapterName): Promise<Peopled> {
  const db = await openDatabase(adapter);
  const prefix = `r${randomUUID().slice(0, 8)}`;
  const orders = ROLE_KINDS.map((kind) => ({ kind, name: `${prefix}_${kind}`, password: randomPassword() }));
  expect((await applyRoles(db.database, orders)).map(({ done }) => done)).toEqual(Array(4).fill("made"));
  const name = db.url.split("?")[0]!.split("/").at(-1)!;
  const secretArn = (kind: string) => `${LOCAL.secretArn}-${kind}`;
  const secrets = Object.fromEntries(
    orders.map(({ kind, name: user, password }) => [secretArn(kind), { user, password }]),
  );
  const dataApi =
    adapter === "pg"
      ? undefined
      : await startDataApi({
          clusters: [{ resourceArn: LOCAL.resourceArn, url: db.url, database: name, secrets }],
          maxConnections: 8,
        });
  const as = Object.fromEntries(
    orders.map(({ kind, name: user, password }) => [
      kind,
      dataApi === undefined
        ? connectPg({ url: withUser(db.url, user, password), schema: "task_processor", maxConnections: 2 })
        : connectDataApi({
            resourceArn: LOCAL.resourceArn,
            secretArn: secretArn(kind),
            database: name,
            schema: "task_processor",
            endpoint: dataApi.endpoint,
          }),
    ]),
  ) as Record<RoleKind, Database>;
  afterAll(async () => {
    for (const one of Object.values(as)) await one.close();
    await dataApi?.close();
    await db.sql(`DROP OWNED BY ${orders.map(({ name: one }) => one).join(", ")}`);
    await administer(
      inject("postgresUrl"),
      orders.map(({ name: one }) => `DROP ROLE ${one}`),
    );
  });
  return { db, as };
}

/** Through TCP or a socket's folder in `host`: only the user changes. */
function withUser(url: string, user: string, password: string): string {
  return url.replace(/^(postgres(?:ql)?:\/\/)(?:[^@/?]*@)?/, `$1${user}:${password}@`);
}

/** With nulls these refuse what is asked before they touch a table. */
const VALUES: Record<string, Record<string, string>> = {
  act_on_tasks: {
    request: JSON.stringify({ action: "cancel", ids: ["1"], dryRun: false, who: "ada", what: {}, batch: 10 }),
  },
  act_on_identifier: { action: "pause", identifier: "other", who: "ada" },
};

const attempt = async (database: Database, statement: Statement): Promise<string> => {
  const nulls = Object.fromEntries(Object.keys(statement.parameters).map((name) => [name, null]));
  return await database.query(statement, VALUES[statement.name] ?? nulls).then(
    () => "ran",
    (error: { sqlState?: string; code?: string; message: string }) =>
      error.sqlState ?? `${error.code}: ${error.message}`,
  );
};

describe.each(ADAPTERS)("over %s", async (adapter) => {
  const { db, as } = await people(adapter);

  test.each(statements.map((one) => [one.name, one] as const))("%s", async (name, statement) => {
    const refused = [];
    for (const kind of ROLE_KINDS) if ((await attempt(as[kind], statement)) === "42501") refused.push(kind);
    const allowed = ALLOWED[name];
    if (allowed === undefined) {
      expect(refused).toEqual(expect.arrayContaining(["producer"]));
      expect(refused).not.toContain("operator");
    } else expect(refused).toEqual(ROLE_KINDS.filter((kind) => !allowed.includes(kind)));
  });

  test("who is refused what it is not for would otherwise have run: the owner is never refused", async () => {
    for (const statement of statements) expect(await attempt(db.database, statement), statement.name).not.toBe("42501");
  });

  test("a whole life of serial tasks: each step under its own role", async () => {
    const worker: TestDatabase = { ...db, database: as.worker };
    await register(worker, "r1", { greet: {} });
    const request = {
      token: randomUUID(),
      identifier: "greet",
      priority: 50,
      payloads: [{}, {}, {}],
      serialKey: "s",
      queueSize: 10,
    };
    const [stored] = await as.producer.query(enqueueTasks, { request: JSON.stringify(request) });
    const { ids } = JSON.parse(stored!.answer) as { ids: string[] };
    expect(ids).toHaveLength(3);
    const speaker = new Speaker(worker);
    const first = await speaker.say();
    expect(first.tasks.map(({ id }) => id)).toEqual([ids[0]]);
    const operator = createOperator({ databases: [as.operator], who: "ada" });
    expect(await operator.act({ action: "cancel", ids: [ids[1]!] })).toMatchObject({ count: 1, done: true });
    expect(await operator.act({ action: "retry", ids: [ids[1]!] })).toMatchObject({ count: 1, done: true });
    const second = await speaker.say({ results: [success(first.tasks[0]!)] });
    expect(second.tasks.map(({ id }) => id)).toEqual([ids[1]]);
    expect((await speaker.say({ ending: true })).status).toBe("ok");
  });

  test("a producer's own health check goes by its own role, and it cannot drop another task", async () => {
    const failed = taskProcessorHealthCheck({ databases: [as.producer], sleepIntervalMs: 0 });
    await expect(failed).rejects.toThrow("unable to process");
    expect(await db.sql("SELECT FROM task WHERE identifier = 'task_processor.health_check'")).toEqual([]);
    const [row] = await db.sql<{ id: string }>("SELECT CAST((enqueue_task('precious')).id AS text) AS id");
    const drop = statements.find(({ name }) => name === "drop_canary")!;
    expect(await as.producer.query(drop, { id: row!.id })).toEqual([]);
  });

  test("tables are out of reach of a producer and closed for writing to a worker and a monitor", async () => {
    const run = (kind: RoleKind, sql: string) =>
      attempt(as[kind], { name: "raw", parameters: {}, columns: [], sql: sql.replaceAll("@", "{schema}.") });
    for (const table of ["task", "failed_task", "task_run", "heartbeat", "database_role"])
      expect(await run("producer", `SELECT 1 FROM @${table}`)).toBe("42501");
    for (const kind of ["worker", "monitor"] as const)
      for (const sql of ["DELETE FROM @task", "UPDATE @slot SET epoch = 0", "DELETE FROM @migration"])
        expect(await run(kind, sql), sql).toBe("42501");
    // What was done stays written.
    for (const sql of ["DELETE FROM @audit", "UPDATE @audit SET who = 'nobody'"])
      expect(await run("operator", sql)).toMatch(/^42(501|P01)$/);
    expect(await run("operator", "UPDATE @migration SET sha256 = ''")).toBe("42501");
    for (const kind of ROLE_KINDS) {
      expect(await run(kind, "CREATE TABLE @mine (n integer)"), kind).toBe("42501");
      expect(await run(kind, "SELECT @secure_v1()"), kind).toBe("42501");
      expect(await run(kind, "SELECT @make_role_v1('operator', 'me', NULL)"), kind).toBe("42501");
    }
  });

  test("a table of a caller's own cannot take the place of one of ours", async () => {
    const text = `SELECT proname FROM pg_proc WHERE pronamespace = CAST('task_processor' AS regnamespace) AND prosecdef
      AND NOT coalesce(array_to_string(proconfig, ' ') LIKE '%search_path="task_processor", pg_temp%', false)`;
    expect(await db.sql(text)).toEqual([]);
  });

  test("what a later migration makes or replaces gets its rights with `stint migrate`", async () => {
    const [{ text }] = (await db.sql(
      "SELECT pg_get_functiondef(CAST('task_processor.register_release_v1' AS regproc)) AS text",
    )) as [{ text: string }];
    const later = {
      name: "9000_later",
      sha256: "l",
      statements: [
        text.replace(" SECURITY DEFINER", ""),
        "CREATE TABLE later (n integer)",
        "CREATE FUNCTION later_v1() RETURNS bigint LANGUAGE sql STABLE SET search_path FROM CURRENT AS $later$ SELECT count(*) FROM later $later$",
      ],
    };
    expect(text).toContain("SECURITY DEFINER");
    await migrate(db.database, [...migrations, later]);
    await register({ ...db, database: as.worker }, "r2", { greet: {} });
    const look = (kind: RoleKind) =>
      attempt(as[kind], {
        name: "later",
        parameters: {},
        columns: [],
        sql: "SELECT CAST({schema}.later_v1() AS text) AS n",
      });
    expect(await Promise.all(ROLE_KINDS.map(look))).toEqual(["42501", "42501", "ran", "ran"]);
  });
});

describe("making roles", () => {
  test("twice is no error; a superuser, the owner, or one of another kind is refused", async () => {
    const { database, sql } = await openDatabase("pg");
    const [me] = await sql<{ name: string }>("SELECT current_user AS name");
    const name = `r${randomUUID().slice(0, 8)}`;
    const password = randomPassword();
    const report = (done: string) => [{ kind: "producer", name, done }];
    expect(await applyRoles(database, [{ kind: "producer", name, password }])).toEqual(report("made"));
    expect(await applyRoles(database, [{ kind: "producer", name }])).toEqual(report("kept"));
    expect(await applyRoles(database, [{ kind: "producer", name, password }])).toEqual(report("changed"));
    for (const order of [
      { kind: "worker" as const, name },
      { kind: "worker" as const, name: me!.name, password },
      { kind: "worker" as const, name: `${name}_absent` },
      { kind: "worker" as const, name: "Robert'); DROP TABLE task", password },
      { kind: "worker" as const, name: `${name}_w`, password: "short" },
    ])
      await expect(applyRoles(database, [order]), JSON.stringify(order)).rejects.toMatchObject({
        code: "option_invalid",
      });
  });

  test("the verifier is Postgres's own for that password and salt", async () => {
    const { sql } = await openDatabase("pg");
    const name = `r${randomUUID().slice(0, 8)}`;
    await sql(`CREATE ROLE ${name} PASSWORD 'correct-horse-battery'`);
    const [row] = await sql<{ rolpassword: string }>("SELECT rolpassword FROM pg_authid WHERE rolname = $1", [name]);
    await sql(`DROP ROLE ${name}`);
    const salt = Buffer.from(/:([^$]+)\$/.exec(row!.rolpassword)![1]!, "base64");
    expect(scramVerifier("correct-horse-battery", salt)).toBe(row!.rolpassword);
  });

  test("an application's role with rights on the table keeps enqueueing when the functions are closed; others lose the way", async () => {
    const { database, sql, url } = await openDatabase("pg", { migrated: false });
    const [app, other] = [`r${randomUUID().slice(0, 8)}`, `r${randomUUID().slice(0, 8)}`];
    await migrate(database, migrations.slice(0, 4));
    for (const name of [app, other]) {
      await sql(`CREATE ROLE ${name} LOGIN PASSWORD 'correct-horse-battery'`);
      await sql(`GRANT USAGE ON SCHEMA task_processor TO ${name}`);
    }
    await sql(`GRANT INSERT, SELECT ON ALL TABLES IN SCHEMA task_processor TO ${app}`);
    await migrate(database);
    const enqueueAs = async (name: string) => {
      const client = new pg.Client({ connectionString: withUser(url, name, "correct-horse-battery") });
      await client.connect();
      return await client
        .query(
          "SELECT status FROM task_processor.enqueue_task('greet', '{}', key => 'k', queue_size => 5, serial_key => 's')",
        )
        .then(
          ({ rows }) => rows[0].status,
          (error) => error.code,
        )
        .finally(() => client.end());
    };
    expect(await enqueueAs(app)).toBe("enqueued");
    expect(await enqueueAs(other)).toBe("42501");
    // What the README says to grant to an application's own role.
    await sql(`GRANT EXECUTE ON FUNCTION task_processor.enqueue_task TO ${other}`);
    expect(await enqueueAs(other)).toBe("duplicate");
    await sql(`DROP OWNED BY ${app}, ${other}`);
    await sql(`DROP ROLE ${app}, ${other}`);
  });

  test("`stint roles` prints new passwords once, takes others from stdin, and never changes one unasked", async () => {
    const { url, sql } = await openDatabase("pg");
    const prefix = `r${randomUUID().slice(0, 8)}`;
    const run = (args: string[], environment: Record<string, string> = {}) =>
      startStint(["roles", "--prefix", prefix, ...args], { DATABASE_URL: url, ...environment }).ended;
    const first = await run([]);
    expect(first.code, first.stderr).toBe(0);
    const lines = first.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines.map(({ kind, done }) => [kind, done])).toEqual(ROLE_KINDS.map((kind) => [kind, "made"]));
    const client = new pg.Client({ connectionString: withUser(url, lines[0].name, lines[0].password) });
    await client.connect();
    await client.end();
    const again = await run(["--only", "producer,worker"], { STINT_WORKER_PASSWORD: "correct-horse-battery" });
    expect(again.stdout).not.toContain("password");
    expect(
      again.stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line).done),
    ).toEqual(["kept", "changed"]);
    expect(await run(["--only", "owner"])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("option_invalid"),
    });
    for (const { name } of lines) await sql(`DROP OWNED BY ${name}; DROP ROLE ${name}`);
  });
});
