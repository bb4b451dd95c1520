/** The only reader of process.env. */
import * as z from "zod/mini";
import { describe, type Environment, type NamedDatabase, readDatabases } from "./config-databases.ts";
import { StintError } from "./errors.ts";

export type RunMethod = "TASK_PROCESSOR" | "SEPARATE_THREAD" | "SYNCHRONOUSLY";

export interface Config {
  readonly runMethod: RunMethod;
  readonly sleepIntervalMs: number;
  readonly numThreads: number;
  readonly graceMs: number;
  readonly queuePopSize: number;
  /** undefined: 1 in the cloud, all of them in a container. */
  readonly residentSlots: number | undefined;
  readonly invocationMs: number;
  readonly schema: string;
  readonly databases: readonly NamedDatabase[];
  /** Endpoint of the Data API, when it is not AWS's own. */
  readonly dataApiEndpoint: string | undefined;
  /** Name or ARN of the processor function: who is called when more is due than an invocation can take. */
  readonly wakeFunction: string | undefined;
  readonly lambdaEndpoint: string | undefined;
  /** An SQS queue that calls the processor: wakes at the next due time, where nobody polls. */
  readonly wakeQueueUrl: string | undefined;
  readonly sqsEndpoint: string | undefined;
  /** A container listens for NOTIFY beside polling, on one more connection a database. */
  readonly listen: boolean;
  readonly healthCheckEnabled: boolean;
  readonly backoffDefaultMs: number;
  readonly cleanUp: CleanUpConfig;
  readonly monitoring: MonitoringConfig;
}

export interface CleanUpConfig {
  readonly enabled: boolean;
  readonly retentionDays: number;
  readonly runTime: string;
  readonly runEverySeconds: number;
  readonly batchSize: number;
  readonly includeFailedTasks: boolean;
  readonly recurringRetentionDays: number;
}

export interface MonitoringConfig {
  readonly readTokens: readonly NamedToken[];
  readonly adminTokens: readonly NamedToken[];
  readonly public: boolean;
}

export interface NamedToken {
  readonly name: string;
  readonly token: string;
}

const wholeNumber = (from: number, to: number) =>
  z.pipe(
    z.string().check(z.regex(/^\s*-?\d+\s*$/, `a whole number from ${from} to ${to}`)),
    z.pipe(
      z.transform(Number),
      z.int().check(z.gte(from, `from ${from} to ${to}`), z.lte(to, `from ${from} to ${to}`)),
    ),
  );

const whole = (from: number, to: number, fallback: number) => z._default(wholeNumber(from, to), fallback);

const flag = (fallback: boolean) =>
  z._default(
    z.pipe(
      z.string().check(z.regex(/^([Tt]rue|1|[Ff]alse|0)$/, "true, True, 1, false, False or 0")),
      z.transform((text: string) => /^(true|1)$/i.test(text)),
    ),
    fallback,
  );

const arn = (service: string) =>
  z.optional(z.string().check(z.regex(new RegExp(`^arn:aws[a-z-]*:${service}:.{4,}$`), `an ARN of ${service}`)));

const url = z.optional(
  z.string().check(z.regex(/^postgres(ql)?:\/\/.+/, "a URL that starts with postgres:// or postgresql://")),
);

const database = z.optional(
  z.string().check(z.minLength(1, "a name of 1 to 63 characters"), z.maxLength(63, "a name of 1 to 63 characters")),
);

const tokens = z._default(
  z.pipe(
    z.string(),
    z.transform((text: string, context) => {
      const named = text.split(",").map((part) => /^\s*(?:([\w.@-]+):)?(\S+)\s*$/.exec(part));
      if (named.some((match) => match === null || match[2]!.length < 16)) {
        context.issues.push({
          code: "custom",
          message: "name:token, several by comma, each token of at least 16 characters",
          input: text,
        });
        return z.NEVER;
      }
      return named.map((match, place) => ({ name: match![1] ?? `token-${place + 1}`, token: match![2]! }));
    }),
  ),
  [] as NamedToken[],
);

/** Of the default; less where a quarter of the grace period is less. */
const SLEEP_INTERVAL_MS = 2000;

