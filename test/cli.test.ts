import { createServer } from "node:net";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { connectDataApi } from "../lib/database/data-api.ts";
import { pendingMigrations } from "../lib/sql/pending.ts";
import { openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { startStint, stint, until } from "./support/stint.ts";

const STACK = /^\s+at /m;

describe("usage", () => {
  const COMMANDS = [
    "migrate",
    "data-api",
    "run-task-processor",
    "checktaskprocessorthreadhealth",
    "enqueue",
    "monitoring",
    "recurring",
  ];

  test("--help names every command, and each has a --help of its own", async () => {
    const help = await stint(["--help"]);
    expect(help.code).toBe(0);
    for (const command of COMMANDS) expect(help.stdout).toContain(`  ${command} `);
    const helps = await Promise.all(COMMANDS.map((command) => stint([command, "--help"])));
    for (const [place, { code, stdout }] of helps.entries()) {
      expect(code).toBe(0);
      expect(stdout).toContain(`Usage: stint ${COMMANDS[place]}`);
    }
  });

  test.each([
    [["--wrong"], "unknown option '--wrong'"],
    [["monitoring", "--helpp"], "unknown option '--helpp'"],
    [["enqueueu"], "unknown command 'enqueueu'"],
    [["monitoring", "more"], "too many arguments"],
    [["enqueue", "some.task"], "missing required argument 'json'"],
    [["enqueue", "some.task", "{}", "--priority", "URGENT"], "HIGHEST, HIGH, NORMAL, LOW, LOWER"],
    [["enqueue", "some.task", "{}", "--delay-until", "2030-01-01 08:00"], "ISO 8601"],
    [["run-task-processor", "--numthreads", "many"], "whole number"],
    [["run-task-processor", "--numthreads"], "argument missing"],
    [["data-api", "--url", "mysql://x"], "postgres://"],
    [["recurring", "run"], "missing required argument 'identifier'"],
    [["recurring", "dance"], "unknown command 'dance'"],
  ])("stint %j: one clear line, exit 2", async (args, text) => {
    const { code, stdout, stderr } = await stint(args);
    expect(code).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toMatch(/^error: .+\n$/);
    expect(stderr).toContain(text);
  });
});

describe("errors", () => {
  test("a flag out of range is named beside its variable; a variable by itself; all at once", async () => {
    const { code, stderr } = await stint(["run-task-processor", "--numthreads", "2000"], {
      TASK_PROCESSOR_GRACE_PERIOD_MS: "1",
      TASK_PROCESSOR_NUM_THREADS: "7",
    });
    expect(code).toBe(1);
    expect(stderr).toBe(
      [
        "config_invalid: The configuration is not usable.",
        '- --numthreads (TASK_PROCESSOR_NUM_THREADS) is "2000"; allowed: from 1 to 1000',
        '- TASK_PROCESSOR_GRACE_PERIOD_MS is "1"; allowed: from 5000 to 600000',
        "",
      ].join("\n"),
    );
  });

  test.each([
    ["migrate"],
    ["monitoring"],
    ["checktaskprocessorthreadhealth"],
  ])("%s without a database", async (command) => {
    const { code, stderr } = await stint([command]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^config_invalid: No database is configured\. Set DATABASE_URL/);
  });

  test("a database that is not there", async () => {
    const { code, stderr } = await stint(["monitoring"], { DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^database_unavailable: The database cannot be reached/);
    expect(stderr).not.toMatch(STACK);
  });

  test("a database without the schema says what to do", async () => {
    const { url } = await openDatabase("pg", { migrated: false });
    for (const args of [
      ["monitoring"],
      ["enqueue", "some.task", "{}"],
      ["checktaskprocessorthreadhealth"],
      ["run-task-processor", "--tasks", "test/fixtures/tasks.ts"],
    ]) {
      const { code, stderr } = await stint(args, { DATABASE_URL: url });
      expect(code).toBe(1);
      expect(stderr).toMatch(/^schema_missing: .*stint migrate/);
    }
  });

  test.each([
    ["test/fixtures/none.ts", "there is no such file"],
    ["package-lock.json", "cannot be loaded"],
    ["lib/clock.ts", "exports no handler"],
  ])("--tasks %s: %s", async (file, text) => {
    const { code, stderr } = await stint(["run-task-processor", "--tasks", file], {
      DATABASE_URL: "postgres://nobody@127.0.0.1:1/none",
    });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^option_invalid: --tasks /);
    expect(stderr).toContain(text);
    expect(stderr).not.toMatch(STACK);
  });
});

describe("on a database", () => {
  let db: TestDatabase;
  let env: { DATABASE_URL: string };

  beforeAll(async () => {
    db = await openDatabase("pg");
    env = { DATABASE_URL: db.url };
  });

  beforeEach(() => reset(db));

  test("migrate applies once, also two at once, in the schema that is configured", async () => {
    const fresh = await openDatabase("pg", { migrated: false });
    const own = { DATABASE_URL: fresh.url, TASK_PROCESSOR_SCHEMA: "task_processor" };
    const both = await Promise.all([stint(["migrate"], own), stint(["migrate"], own)]);
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    expect(
      both
        .map(({ stdout }) => stdout)
        .join("")
        .match(/0001_tables/g),
    ).toHaveLength(1);
    expect(await pendingMigrations(fresh.database)).toEqual([]);
    expect((await stint(["migrate"], own)).stdout).toBe("default, schema task_processor: up to date\n");
    expect((await stint(["migrate"], { ...own, TASK_PROCESSOR_SCHEMA: "other" })).stdout).toMatch(
      /^default, schema other: applied 0001_tables, /,
    );
  });

  test("enqueue stores one task of any identifier, and monitoring counts it", async () => {
    const { code, stdout } = await stint(["enqueue", "nobody.knows", '{"n": 1}', "--priority", "high"], env);
    expect(code).toBe(0);
    const answer = JSON.parse(stdout);
    expect(answer).toEqual({ status: "enqueued", id: expect.stringMatching(/^\d+$/) });
    expect(
      await db.sql("SELECT identifier, payload, priority, max_attempts FROM task WHERE id = $1", [answer.id]),
    ).toEqual([{ identifier: "nobody.knows", payload: { n: 1 }, priority: 25, max_attempts: null }]);
    expect((await stint(["monitoring"], env)).stdout).toBe('{"waiting":1}\n');
  });

  test("--delay-until is the task's due time", async () => {
    const { code } = await stint(["enqueue", "test.nap", "[]", "--delay-until", "2040-02-29T12:00:00+02:00"], env);
    expect(code).toBe(0);
    expect(await db.sql("SELECT scheduled_for FROM task")).toEqual([
      { scheduled_for: new Date("2040-02-29T10:00:00Z") },
    ]);
    expect((await stint(["monitoring"], env)).stdout).toBe('{"waiting":0}\n');
  });

  test.each([
    ["{n: 1}", "payload_not_json"],
    ["", "payload_not_json"],
    ['"\\u0000"', "payload_not_json"],
    [JSON.stringify("x".repeat(49_151)), "payload_too_large"],
  ])("a bad payload stores nothing", async (json, wanted) => {
    const { code, stdout, stderr } = await stint(["enqueue", "test.nap", json], env);
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toMatch(new RegExp(`^${wanted}: test\\.nap: .+\n$`));
    expect(await db.sql("SELECT FROM task")).toEqual([]);
  });

  describe("checktaskprocessorthreadhealth", () => {
    const check = async (more: Record<string, string> = {}) => {
      const { code, stdout } = await stint(["checktaskprocessorthreadhealth"], { ...env, ...more });
      const lines = stdout.trimEnd().split("\n");
      return { code, last: lines.at(-1), slots: lines.slice(0, -1).map((line) => line.split(",")[0]) };
    };
    const HEALTHY = "Task processor has no unhealthy threads.";
    const UNHEALTHY = "Task processor has unhealthy threads.";

    /** A slot whose last invocation began an hour ago and was last seen so long ago. */
    async function sat(slot: number, seenAgoSeconds: number, end: "ended_at" | "expired_at" | "open"): Promise<void> {
      await db.sql(
        `WITH h AS (
          INSERT INTO heartbeat (invocation_id, slot, epoch, release_id, seq, started_at, last_seen_at${end === "open" ? "" : `, ${end}`})
          SELECT gen_random_uuid(), $1, 1, 'r', 2, clock_timestamp() - interval '1 hour', seen${end === "open" ? "" : ", seen"}
          FROM (SELECT clock_timestamp() - $2 * interval '1 second' AS seen) s RETURNING invocation_id)
        INSERT INTO slot (number, epoch, holder) SELECT $1, 1, invocation_id FROM h`,
        [slot, seenAgoSeconds],
      );
    }

    test("no slot at all", async () => {
      expect(await check()).toEqual({
        code: 1,
        last: UNHEALTHY,
        slots: ["no slots: no task processor has run on this database yet"],
      });
    });

    test("seen of late, or ended cleanly of late: healthy", async () => {
      await sat(0, 1, "open");
      await sat(1, 60, "ended_at");
      expect(await check()).toEqual({ code: 0, last: HEALTHY, slots: ["slot 0: healthy", "slot 1: healthy"] });
    });

    test.each([
      ["silent for longer than grace and sleep interval", 40, "open"],
      ["expired by another", 40, "expired_at"],
      ["ended cleanly, but not ticked for two schedule intervals", 200, "ended_at"],
    ] as const)("%s: unhealthy", async (_, seenAgoSeconds, end) => {
      await sat(0, 1, "open");
      await sat(1, seenAgoSeconds, end);
      expect(await check()).toEqual({ code: 1, last: UNHEALTHY, slots: ["slot 0: healthy", "slot 1: unhealthy"] });
    });

    test("the grace period is the configured one", async () => {
      await sat(0, 40, "open");
      expect((await check({ TASK_PROCESSOR_GRACE_PERIOD_MS: "60000" })).code).toBe(0);
    });

    test("a seat nobody has ticked on for long is vacant once as many as configured are healthy", async () => {
      await sat(0, 500, "expired_at");
      await sat(1, 1, "open");
      await sat(2, 1, "open");
      expect(await check({ TASK_PROCESSOR_NUM_THREADS: "2" })).toEqual({
        code: 0,
        last: HEALTHY,
        slots: ["slot 0: vacant", "slot 1: healthy", "slot 2: healthy"],
      });
      expect((await check({ TASK_PROCESSOR_NUM_THREADS: "3" })).code).toBe(1);
    });
  });

  describe("data-api", () => {
    test("serves the Postgres it is given, says what it is without its password, and stops in order", async () => {
      const server = startStint(["data-api", "--port", "0", "--url", db.url]);
      await until("it listens", () => /http:\/\/127\.0\.0\.1:\d+/.test(server.output()));
      expect(server.output()).toMatch(/^A stand-in of the RDS Data API, not AWS's: /);
      const variables = Object.fromEntries(
        [...server.output().matchAll(/(\w+)=(\S+)/g)].map(([, name, value]) => [name, value]),
      );
      const database = connectDataApi({
        resourceArn: variables.DATABASE_RESOURCE_ARN!,
        secretArn: variables.DATABASE_SECRET_ARN!,
        database: variables.DATABASE_NAME!,
        schema: "task_processor",
        endpoint: variables.AWS_ENDPOINT_URL_RDS_DATA!,
      });
      expect(await pendingMigrations(database)).toEqual([]);
      await database.close();
      expect((await stint(["enqueue", "over.http", "{}"], variables as Record<string, string>)).stdout).toContain(
        '"enqueued"',
      );
      expect((await stint(["monitoring"], env)).stdout).toBe('{"waiting":1}\n');
      server.child.kill("SIGTERM");
      expect((await server.ended).code).toBe(0);
    });

    test("a port in use is a clear error", async () => {
      const taken = createServer().listen(0, "127.0.0.1");
      await new Promise((resolve) => taken.once("listening", resolve));
      const { port } = taken.address() as { port: number };
      const { code, stderr } = await stint(["data-api", "--port", String(port), "--url", db.url]);
      taken.close();
      expect(code).toBe(1);
      expect(stderr).toBe(`port_in_use: Port ${port} is in use: name another with --port.\n`);
    });
  });
});
