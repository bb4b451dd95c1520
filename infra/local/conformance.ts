/** `npm run conformance`: the same questions to the stand-in and to another Data API, point by point. */
import { isDeepStrictEqual, parseArgs } from "node:util";
import { Conversation, type Limits, type Target } from "./conformance/conversation.ts";
import { fixtures, type Point, singleCalls } from "./conformance/single-calls.ts";
import { stories } from "./conformance/stories.ts";

export type { Limits, Target } from "./conformance/conversation.ts";

export interface Finding {
  readonly number: number;
  readonly name: string;
  readonly same: boolean;
  readonly standIn: unknown;
  readonly other: unknown;
}

export interface CompareOptions {
  /** Also the points that wait for the time limits: about five minutes on AWS. */
  readonly slow?: boolean;
  readonly limits?: Limits;
}

/** In the order of the checklist. */
export const points: readonly Point[] = [...singleCalls, ...stories].sort((a, b) => a.number - b.number);

const awsLimits: Limits = { statementMs: 45_000, idleMs: 180_000 };

/** Asks one side after the other, each in a schema that is dropped afterwards, so that both may be the same cluster. */
export async function compare(
  standIn: Target,
  other: Target,
  { slow = false, limits = awsLimits }: CompareOptions = {},
): Promise<Finding[]> {
  const chosen = points.filter((point) => slow || !point.slow);
  // The same name on both sides: positions in error messages count its letters.
  const schema = `stint_conformance_${process.pid}`;
  const here = await observe(standIn, chosen, schema, limits);
  const there = await observe(other, chosen, schema, limits);
  return chosen.map(({ number, name }, at) => ({
    number,
    name,
    same: isDeepStrictEqual(here[at], there[at]),
    standIn: here[at],
    other: there[at],
  }));
}

async function observe(target: Target, chosen: Point[], schema: string, limits: Limits): Promise<unknown[]> {
  const api = new Conversation(target, schema, limits);
  const seen: unknown[] = [];
  try {
    await api.setUp(fixtures);
    for (const point of chosen) seen.push(await point.run(api).catch((error) => ({ failed: String(error) })));
  } finally {
    await api.tearDown();
  }
  return seen;
}

export function tableOf(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.flatMap(({ number, name, same, standIn, other }) => [
    `${String(number).padStart(2)}  ${name.padEnd(width)}  ${same ? "same" : "DIFFERENT"}`,
    ...(same ? [] : [`      stand-in  ${JSON.stringify(standIn)}`, `      other     ${JSON.stringify(other)}`]),
  ]);
  const different = findings.filter(({ same }) => !same).length;
  const left = new Set(points.filter(({ slow }) => slow).map(({ name }) => name));
  const ran = new Set(findings.map(({ name }) => name));
  const missing = [...left].filter((name) => !ran.has(name));
  return [
    ...lines,
    "19  faults are the stand-in's alone",
    ...(missing.length > 0 ? [`Left out without --slow: ${missing.join(", ")}.`] : []),
    `${findings.length - different} the same, ${different} different`,
  ].join("\n");
}

const usage = `npm run conformance -- --resource-arn ARN --secret-arn ARN --database NAME
  --endpoint URL   another endpoint than AWS's of the region
  --region NAME    default AWS_REGION
  --slow           also wait for the time limits (five minutes)
  --json           the findings as JSON
Makes a schema stint_conformance_N in the database and drops it. Exit code 1: there are differences, 2: it could not be run.`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      endpoint: { type: "string" },
      region: { type: "string" },
      "resource-arn": { type: "string" },
      "secret-arn": { type: "string" },
      database: { type: "string" },
      slow: { type: "boolean" },
      json: { type: "boolean" },
      help: { type: "boolean" },
    },
  });
  const { "resource-arn": resourceArn, "secret-arn": secretArn, database } = values;
  if (values.help || !resourceArn || !secretArn || !database) {
    process.stderr.write(`${usage}\n`);
    return values.help ? 0 : 2;
  }
  const { LOCAL } = await import("./stack.ts");
  const { startPostgres } = await import("./postgres.ts");
  const { startDataApi } = await import("./data-api/index.ts");
  const postgres = await startPostgres({ settings: { fsync: "off" } });
  const { username } = new URL(postgres.url.replace("@/", "@localhost/"));
  const secrets = { [LOCAL.secretArn]: { user: decodeURIComponent(username) } };
  const api = await startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url: postgres.url, secrets }] });
  try {
    const other = { endpoint: values.endpoint, region: values.region, resourceArn, secretArn, database };
    const findings = await compare({ ...LOCAL, endpoint: api.endpoint }, other, { slow: values.slow === true });
    process.stdout.write(`${values.json ? JSON.stringify(findings) : tableOf(findings)}\n`);
    return findings.every(({ same }) => same) ? 0 : 1;
  } finally {
    await api.close();
    await postgres.stop("immediate");
  }
}

if (import.meta.main) {
  main().then(
    (code) => {
      process.exitCode = code;
    },
    (error: unknown) => {
      process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
      process.exitCode = 2;
    },
  );
}
