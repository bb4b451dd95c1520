/** Every statement of lib/sql, through both adapters: no cast is forgotten, and what it declares is what comes back. */
import { randomUUID } from "node:crypto";
import { globSync } from "node:fs";
import { resolve } from "node:path";
import { ExecuteStatementCommand, RDSDataClient } from "@aws-sdk/client-rds-data";
import { describe, expect, test } from "vitest";
import { LOCAL } from "../infra/local/stack.ts";
import { textFor } from "../lib/database/parameters.ts";
import type { Statement } from "../lib/database/port.ts";
import { ADAPTERS, openDatabase } from "./support/database.ts";

const isStatement = (value: unknown): value is Statement =>
  typeof value === "object" && value !== null && "sql" in value && "parameters" in value && "columns" in value;

const files = globSync("lib/sql/*.ts", { cwd: resolve(import.meta.dirname, "..") });
const modules = await Promise.all(files.map((file) => import(resolve(import.meta.dirname, "..", file))));
const statements = modules.flatMap((module) => Object.values(module as object)).filter(isStatement);

type Given = Record<string, string | number | boolean | null>;

const task = { identifier: "greet", timeoutMs: 1000, maxAttempts: 3 };
const release = { release: "r1", tasks: [task, { ...task, identifier: "beat" }] };
const batch = { token: randomUUID(), identifier: "greet", priority: 50, payloads: [{ n: 1 }, { n: 2 }, { n: 3 }] };
const canary = { ...batch, token: randomUUID(), identifier: "task_processor.health_check", payloads: [{}] };
const due = "2020-01-01T00:00:00.000Z";
const plan = { schedules: [{ identifier: "beat", schedule: "every 1m", nextAt: due }] };
const exchange = {
  invocation: randomUUID(),
  slot: 0,
  onlyFree: false,
  release: "r1",
  graceMs: 20_000,
  seq: 1,
  acked: 0,
  want: 1,
  alone: true,
  ending: false,
  remainingMs: null,
  bytes: 480_000,
  floors: [],
  results: [],
};
const fire = {
  identifier: "beat",
  schedule: "every 1m",
  expectedAt: due,
  nextAt: "infinity",
  occurrences: [due],
  payload: {},
  priority: 50,
};
const health = randomUUID();
const cancel = { action: "cancel", ids: ["2"], dryRun: false, who: "ada", what: {}, audit: null, after: null };
const retry = { action: "retry", filter: {}, dryRun: false, who: "ada", what: {}, audit: null, after: null, batch: 10 };

/** In this order each of them finds what it looks for. Task 1 is claimed, 2 cancelled, 4 dropped. */
const story: [name: string, values: Given][] = [
  ["migrate_applied", {}],
  ["register_release", { request: JSON.stringify(release) }],
  ["enqueue", { request: JSON.stringify(batch) }],
  ["enqueue", { request: JSON.stringify(canary) }],
  ["enqueue_and_notify", { request: JSON.stringify({ ...batch, identifier: "other" }), channel: "bell" }],
  ["enqueue_in_time", { request: JSON.stringify(batch), wait: "1000" }],
  ["enqueue_in_time_and_notify", { request: JSON.stringify(batch), channel: "bell", wait: "1000" }],
  ["count_waiting", {}],
  ["read_unfinished", { identifier: "greet" }],
  ["exchange", { request: JSON.stringify(exchange) }],
  ["read_slots", {}],
  ["arrange_wake", { release: "r1", graceMs: 20_000, mostMs: 900_000, beginning: true }],
  ["read_backlog", { residents: 1, graceMs: 20_000 }],
  ["drop_canary", { id: "4" }],
  ["plan_recurring", { request: JSON.stringify(plan) }],
  ["fire_recurring", { request: JSON.stringify(fire) }],
  ["clean_up", { kind: "task_run", days: 30, batch: 100 }],
  ["check_database", { id: randomUUID() }],
  ["leave_health_row", { id: health }],
  ["take_health_row", { id: health }],
  ["read_stats", { most: 10 }],
  ["read_recurring_stats", {}],
  ["read_metrics", { most: 10, bound: 10 }],
  ["fold_counters", { batch: 10 }],
  ["list_tasks", { filter: "{}", cursor: null, limit: 10 }],
  ["show_task", { id: "1", payload: true }],
  ["act_on_tasks", { request: JSON.stringify(cancel) }],
  ["act_on_tasks", { request: JSON.stringify(retry) }],
  ["act_on_identifier", { action: "pause", identifier: "greet", who: "ada" }],
  ["read_audit", { before: null, limit: 10 }],
  ["read_transaction_id", {}],
  ["read_transaction_status", { id: "3" }],
];

