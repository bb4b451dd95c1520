/** The variables of the environment: what each may be, and what stands for one that is not set. */
import type { NamedToken, RunMethod } from "./config.ts";
import type { Environment } from "./config-databases.ts";

/** Read by hand: schemas would take a fifteenth of the processor's cold start. */
interface Variable<Value> {
  readonly read: (text: string) => { readonly value: Value } | { readonly allowed: string };
  readonly fallback: Value;
}

const whole = <Fallback>(from: number, to: number, fallback: Fallback): Variable<number | Fallback> => ({
  read: (text) => {
    if (!/^\s*-?\d+\s*$/.test(text)) return { allowed: `a whole number from ${from} to ${to}` };
    const value = Number(text);
    return value >= from && value <= to ? { value } : { allowed: `from ${from} to ${to}` };
  },
  fallback,
});

const flag = (fallback: boolean): Variable<boolean> => ({
  read: (text) =>
    /^([Tt]rue|1|[Ff]alse|0)$/.test(text)
      ? { value: /^(true|1)$/i.test(text) }
      : { allowed: "true, True, 1, false, False or 0" },
  fallback,
});

const matching = <Fallback>(pattern: RegExp, allowed: string, fallback: Fallback): Variable<string | Fallback> => ({
  read: (text) => (pattern.test(text) ? { value: text } : { allowed }),
  fallback,
});

const runMethod: Variable<RunMethod> = {
  read: (text) =>
    text === "TASK_PROCESSOR" || text === "SEPARATE_THREAD" || text === "SYNCHRONOUSLY"
      ? { value: text }
      : { allowed: "TASK_PROCESSOR, SEPARATE_THREAD or SYNCHRONOUSLY" },
  fallback: "SEPARATE_THREAD",
};

const tokens: Variable<readonly NamedToken[]> = {
  read: (text) => {
    const named = text.split(",").map((part) => /^\s*(?:([\w.@-]+):)?(\S+)\s*$/.exec(part));
    if (named.some((match) => match === null || match[2]!.length < 16))
      return { allowed: "name:token, several by comma, each token of at least 16 characters" };
    return { value: named.map((match, place) => ({ name: match![1] ?? `token-${place + 1}`, token: match![2]! })) };
  },
  fallback: [],
};

const anyText = matching(/^/, "any text", undefined);
const url = matching(/^https?:\/\/.+/, "a URL", undefined);
const postgresUrl = matching(/^postgres(ql)?:\/\/.+/, "a URL that starts with postgres:// or postgresql://", undefined);
const clusterArn = matching(/^arn:aws[a-z-]*:rds:.{4,}$/, "an ARN of rds", undefined);
const secretArn = matching(/^arn:aws[a-z-]*:secretsmanager:.{4,}$/, "an ARN of secretsmanager", undefined);
const databaseName = matching(/^.{1,63}$/su, "a name of 1 to 63 characters", undefined);

const VARIABLES = {
  TASK_RUN_METHOD: runMethod,
  TASK_PROCESSOR_SLEEP_INTERVAL_MS: whole(50, 150_000, undefined),
  TASK_PROCESSOR_NUM_THREADS: whole(1, 1000, 5),
  TASK_PROCESSOR_GRACE_PERIOD_MS: whole(5000, 600_000, 20_000),
  TASK_PROCESSOR_QUEUE_POP_SIZE: whole(1, 2000, 10),
  TASK_PROCESSOR_RESIDENT_SLOTS: whole(0, 1000, undefined),
  TASK_PROCESSOR_INVOCATION_MS: whole(10_000, 86_400_000, 900_000),
  TASK_PROCESSOR_SCHEMA: matching(
    /^[a-z_][a-z0-9_]{0,62}$/,
    "1 to 63 of a-z, 0-9 and _, no digit first",
    "task_processor",
  ),
  DATABASE_URL: postgresUrl,
  DATABASE_RESOURCE_ARN: clusterArn,
  DATABASE_SECRET_ARN: secretArn,
  DATABASE_NAME: databaseName,
  TASK_PROCESSOR_DATABASE_URL: postgresUrl,
  TASK_PROCESSOR_DATABASE_RESOURCE_ARN: clusterArn,
  TASK_PROCESSOR_DATABASE_SECRET_ARN: secretArn,
  TASK_PROCESSOR_DATABASE_NAME: databaseName,
  TASK_PROCESSOR_DATABASES: anyText,
  TASK_PROCESSOR_WAKE_FUNCTION: matching(/^[\w:-]{1,170}$/, "a function's name or ARN", undefined),
  TASK_PROCESSOR_WAKE_QUEUE_URL: url,
  AWS_ENDPOINT_URL_SQS: url,
  AWS_ENDPOINT_URL_LAMBDA: url,
  AWS_ENDPOINT_URL_RDS_DATA: url,
  TASK_PROCESSOR_LISTEN: flag(false),
  ENABLE_TASK_PROCESSOR_HEALTH_CHECK: flag(false),
  TASK_BACKOFF_DEFAULT_DELAY_SECONDS: whole(0, 86_400, 5),
  ENABLE_CLEAN_UP_OLD_TASKS: flag(true),
  TASK_DELETE_RETENTION_DAYS: whole(1, 3650, 30),
  TASK_DELETE_RUN_TIME: matching(/^([01]\d|2[0-3]):[0-5]\d$/, "a time of day, HH:MM", "01:00"),
  TASK_DELETE_RUN_EVERY: whole(60, 31_536_000, 86_400),
  TASK_DELETE_BATCH_SIZE: whole(1, 100_000, 2000),
  TASK_DELETE_INCLUDE_FAILED_TASKS: flag(false),
  RECURRING_TASK_RUN_RETENTION_DAYS: whole(1, 3650, 30),
  MONITORING_TOKEN: tokens,
  MONITORING_ADMIN_TOKEN: tokens,
  MONITORING_PUBLIC: flag(false),
};

type Variables = typeof VARIABLES;
type Values = { readonly [Name in keyof Variables]: Variables[Name]["fallback"] };

/** What is allowed for a bad one goes into `bad`, by its name, and its fallback stands for it. */
export function readVariables(given: Environment, bad: Map<string, string>): Values {
  const settingOf = (name: string, { read, fallback }: Variable<unknown>): unknown => {
    const text = given[name];
    const found = text === undefined ? { value: fallback } : read(text);
    if ("value" in found) return found.value;
    bad.set(name, found.allowed);
    return fallback;
  };
  return Object.fromEntries(
    Object.entries(VARIABLES).map(([name, variable]) => [name, settingOf(name, variable)]),
  ) as Values;
}
