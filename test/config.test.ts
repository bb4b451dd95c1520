import { describe, expect, test } from "vitest";
import { readConfig } from "../lib/config.ts";
import type { StintError } from "../lib/errors.ts";

const CLUSTER = "arn:aws:rds:eu-west-1:123456789012:cluster:main";
const SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:main-AbCdEf";

/** The lines that name what is wrong. */
function problemsOf(env: Record<string, string>): string[] {
  try {
    readConfig(env);
  } catch (error) {
    expect((error as StintError).code).toBe("config_invalid");
    return (error as Error).message.split("\n").slice(1);
  }
  return [];
}

describe("defaults", () => {
  test("are the original's", () => {
    const config = readConfig({});
    expect(config).toMatchObject({
      runMethod: "SEPARATE_THREAD",
      sleepIntervalMs: 2000,
      numThreads: 5,
      graceMs: 20_000,
      queuePopSize: 10,
      invocationMs: 900_000,
      schema: "task_processor",
      databases: [],
      healthCheckEnabled: false,
      backoffDefaultMs: 5000,
      cleanUp: {
        enabled: true,
        retentionDays: 30,
        runTime: "01:00",
        runEverySeconds: 86_400,
        batchSize: 2000,
        includeFailedTasks: false,
        recurringRetentionDays: 30,
      },
      monitoring: { readTokens: [], adminTokens: [], public: false },
    });
    expect(config.residentSlots).toBeUndefined();
    expect(Object.isFrozen(config)).toBe(true);
  });

  test("stand for empty variables", () => {
    expect(readConfig({ TASK_PROCESSOR_NUM_THREADS: "", DATABASE_URL: "", TASK_RUN_METHOD: "" })).toEqual(
      readConfig({}),
    );
  });

  test.each(["true", "True", "1"])("%s is true", (text) => {
    expect(readConfig({ ENABLE_TASK_PROCESSOR_HEALTH_CHECK: text }).healthCheckEnabled).toBe(true);
  });

  test.each(["false", "False", "0"])("%s is false", (text) => {
    expect(readConfig({ ENABLE_CLEAN_UP_OLD_TASKS: text }).cleanUp.enabled).toBe(false);
  });
});

describe("bad variables", () => {
  const BAD = {
    TASK_RUN_METHOD: "THREAD",
    TASK_PROCESSOR_SLEEP_INTERVAL_MS: "49",
    TASK_PROCESSOR_NUM_THREADS: "0",
    TASK_PROCESSOR_GRACE_PERIOD_MS: "20s",
    TASK_PROCESSOR_QUEUE_POP_SIZE: "2001",
    TASK_PROCESSOR_RESIDENT_SLOTS: "-1",
    TASK_PROCESSOR_INVOCATION_MS: "1.5",
    TASK_PROCESSOR_SCHEMA: "Task Processor",
    DATABASE_URL: "mysql://somewhere",
    TASK_PROCESSOR_DATABASE_RESOURCE_ARN: "cluster",
    TASK_PROCESSOR_DATABASES: "default,other",
    ENABLE_TASK_PROCESSOR_HEALTH_CHECK: "yes",
    TASK_BACKOFF_DEFAULT_DELAY_SECONDS: "soon",
    ENABLE_CLEAN_UP_OLD_TASKS: "no",
    TASK_DELETE_RETENTION_DAYS: "0",
    TASK_DELETE_RUN_TIME: "24:00",
    TASK_DELETE_RUN_EVERY: "59",
    TASK_DELETE_BATCH_SIZE: "0",
    TASK_DELETE_INCLUDE_FAILED_TASKS: "maybe",
    RECURRING_TASK_RUN_RETENTION_DAYS: "x",
    MONITORING_TOKEN: "short",
    MONITORING_ADMIN_TOKEN: "ops:short",
    MONITORING_PUBLIC: "on",
  };

  test("are all named at once", () => {
    const named = problemsOf(BAD).map((line) => /^- (\w+)/.exec(line)?.[1]);
    expect(new Set(named)).toEqual(
      new Set([...Object.keys(BAD), "TASK_PROCESSOR_DATABASE_SECRET_ARN", "TASK_PROCESSOR_DATABASE_NAME"]),
    );
  });

  test.each(Object.entries(BAD))("%s=%s says what it was and what is allowed", (name, value) => {
    const line = problemsOf({ [name]: value }).find((one) => one.startsWith(`- ${name} is `));
    expect(line).toMatch(/; allowed: .+/);
    if (/URL|TOKEN/.test(name)) expect(line).not.toContain(value);
    else expect(line).toContain(JSON.stringify(value));
  });

  test("a sleep interval over a quarter of the grace period is refused, in words of both", () => {
    expect(problemsOf({ TASK_PROCESSOR_GRACE_PERIOD_MS: "5000", TASK_PROCESSOR_SLEEP_INTERVAL_MS: "1251" })).toEqual([
      '- TASK_PROCESSOR_SLEEP_INTERVAL_MS is "1251"; allowed: from 50 to a quarter of the grace period, 1250',
    ]);
    expect(problemsOf({ TASK_PROCESSOR_GRACE_PERIOD_MS: "5000", TASK_PROCESSOR_SLEEP_INTERVAL_MS: "1250" })).toEqual(
      [],
    );
  });

  test("the default sleep interval follows a short grace period", () => {
    expect(readConfig({ TASK_PROCESSOR_GRACE_PERIOD_MS: "5000" }).sleepIntervalMs).toBe(1250);
  });

  test("a secret is never shown", () => {
    const secret = "hunter2-hunter2";
    expect(problemsOf({ DATABASE_URL: `mysql://me:${secret}@host/db`, MONITORING_TOKEN: secret }).join()).not.toContain(
      secret,
    );
  });
});

