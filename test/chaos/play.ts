/** One run: faults and producers for a while, then calm until everything has ended, then the books. */
import { setTimeout as sleep } from "node:timers/promises";
import { allEnded, history } from "./ended.ts";
import { DatabaseFaults } from "./faults.ts";
import { checkInvariants } from "./invariants.ts";
import { readLogs } from "./logs.ts";
import { Operators } from "./operators.ts";
import { Producers, type Weights } from "./producers.ts";
import { Random } from "./random.ts";
import { type Broken, Counts, INVARIANTS, type Outcome } from "./report.ts";
import { type Mishaps, Scheduler, type Timing } from "./scheduler.ts";
import { probe, Watch } from "./watch.ts";
import { createWorld, type World } from "./world.ts";

export interface PlayOptions {
  readonly seed: number;
  readonly tasks: number;
  /** Of faults; 0: none at all, everything is enqueued at once. */
  readonly minutes: number;
  readonly slots: number;
  /** Between two ticks, in milliseconds. A process may live three times as long. */
  readonly everyMs: number;
  /** The grace period in milliseconds; many processes on few cores want a longer one than `SETTINGS` has. */
  readonly graceMs?: number | undefined;
  /** Of an invocation; default: as `SETTINGS` has it. */
  readonly queuePopSize?: number | undefined;
  /** Begin with the schema and the workers of this release, migrate under them, let both work, and go on with this one alone. */
  readonly upgradeFrom?: string | undefined;
  readonly write: (line: string) => void;
}

export const SETTINGS = {
  sleepIntervalMs: 100,
  graceMs: 1500,
  queuePopSize: 20,
  backoffDefaultMs: 50,
} as const;

const MISHAPS: Mishaps = { lost: 0.05, late: 0.05, duplicate: 0.1, kill: 0.6, freeze: 0.12 };

const WEIGHTS: Weights = {
  quick: 300,
  slow: 100,
  serial: 60,
  flaky: 60,
  single: 60,
  cancels: 20,
  never: 10,
  leaks: 10,
  exits: 10,
  poison: 4,
  blocks: 4,
  stalls: 1,
  holds: 25,
  eats: 4,
};

const HARMLESS = { never: 0, leaks: 0, exits: 0, poison: 0, blocks: 0, stalls: 0, holds: 0, eats: 0 };

/**
 * Over pg, of an invocation: it speaks in one exchange at a time. One that is not answered is given up on after a second, or a quarter
 * of the grace period, and repeated, while the database may still be at it; the lease ends after three quarters.
 */
const MOST_CONNECTIONS = 3;
/** Half of the processes go over pg, and one that comes to replace another is there together with it. */
const MOST_CONNECTIONS_OF_SLOT = 2;