const environment = z.object({
  TASK_RUN_METHOD: z._default(
    z.enum(["TASK_PROCESSOR", "SEPARATE_THREAD", "SYNCHRONOUSLY"], {
      error: "TASK_PROCESSOR, SEPARATE_THREAD or SYNCHRONOUSLY",
    }),
    "SEPARATE_THREAD",
  ),
  TASK_PROCESSOR_SLEEP_INTERVAL_MS: z.optional(wholeNumber(50, 150_000)),
  TASK_PROCESSOR_NUM_THREADS: whole(1, 1000, 5),
  TASK_PROCESSOR_GRACE_PERIOD_MS: whole(5000, 600_000, 20_000),
  TASK_PROCESSOR_QUEUE_POP_SIZE: whole(1, 2000, 10),
  TASK_PROCESSOR_RESIDENT_SLOTS: z.optional(wholeNumber(0, 1000)),
  TASK_PROCESSOR_INVOCATION_MS: whole(10_000, 86_400_000, 900_000),
  TASK_PROCESSOR_SCHEMA: z._default(
    z.string().check(z.regex(/^[a-z_][a-z0-9_]{0,62}$/, "1 to 63 of a-z, 0-9 and _, no digit first")),
    "task_processor",
  ),
  DATABASE_URL: url,
  DATABASE_RESOURCE_ARN: arn("rds"),
  DATABASE_SECRET_ARN: arn("secretsmanager"),
  DATABASE_NAME: database,
  TASK_PROCESSOR_DATABASE_URL: url,
  TASK_PROCESSOR_DATABASE_RESOURCE_ARN: arn("rds"),
  TASK_PROCESSOR_DATABASE_SECRET_ARN: arn("secretsmanager"),
  TASK_PROCESSOR_DATABASE_NAME: database,
  TASK_PROCESSOR_DATABASES: z.optional(z.string()),
  TASK_PROCESSOR_WAKE_FUNCTION: z.optional(z.string().check(z.regex(/^[\w:-]{1,170}$/, "a function's name or ARN"))),
  TASK_PROCESSOR_WAKE_QUEUE_URL: z.optional(z.string().check(z.regex(/^https?:\/\/.+/, "a URL"))),
  AWS_ENDPOINT_URL_SQS: z.optional(z.string().check(z.regex(/^https?:\/\/.+/, "a URL"))),
  AWS_ENDPOINT_URL_LAMBDA: z.optional(z.string().check(z.regex(/^https?:\/\/.+/, "a URL"))),
  AWS_ENDPOINT_URL_RDS_DATA: z.optional(z.string().check(z.regex(/^https?:\/\/.+/, "a URL"))),
  TASK_PROCESSOR_LISTEN: flag(false),
  ENABLE_TASK_PROCESSOR_HEALTH_CHECK: flag(false),
  TASK_BACKOFF_DEFAULT_DELAY_SECONDS: whole(0, 86_400, 5),
  ENABLE_CLEAN_UP_OLD_TASKS: flag(true),
  TASK_DELETE_RETENTION_DAYS: whole(1, 3650, 30),
  TASK_DELETE_RUN_TIME: z._default(
    z.string().check(z.regex(/^([01]\d|2[0-3]):[0-5]\d$/, "a time of day, HH:MM")),
    "01:00",
  ),
  TASK_DELETE_RUN_EVERY: whole(60, 31_536_000, 86_400),
  TASK_DELETE_BATCH_SIZE: whole(1, 100_000, 2000),
  TASK_DELETE_INCLUDE_FAILED_TASKS: flag(false),
  RECURRING_TASK_RUN_RETENTION_DAYS: whole(1, 3650, 30),
  MONITORING_TOKEN: tokens,
  MONITORING_ADMIN_TOKEN: tokens,
  MONITORING_PUBLIC: flag(false),
});

/**
 * Reads and checks the whole environment. Empty variables count as not set.
 * @throws StintError config_invalid, naming every bad variable, what it was and what is allowed
 */
