/** One run: faults and producers for a while, then calm until everything has ended, then the books. */
import { setTimeout as sleep } from "node:timers/promises";
import { DatabaseFaults } from "./faults.ts";
import { checkInvariants, linesOf, readLogs } from "./invariants.ts";
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
/** So many exchanges of invocations without a mishap, and nothing has changed: it never will. Not a time: the machine may be busy. */
const STUCK_EXCHANGES = 600;

const MISHAPS: Mishaps = { lost: 0.05, late: 0.05, duplicate: 0.1, kill: 0.6, freeze: 0.12 };

const WEIGHTS: Weights = {
  quick: 300,
  slow: 100,
  serial: 60,
  flaky: 60,
  single: 60,
  cancels: 20,
  never: 8,
  leaks: 8,
  exits: 8,
  poison: 3,
  blocks: 3,
  stalls: 1,
  holds: 25,
  eats: 2,
};

export async function play(options: PlayOptions): Promise<Outcome & { readonly broken: readonly Broken[] }> {
  const { seed, tasks, minutes, slots, everyMs, write } = options;
  const limitMs = everyMs * 3;
  const { graceMs = SETTINGS.graceMs, queuePopSize = SETTINGS.queuePopSize } = options;
  const settings = { ...SETTINGS, graceMs, queuePopSize };
  const faulty = minutes > 0;
  const random = new Random(seed);
  const counts = new Counts();
  const faults = new Counts();
  const startedAt = performance.now();
  const timing: Timing = { slots, residents: 2, everyMs, limitMs, settings: { ...settings, invocationMs: limitMs } };
  const { upgradeFrom } = options;
  const world = await createWorld({ ...settings, ...(upgradeFrom !== undefined && { from: upgradeFrom }) });
  const scheduler = new Scheduler(world, timing, random.fork(), faults, faulty ? MISHAPS : undefined);
  let broken: Broken[] = [];
  try {
    const watch = new Watch(world, settings.graceMs, counts);
    const producers = new Producers(world, random.fork(), counts, {
      tasks,
      overMs: minutes * 60_000,
      weights: faulty
        ? WEIGHTS
        : { ...WEIGHTS, never: 0, leaks: 0, exits: 0, poison: 0, blocks: 0, stalls: 0, holds: 0, eats: 0 },
      batch: faulty ? 60 : 10_000,
    });
    const database = new DatabaseFaults(world, random.fork(), faults);
    watch.start();
    if (faulty) database.start();
    if (upgradeFrom !== undefined) scheduler.releases = "old";
    const producing = producers.run();
    // An overload is there before the first tick.
    if (!faulty) await producing;
    scheduler.start();
    const upgrading = upgradeFrom === undefined ? undefined : upgrade(world, scheduler, minutes * 20_000, faults);
    if (faulty) {
      await Promise.race([producing, sleep(minutes * 60_000)]);
      producers.stop();
    }
    await producing;
    await upgrading;
    await database.stop();
    scheduler.calmDown();
    write(`${producers.intents.size} payloads after ${seconds(startedAt)} s; now calm`);
    broken.push(...(await allEnded(world, write)));
    // Behind a queue that is stuck, nothing can be seen.
    if (broken.length === 0) broken.push(...(await probe(world, settings.sleepIntervalMs, 20, counts)));
    await scheduler.kill();
    await watch.stop();
    const executions = readLogs(world, counts);
    broken.push(...scheduler.broken, ...watch.broken, ...watch.untold(executions));
    const checked = await checkInvariants(world, producers.intents, executions);
    broken.push(...checked.broken);
    broken = broken.slice(0, 10_000);
    counts.add("payloads", producers.intents.size);
    counts.add("handlers_started", executions.length);
    const [database_] = await world.sql<Record<string, string>>(
      `SELECT count(*) AS invocations_seen, count(*) FILTER (WHERE expired_at IS NOT NULL) AS invocations_expired, sum(rescued) AS tasks_rescued,
         sum(stale_completions) AS stale_completions FROM heartbeat`,
    );
    for (const [name, count] of Object.entries(database_ ?? {})) counts.add(name, Number(count));
    if (broken.length > 0) await history(world, broken, write);
    return {
      seed,
      seconds: seconds(startedAt),
      tasks: checked.stored,
      states: checked.states,
      kills: faults.sum("kill.") + crashes(faults),
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

/** A third of the run each: the release before alone, both, this one alone. The migration is repeated as a deployment would be. */
async function upgrade(world: World, scheduler: Scheduler, thirdMs: number, faults: Counts): Promise<void> {
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
  await sleep(thirdMs);
  scheduler.releases = "new";
}

const seconds = (since: number): number => Math.round((performance.now() - since) / 1000);

/** Processes that died of a task: by a signal not sent by the scheduler, or with a code other than an invocation's own. */
const crashes = (faults: Counts): number =>
  Math.max(0, faults.sum("ended.SIG") - faults.sum("kill.")) + faults.of("ended.code_1") + faults.of("ended.code_134");

/** 6, 8: without faults the queue runs empty. */
async function allEnded(world: World, write: (line: string) => void): Promise<Broken[]> {
  let last = "";
  let changedAt = 0;
  for (;;) {
    const askedAt = performance.now();
    const [row] = await world.sql<{ left: string; runs: string; exchanges: number }>(
      `SELECT (SELECT count(*) FROM task WHERE occurrence IS NULL) AS left, (SELECT count(*) FROM task_run WHERE occurrence IS NULL) AS runs,
         (SELECT CAST(coalesce(sum(seq), 0) AS float8) FROM heartbeat) AS exchanges`,
    );
    if (row!.left === "0") return [];
    const now = `${row!.left} ${row!.runs}`;
    if (now !== last) changedAt = row!.exchanges;
    last = now;
    if (row!.exchanges - changedAt > STUCK_EXCHANGES) {
      write(`stuck: ${row!.left} tasks are left`);
      const stuck = await world.sql<{ task: string; what: string }>(
        "SELECT CAST(id AS text) AS task, CAST(to_jsonb(t) AS text) AS what FROM task t ORDER BY id LIMIT 20",
      );
      return stuck.map(({ task, what }) => ({ invariant: 6, what: `never ended: ${what}`, task }));
    }
    // To count a million takes a while.
    await sleep(Math.min(5000, Math.max(300, 20 * (performance.now() - askedAt))));
  }
}

/** All that is known of the first tasks concerned. */
async function history(world: World, broken: readonly Broken[], write: (line: string) => void): Promise<void> {
  const concerned = [...new Set(broken.flatMap(({ task }) => task ?? []))].slice(0, 5);
  for (const { invariant, what, task } of broken.slice(0, 50))
    write(`broken ${invariant}: ${what}${task === undefined ? "" : ` (task ${task})`}`);
  for (const task of concerned) {
    write(`\ntask ${task}`);
    for (const [table, id] of [
      ["task", "id"],
      ["failed_task", "id"],
      ["task_run", "task_id"],
      ["chaos.claim", "task"],
      ["chaos.violation", "task"],
    ]) {
      for (const { row } of await world.sql<{ row: object }>(
        `SELECT to_jsonb(t) AS row FROM ${table} t WHERE ${id} = $1`,
        [task],
      ))
        write(`  ${table} ${JSON.stringify(row)}`);
    }
    for (const { row } of await world.sql<{ row: object }>(
      "SELECT to_jsonb(h) AS row FROM heartbeat h WHERE invocation_id IN (SELECT invocation FROM chaos.claim WHERE task = $1)",
      [task],
    ))
      write(`  heartbeat ${JSON.stringify(row)}`);
    for (const line of linesOf(world, task)) write(`  ${line}`);
  }
}
