/** The command's flags. */
import { parseArgs } from "node:util";
import { PROFILES, type Profile, RESIDENTS, type Workload, workloadOf } from "./workload.ts";

export interface Options {
  readonly workloads: readonly { readonly profile: Profile; readonly workload: Workload }[];
  readonly freeTier: boolean;
  readonly json: boolean;
  readonly prices: boolean;
  readonly seed: number;
}

export const USAGE = `npm run cost -- --tasks-per-month N --ms N [--memory-mb N] [--slots N] [--places N]
  [--profile strict|standard|quiet] [--residents N] [--free-tier] [--seed N] [--json]

--tasks-per-month  0 to 30,000,000,000 (10,000 a second are 26,280,000,000)
--ms               how long a task runs, 1 to 840,000
--memory-mb        of the processor function, 128 to 10,240 (512)
--slots            1 to 1,000 (5)
--places           TASK_PROCESSOR_QUEUE_POP_SIZE, 1 to 2,000 (10)
--profile          without it all three, side by side
--residents        instead of the profile's, up to the slots; standard when no profile is given
--free-tier        takes off what AWS gives away each month
--seed             of the simulation (1)
--json             one line of JSON instead of the table
--prices           the table of prices alone
`;

const TEXTS = ["tasks-per-month", "ms", "memory-mb", "slots", "places", "residents", "seed", "profile"] as const;
const FLAGS = ["free-tier", "json", "prices"] as const;

/** @throws Error that names everything that is wrong with them */
export function readOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...Object.fromEntries(TEXTS.map((name) => [name, { type: "string" as const }])),
      ...Object.fromEntries(FLAGS.map((name) => [name, { type: "boolean" as const }])),
    },
  }) as { values: { [name in (typeof TEXTS)[number]]?: string } & { [name in (typeof FLAGS)[number]]?: boolean } };
  const problems: string[] = [];
  const whole = (name: (typeof TEXTS)[number], from: number, to: number, otherwise?: number): number => {
    const text = values[name];
    if (text === undefined && otherwise !== undefined) return otherwise;
    const number = text !== undefined && /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(number >= from && number <= to))
      problems.push(`--${name} is ${text === undefined ? "missing" : JSON.stringify(text)}; allowed: ${from} to ${to}`);
    return number;
  };
  const shown = { freeTier: values["free-tier"] === true, json: values.json === true };
  if (values.prices) return { ...shown, workloads: [], prices: true, seed: 1 };
  const given = {
    tasksPerMonth: whole("tasks-per-month", 0, 30e9),
    taskMs: whole("ms", 1, 840_000),
    memoryMb: whole("memory-mb", 128, 10_240, 512),
    slots: whole("slots", 1, 1000, 5),
    places: whole("places", 1, 2000, 10),
  };
  const seed = whole("seed", 0, 2 ** 32 - 1, 1);
  const residents = values.residents === undefined ? undefined : whole("residents", 0, given.slots || 1000);
  const profiles = PROFILES.filter((profile) => profile === (values.profile ?? profile));
  if (profiles.length === 0)
    problems.push(`--profile is ${JSON.stringify(values.profile)}; allowed: ${PROFILES.join(", ")}`);
  if (values.profile === "quiet" && residents !== undefined && residents !== RESIDENTS.quiet)
    problems.push("--profile is quiet, in which nobody polls, and --residents is not 0");
  if (problems.length > 0) throw new Error(problems.join("\n"));
  const chosen = residents !== undefined && values.profile === undefined ? (["standard"] as const) : profiles;
  return {
    ...shown,
    prices: false,
    seed,
    workloads: chosen.map((profile) => ({
      profile,
      workload: workloadOf(profile, residents === undefined ? given : { ...given, residents }),
    })),
  };
}