export function readConfig(env: Environment = process.env): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
  const parsed = z.safeParse(environment, given);
  const bad = new Map(parsed.success ? [] : parsed.error.issues.map((issue) => [String(issue.path[0]), issue.message]));
  const problems = [...bad].map(([name, allowed]) => describe(name, given, allowed));
  // What hangs together is checked all the same, with the defaults in place of the bad ones.
  const values = parsed.success
    ? parsed.data
    : z.parse(environment, Object.fromEntries(Object.entries(given).filter(([name]) => !bad.has(name))));
  const mostSleepMs = Math.floor(values.TASK_PROCESSOR_GRACE_PERIOD_MS / 4);
  const sleepIntervalMs = values.TASK_PROCESSOR_SLEEP_INTERVAL_MS ?? Math.min(SLEEP_INTERVAL_MS, mostSleepMs);
  if (sleepIntervalMs > mostSleepMs && !bad.has("TASK_PROCESSOR_GRACE_PERIOD_MS")) {
    const allowed = `from 50 to a quarter of the grace period, ${mostSleepMs}`;
    problems.push(describe("TASK_PROCESSOR_SLEEP_INTERVAL_MS", given, allowed));
  }
  const databases = readDatabases(values, given, problems);
  if (problems.length > 0) throw invalid(problems);
  return Object.freeze({
    runMethod: values.TASK_RUN_METHOD,
    sleepIntervalMs,
    numThreads: values.TASK_PROCESSOR_NUM_THREADS,
    graceMs: values.TASK_PROCESSOR_GRACE_PERIOD_MS,
    queuePopSize: values.TASK_PROCESSOR_QUEUE_POP_SIZE,
    residentSlots: values.TASK_PROCESSOR_RESIDENT_SLOTS,
    invocationMs: values.TASK_PROCESSOR_INVOCATION_MS,
    schema: values.TASK_PROCESSOR_SCHEMA,
    databases,
    dataApiEndpoint: values.AWS_ENDPOINT_URL_RDS_DATA,
    wakeFunction: values.TASK_PROCESSOR_WAKE_FUNCTION,
    lambdaEndpoint: values.AWS_ENDPOINT_URL_LAMBDA,
    wakeQueueUrl: values.TASK_PROCESSOR_WAKE_QUEUE_URL,
    sqsEndpoint: values.AWS_ENDPOINT_URL_SQS,
    listen: values.TASK_PROCESSOR_LISTEN,
    healthCheckEnabled: values.ENABLE_TASK_PROCESSOR_HEALTH_CHECK,
    backoffDefaultMs: values.TASK_BACKOFF_DEFAULT_DELAY_SECONDS * 1000,
    cleanUp: {
      enabled: values.ENABLE_CLEAN_UP_OLD_TASKS,
      retentionDays: values.TASK_DELETE_RETENTION_DAYS,
      runTime: values.TASK_DELETE_RUN_TIME,
      runEverySeconds: values.TASK_DELETE_RUN_EVERY,
      batchSize: values.TASK_DELETE_BATCH_SIZE,
      includeFailedTasks: values.TASK_DELETE_INCLUDE_FAILED_TASKS,
      recurringRetentionDays: values.RECURRING_TASK_RUN_RETENTION_DAYS,
    },
    monitoring: {
      readTokens: values.MONITORING_TOKEN,
      adminTokens: values.MONITORING_ADMIN_TOKEN,
      public: values.MONITORING_PUBLIC,
    },
  });
}

const invalid = (problems: string[]): StintError =>
  new StintError("config_invalid", `The configuration is not usable.\n- ${problems.join("\n- ")}`);

/** Whether this process is frozen with its response. */
export const inLambda = (env: Environment = process.env): boolean => env.AWS_LAMBDA_FUNCTION_NAME !== undefined;

/** Whether Lambda's own runtime runs this process; `invoke local` and serverless-offline do without. */
export const hasLambdaRuntime = (env: Environment = process.env): boolean => env.AWS_LAMBDA_RUNTIME_API !== undefined;

/** Names this deployment in logs and metrics. */
export const serviceName = (env: Environment = process.env): string =>
  env.POWERTOOLS_SERVICE_NAME || env.AWS_LAMBDA_FUNCTION_NAME || "stint";

export interface LogStyle {
  /** For people, else JSON. */
  readonly readable: boolean;
  readonly debug: boolean;
}

export const logStyle = (env: Environment = process.env): LogStyle => ({
  readable: env.NODE_ENV === "development" || process.stderr.isTTY === true,
  debug: env.LOG_LEVEL?.toUpperCase() === "DEBUG",
});

/** Of the migrate function: `producer=ARN,worker=ARN`, the secrets of the roles it makes. */
export const roleSecrets = (env: Environment = process.env): string | undefined => env.STINT_ROLE_SECRETS;
