/** The only reader of process.env. */
import { describe, type Environment, type NamedDatabase, readDatabases } from "./config-databases.ts";
import { readVariables } from "./config-variables.ts";
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

/** Of the default; less where a quarter of the grace period is less. */
const SLEEP_INTERVAL_MS = 2000;

/**
 * Reads and checks the whole environment. Empty variables count as not set.
 * @throws StintError config_invalid, naming every bad variable, what it was and what is allowed
 */
export function readConfig(env: Environment = process.env): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
  const bad = new Map<string, string>();
  // What hangs together is checked all the same, with the defaults in place of the bad ones.
  const values = readVariables(given, bad);
  const problems = [...bad].map(([name, allowed]) => describe(name, given, allowed));
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
