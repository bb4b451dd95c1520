/** Which databases a configuration names. */
import type { DatabaseTarget } from "./database/connect.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** In the order in which they are drained; the producer writes to the last one. */
export interface NamedDatabase {
  readonly name: "default" | "task_processor";
  readonly target: DatabaseTarget;
}

type Prefix = "" | "TASK_PROCESSOR_";
type Values = Readonly<
  Partial<
    Record<
      `${Prefix}DATABASE_${"URL" | "RESOURCE_ARN" | "SECRET_ARN" | "NAME"}` | "TASK_PROCESSOR_DATABASES",
      string | undefined
    >
  >
>;

/** A secret is named, never shown. */
export const describe = (name: string, given: Environment, allowed: string): string =>
  `${name} is ${/URL|TOKEN|SECRET/.test(name) ? "not usable" : JSON.stringify(given[name] ?? null)}; allowed: ${allowed}`;

/** What is not usable goes into `problems`. */
export function readDatabases(values: Values, given: Environment, problems: string[]): NamedDatabase[] {
  const main = readTarget("", values, given, problems);
  const separate = readTarget("TASK_PROCESSOR_", values, given, problems);
  const targets = { default: main, task_processor: separate };
  const list = values.TASK_PROCESSOR_DATABASES ?? (separate === undefined ? "default" : "default,task_processor");
  const names = list.split(",").map((name) => name.trim());
  const found: NamedDatabase[] = [];
  if (names.some((name) => name !== "default" && name !== "task_processor") || new Set(names).size < names.length) {
    problems.push(
      describe(
        "TASK_PROCESSOR_DATABASES",
        given,
        "default and task_processor, each once, by comma, in the order they are drained",
      ),
    );
    return found;
  }
  for (const name of names as NamedDatabase["name"][]) {
    const target = targets[name];
    const prefix = name === "default" ? "" : "TASK_PROCESSOR_";
    if (target !== undefined) found.push({ name, target });
    else if (values.TASK_PROCESSOR_DATABASES !== undefined && !isGiven(prefix, given)) {
      problems.push(`TASK_PROCESSOR_DATABASES names ${name}, of which no ${prefix}DATABASE_URL or ARNs are set`);
    }
  }
  return found;
}

const isGiven = (prefix: Prefix, given: Environment): boolean =>
  ["URL", "RESOURCE_ARN", "SECRET_ARN"].some((part) => given[`${prefix}DATABASE_${part}`] !== undefined);

function readTarget(
  prefix: Prefix,
  values: Values,
  given: Environment,
  problems: string[],
): DatabaseTarget | undefined {
  const givenPart = (part: string): boolean => given[`${prefix}DATABASE_${part}`] !== undefined;
  const anyArn = givenPart("RESOURCE_ARN") || givenPart("SECRET_ARN");
  if (givenPart("URL") && anyArn) {
    problems.push(
      `${prefix}DATABASE_URL and ${prefix}DATABASE_${givenPart("RESOURCE_ARN") ? "RESOURCE" : "SECRET"}_ARN are both set: one of the two kinds is allowed`,
    );
    return undefined;
  }
  const url = values[`${prefix}DATABASE_URL`];
  if (url !== undefined) return { kind: "pg", url };
  if (!anyArn) return undefined;
  for (const part of ["RESOURCE_ARN", "SECRET_ARN", "NAME"]) {
    if (!givenPart(part))
      problems.push(
        `${prefix}DATABASE_${part} is not set; ${prefix}DATABASE_RESOURCE_ARN, _SECRET_ARN and _NAME go together`,
      );
  }
  const [resourceArn, secretArn, database] = [
    values[`${prefix}DATABASE_RESOURCE_ARN`],
    values[`${prefix}DATABASE_SECRET_ARN`],
    values[`${prefix}DATABASE_NAME`],
  ];
  if (resourceArn === undefined || secretArn === undefined || database === undefined) return undefined;
  return { kind: "data-api", resourceArn, secretArn, database };
}