describe("databases", () => {
  test("both kinds together are an error, for either database, beside the others", () => {
    const both = {
      DATABASE_URL: "postgres://a/b",
      DATABASE_RESOURCE_ARN: CLUSTER,
      DATABASE_SECRET_ARN: SECRET,
      DATABASE_NAME: "app",
    };
    const separate = Object.fromEntries(Object.entries(both).map(([name, value]) => [`TASK_PROCESSOR_${name}`, value]));
    expect(problemsOf({ ...both, ...separate, TASK_PROCESSOR_NUM_THREADS: "x" })).toEqual([
      '- TASK_PROCESSOR_NUM_THREADS is "x"; allowed: a whole number from 1 to 1000',
      "- DATABASE_URL and DATABASE_RESOURCE_ARN are both set: one of the two kinds is allowed",
      "- TASK_PROCESSOR_DATABASE_URL and TASK_PROCESSOR_DATABASE_RESOURCE_ARN are both set: one of the two kinds is allowed",
    ]);
  });

  test("a cluster needs all three of its variables", () => {
    expect(problemsOf({ DATABASE_RESOURCE_ARN: CLUSTER })).toEqual([
      "- DATABASE_SECRET_ARN is not set; DATABASE_RESOURCE_ARN, _SECRET_ARN and _NAME go together",
      "- DATABASE_NAME is not set; DATABASE_RESOURCE_ARN, _SECRET_ARN and _NAME go together",
    ]);
  });

  test("a separate one is drained after the default one, unless told otherwise", () => {
    const env = {
      DATABASE_URL: "postgres://a/b",
      TASK_PROCESSOR_DATABASE_RESOURCE_ARN: CLUSTER,
      TASK_PROCESSOR_DATABASE_SECRET_ARN: SECRET,
      TASK_PROCESSOR_DATABASE_NAME: "tasks",
    };
    const separate = {
      name: "task_processor",
      target: { kind: "data-api", resourceArn: CLUSTER, secretArn: SECRET, database: "tasks" },
    };
    expect(readConfig(env).databases).toEqual([
      { name: "default", target: { kind: "pg", url: "postgres://a/b" } },
      separate,
    ]);
    expect(readConfig({ ...env, TASK_PROCESSOR_DATABASES: "task_processor" }).databases).toEqual([separate]);
  });

  test("one that is named must be set, and named once", () => {
    expect(problemsOf({ DATABASE_URL: "postgres://a/b", TASK_PROCESSOR_DATABASES: "default,task_processor" })).toEqual([
      "- TASK_PROCESSOR_DATABASES names task_processor, of which no TASK_PROCESSOR_DATABASE_URL or ARNs are set",
    ]);
    expect(problemsOf({ DATABASE_URL: "postgres://a/b", TASK_PROCESSOR_DATABASES: "default,default" })).toHaveLength(1);
  });
});