export async function play(options: PlayOptions): Promise<Outcome & { readonly broken: readonly Broken[] }> {
  const { seed, minutes, slots, everyMs, upgradeFrom, write } = options;
  const limitMs = everyMs * 3;
  const { graceMs = SETTINGS.graceMs, queuePopSize = SETTINGS.queuePopSize } = options;
  const settings = { ...SETTINGS, graceMs, queuePopSize };
  const random = new Random(seed);
  const counts = new Counts();
  const faults = new Counts();
  const startedAt = performance.now();
  const timing: Timing = { slots, residents: 2, everyMs, limitMs, settings: { ...settings, invocationMs: limitMs } };
  const world = await createWorld({ ...settings, ...(upgradeFrom !== undefined && { from: upgradeFrom }) });
  const scheduler = new Scheduler(world, timing, random.fork(), faults, minutes > 0 ? MISHAPS : undefined);
  try {
    const watch = new Watch(world, settings.graceMs, counts);
    watch.start();
    const { producers, operators } = await underFire(options, world, scheduler, random, counts, faults);
    write(`${producers.intents.size} payloads after ${seconds(startedAt)} s; now calm`);
    const broken = await allEnded(world, write);
    // Behind a queue that is stuck, nothing can be seen.
    if (broken.length === 0) broken.push(...(await probe(world, settings.sleepIntervalMs, 20, counts)));
    await scheduler.kill();
    await watch.stop();
    const logs = readLogs(world, counts);
    faults.addAll(logs.faults);
    broken.push(...scheduler.broken, ...watch.broken, ...watch.untold(logs.told), ...logs.broken);
    broken.push(...tooManyConnections(counts, slots));
    const written = { ...operators, intents: producers.intents, executions: logs.executions };
    const checked = await checkInvariants(world, written, counts);
    broken.push(...checked.broken);
    broken.splice(10_000);
    counts.add("payloads", producers.intents.size);
    counts.add("handlers_started", logs.executions.length);
    const [database] = await world.sql<Record<string, string>>(
      `SELECT count(*) AS invocations_seen, count(*) FILTER (WHERE expired_at IS NOT NULL) AS invocations_expired, sum(rescued) AS tasks_rescued,
         sum(stale_completions) AS stale_completions FROM heartbeat`,
    );
    for (const [name, count] of Object.entries(database ?? {})) counts.add(name, Number(count));
    if (broken.length > 0) await history(world, broken, write);
    return {
      seed,
      seconds: seconds(startedAt),
      tasks: checked.stored,
      states: checked.states,
      kills: scheduler.kills,
      lost: checked.lost,
      invariants: Object.fromEntries(
        Object.keys(INVARIANTS).map((number) => [
          number,
          broken.filter((one) => one.invariant === Number(number)).length,
        ]),
      ),
      faults: faults.toJSON(),
      measured: counts.toJSON(),
      broken,
    };
  } finally {
    await scheduler.kill();
    await world.close();
  }
}

/** Everything that goes wrong, goes wrong meanwhile; then it is calm. */
async function underFire(
  { tasks, minutes, upgradeFrom }: PlayOptions,
  world: World,
  scheduler: Scheduler,
  random: Random,
  counts: Counts,
  faults: Counts,
): Promise<{ producers: Producers; operators: Operators }> {
  const faulty = minutes > 0;
  const producers = new Producers(world, random.fork(), counts, {
    tasks,
    overMs: minutes * 60_000,
    weights: faulty ? WEIGHTS : { ...WEIGHTS, ...HARMLESS },
    batch: faulty ? 60 : 10_000,
  });
  const database = new DatabaseFaults(world, random.fork(), faults);
  const operators = new Operators(world, random.fork(), faults, producers.ids);
  if (faulty) database.start();
  if (upgradeFrom !== undefined) scheduler.releases = "old";
  const producing = producers.run();
  // An overload is there before the first tick.
  if (!faulty) await producing;
  scheduler.start();
  // What an operator calls came with the second release.
  if (faulty && upgradeFrom === undefined) operators.start();
  const upgrading =
    upgradeFrom === undefined ? undefined : upgrade(world, scheduler, operators, minutes * 20_000, faults);
  if (faulty) {
    await Promise.race([producing, sleep(minutes * 60_000)]);
    producers.stop();
  }
  await producing;
  await upgrading;
  await operators.stop();
  await database.stop();
  scheduler.calmDown();
  return { producers, operators };
}

/** A database's connections are bounded by its slots. */
export function tooManyConnections(counts: Counts, slots: number): Broken[] {
  const of = (name: string, most: number): Broken[] =>
    counts.of(name) <= most
      ? []
      : [{ invariant: "connections", what: `${name}: ${counts.of(name)}, and not at most ${most}` }];
  return [
    ...of("pg_connections_of_one_max", MOST_CONNECTIONS),
    ...of("pg_connections_max", MOST_CONNECTIONS_OF_SLOT * slots),
  ];
}

/** A third of the run each: the release before alone, both, this one alone. The migration is repeated as a deployment would be. */
async function upgrade(
  world: World,
  scheduler: Scheduler,
  operators: Operators,
  thirdMs: number,
  faults: Counts,
): Promise<void> {
  await sleep(thirdMs);
  for (;;) {
    try {
      await world.upgrade();
      break;
    } catch {
      faults.add("upgrade.repeated");
      await sleep(100);
    }
  }
  faults.add("upgrade.migrated");
  scheduler.releases = "both";
  operators.start();
  await sleep(thirdMs);
  scheduler.releases = "new";
}

const seconds = (since: number): number => Math.round((performance.now() - since) / 1000);