test("the story knows every statement", () => {
  expect([...new Set(story.map(([name]) => name))].sort()).toEqual(statements.map(({ name }) => name).sort());
});

const byName = new Map(statements.map((statement) => [statement.name, statement]));
const scenes = story.filter(([name]) => byName.has(name)).map(([name, values]) => ({ name, values }));
const nullsFor = (statement: Statement): Given =>
  Object.fromEntries(Object.keys(statement.parameters).map((name) => [name, null]));

describe.each(ADAPTERS)("over %s", async (adapter) => {
  const db = await openDatabase(adapter);

  test.each(scenes)("$name takes its values and returns its columns", async ({ name, values }) => {
    const statement = byName.get(name)!;
    const [row] = (await db.database.query(statement, values)) as Record<string, unknown>[];
    expect(Object.keys(row!)).toEqual(statement.columns);
    for (const value of Object.values(row!)) expect([null, "string", "number", "boolean"]).toContain(kindOf(value));
  });

  test.each(
    statements.filter(({ parameters }) => Object.keys(parameters).length > 0),
  )("$name takes nulls, or refuses them for what they mean", async (statement) => {
    const failure = await db.database.query(statement, nullsFor(statement)).then(
      () => undefined,
      (error) => error,
    );
    // 42: syntax, unknown operators and functions, types that do not fit or cannot be told.
    if (failure) expect(failure.sqlState, failure.message).not.toMatch(/^42/);
  });

  test("a forgotten cast is an error, also over pg, where the driver would leave the type to Postgres", async () => {
    await expect(db.database.query(careless, { id: health })).rejects.toMatchObject({ sqlState: "42883" });
  });
});

/** Shows that these tests can fail. */
const careless: Statement<{ id: "uuid" }, { id: string }> = {
  name: "careless",
  parameters: { id: "uuid" },
  columns: ["id"],
  sql: "SELECT CAST(id AS text) AS id FROM {schema}.health_check WHERE id = :id",
};

const kindOf = (value: unknown) => (value === null ? null : typeof value);

describe("on the wire", async () => {
  const db = await openDatabase("data-api");
  const client = new RDSDataClient({ endpoint: db.endpoint, region: LOCAL.region });
  const { resourceArn, secretArn } = LOCAL;
  const database = db.url.split("?")[0]!.split("/").at(-1)!;

  // The adapters name what comes by its place: a column too many, or in another order, would go unseen there.
  test.each(scenes)("$name has the columns it declares, of types that need no reading", async ({ name, values }) => {
    const statement = byName.get(name)!;
    const { columnMetadata } = await client.send(
      new ExecuteStatementCommand({
        resourceArn,
        secretArn,
        database,
        sql: textFor(statement.sql, "task_processor"),
        parameters: Object.entries(values).map(([name, value]) => ({ name, value: fieldOf(value) })),
        includeResultMetadata: true,
      }),
    );
    expect(columnMetadata!.map(({ label }) => label)).toEqual(statement.columns);
    for (const { typeName } of columnMetadata!)
      expect(["text", "varchar", "bool", "int2", "int4", "float8"]).toContain(typeName);
  });
});

function fieldOf(value: string | number | boolean | null) {
  if (value === null) return { isNull: true };
  if (typeof value === "string") return { stringValue: value };
  return typeof value === "number" ? { longValue: value } : { booleanValue: value };
}
