import type { TaskList } from "graphile-worker";
import type { Job } from "pg-boss";
import * as z from "zod/mini";
import { createTaskClient } from "../../lib/enqueue.ts";
import { defineTask, PRIORITIES, type Priority } from "../../lib/task.ts";
import { type Arena, inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { GRAPHILE, inGraphile, runGraphile } from "./support/graphile.ts";
import { rounded, rounds } from "./support/measure.ts";
import { checkHistory, inOurs, invoke, settingsOf } from "./support/ours.ts";
import { BATCHES, inPgBoss } from "./support/pg-boss.ts";
import { drainSimply } from "./support/simplest.ts";
import { Tally } from "./support/tally.ts";

export const about = `20 identifiers, five priorities, payloads of 1 KB, one task in twenty fails its first attempt and is tried again after each one's own default back-off. 50,000 tasks; attempts a second until nine tenths of them have succeeded, so that waiting for the last back-offs does not count. Ours: queue pop size 2000 (a claim over many identifiers begins a scan of each), two workers, over pg. ${GRAPHILE.batching.text}; pg-boss 12.38.0: a queue an identifier with a worker each, batchSize 1000, burstWhenBatchFull, perJobResults. And what Postgres itself gives for payloads of 1 KB, as in limit: one kind, no priorities, no failures.`;

export const targets: readonly Target[] = [{ figure: "to the best peer, ratio", atLeast: 1.7 }];

export const charted = ["ours, 2 workers", "graphile-worker", "pg-boss"];

const KINDS = Array.from({ length: 20 }, (_, kind) => `kind-${kind}`);
const NAMES = Object.keys(PRIORITIES) as Priority[];
const TEXT = "x".repeat(1000);
const PAYLOAD = "json_build_object('n', n, 'text', repeat('x', 1000))";

/** What task n is: each kind has each priority, and failures everywhere. */
const kindOf = (n: number): string => KINDS[n % 20]!;
const priorityOf = (n: number): Priority => NAMES[Math.floor(n / 20) % 5]!;
const failsFirst = (n: number): boolean => Math.floor(n / 100) % 20 === 7;

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const median = await rounds(
      {
        "ours, 2 workers": (tasks) => drainOurs(arena, tasks),
        "graphile-worker": (tasks) => drainGraphile(arena, tasks),
        "pg-boss": (tasks) => drainPgBoss(arena, tasks),
        "claim, delete and insert": (tasks) => drainSimply(arena, "claim, delete and insert", tasks, PAYLOAD),
      },
      quick ? { tasks: 4_000, warmUp: 0, count: 1 } : { tasks: 50_000, warmUp: 10_000, count: 5 },
    );
    const best = Math.max(median["graphile-worker"], median["pg-boss"]);
    return {
      ...median,
      "to the best peer, ratio": rounded(median["ours, 2 workers"] / best, 2),
      "claim, delete and insert to the best peer, ratio": rounded(median["claim, delete and insert"] / best, 2),
    };
  });

/** Fails the first attempt of those that should, and clocks attempts until nine tenths have succeeded. */
class Attempts {
  readonly tally: Tally;
  readonly #tasks: number;
  readonly #failed = new Set<number>();
  readonly #startedAt = performance.now();
  #attempts = 0;
  perSecond = 0;

  constructor(who: string, tasks: number) {
    this.#tasks = tasks;
    this.tally = new Tally(who, tasks);
  }

  /** Whether this attempt at task n succeeds. */
  run(n: number): boolean {
    this.#attempts += 1;
    if (failsFirst(n) && !this.#failed.has(n)) {
      this.#failed.add(n);
      return false;
    }
    this.tally.run(n);
    if (this.tally.count === this.#tasks * 0.9)
      this.perSecond = (this.#attempts * 1000) / (performance.now() - this.#startedAt);
    return true;
  }

  orThrow(n: number): void {
    if (!this.run(n)) throw new Error("This attempt fails.");
  }

  check(): void {
    this.tally.check();
    const expected = Array.from({ length: this.#tasks }, (_, n) => n).filter(failsFirst).length;
    if (this.#attempts !== this.#tasks + expected)
      throw new Error(`${this.#attempts} attempts at ${this.#tasks} tasks of which ${expected} fail once.`);
  }
}

const payload = z.object({ n: z.number(), text: z.string() });

const drainOurs = (arena: Arena, tasks: number): Promise<number> =>
  inOurs(arena, async (ours) => {
    const definitions = KINDS.map((identifier) => defineTask({ identifier, payload }));
    const client = createTaskClient({ database: ours.database });
    for (const definition of definitions)
      for (const priority of NAMES)
        await client.enqueueMany(
          definition,
          numbers(tasks)
            .filter((n) => kindOf(n) === definition.identifier && priorityOf(n) === priority)
            .map((n) => ({ n, text: TEXT })),
          { priority },
        );
    await ours.vacuum();
    const attempts = new Attempts("ours", tasks);
    const handlers = definitions.map((definition) => definition.handle(({ n }) => attempts.orThrow(n)));
    const leave = new AbortController();
    const staying = [0, 1].map((slot) =>
      invoke(ours.database, handlers, { slot, settings: settingsOf(2000), resident: true, signal: leave.signal }),
    );
    await attempts.tally.finished;
    leave.abort();
    await Promise.all(staying);
    attempts.check();
    await checkHistory(ours, tasks);
    return attempts.perSecond;
  });

const drainGraphile = (arena: Arena, tasks: number): Promise<number> =>
  inGraphile(arena, async ({ url, utils, vacuum }) => {
    for (let from = 0; from < tasks; from += 1000)
      await utils.addJobs(
        numbers(tasks)
          .slice(from, from + 1000)
          .map((n) => ({
            identifier: kindOf(n),
            priority: PRIORITIES[priorityOf(n)],
            payload: { n, text: TEXT },
          })),
      );
    await vacuum();
    const attempts = new Attempts("graphile-worker", tasks);
    const run: TaskList[string] = (given) => attempts.orThrow((given as { n: number }).n);
    const runner = await runGraphile(url, "batching", Object.fromEntries(KINDS.map((kind) => [kind, run])));
    await attempts.tally.finished;
    await runner.stop();
    attempts.check();
    return attempts.perSecond;
  });

const drainPgBoss = (arena: Arena, tasks: number): Promise<number> =>
  inPgBoss(arena, async (boss, { vacuum }) => {
    for (const kind of KINDS) {
      await boss.createQueue(kind);
      const jobs = numbers(tasks).filter((n) => kindOf(n) === kind);
      for (let from = 0; from < jobs.length; from += 1000)
        await boss.insert(
          kind,
          // The greater number is the more urgent there.
          jobs
            .slice(from, from + 1000)
            .map((n) => ({ data: { n, text: TEXT }, priority: 100 - PRIORITIES[priorityOf(n)] })),
        );
    }
    await vacuum();
    const attempts = new Attempts("pg-boss", tasks);
    for (const kind of KINDS)
      await boss.work(kind, { ...BATCHES, perJobResults: true }, async (jobs: Job<{ n: number }>[]) =>
        jobs.map(({ id, data }) => ({
          id,
          status: attempts.run(data.n) ? ("completed" as const) : ("failed" as const),
        })),
      );
    await attempts.tally.finished;
    attempts.check();
    return attempts.perSecond;
  });

const numbers = (count: number): number[] => Array.from({ length: count }, (_, n) => n);
