/** Commands that do the same to the world and to Postgres, and compare the two after each. */
import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { expect } from "vitest";
import { decodeAnswer } from "../../lib/messages.ts";
import { exchange } from "../../lib/sql/exchange.ts";
import { reset, type TestDatabase } from "../support/database.ts";
import { enqueueRaw, GRACE_MS, inWords, register } from "../support/exchange.ts";
import { RELEASES, type Result, type Told, type Words, World } from "./world.ts";

/** A process as it sees itself. */
interface Process {
  readonly id: string;
  readonly slot: number;
  readonly release: string;
  readonly onlyFree: boolean;
  seq: number;
  acked: number;
  /** Running, or ended and not handed in. */
  known: Map<number, { attempt: number; outcome?: Result["outcome"] }>;
  /** Said and not heard: repeated word for word. */
  unheard: Words | undefined;
  said: Words[];
  confirmedAt: number;
  over: boolean;
  frozen: boolean;
}

export class Model {
  readonly world = new World();
  readonly processes: Process[] = [];

  /** Living processes that may speak. */
  speakers(): number[] {
    return [...this.processes.keys()].filter((n) => !this.processes[n]!.over && !this.processes[n]!.frozen);
  }

  believes(process: Process): boolean {
    return !process.over && this.world.now - process.confirmedAt < GRACE_MS * 0.75;
  }
}

/** Two residents with work: without them most commands would find nobody to act for. */
export async function begin(real: Real): Promise<{ model: Model; real: Real }> {
  await real.begin();
  const model = new Model();
  await new Enqueue("a", 3, 2).run(model, real);
  for (const slot of [0, 1]) await new Tick(slot, "r2", false, true).run(model, real);
  return { model, real };
}

export class Real {
  readonly db: TestDatabase;
  /** How often each thing worth seeing came about, over all sequences. */
  readonly seen = new Map<string, number>();
  constructor(db: TestDatabase) {
    this.db = db;
  }

  see(what: string, times = 1): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + times);
  }

  async begin(): Promise<void> {
    await reset(this.db);
    for (const [release, identifiers] of Object.entries(RELEASES))
      await register(this.db, release, Object.fromEntries(identifiers.map((identifier) => [identifier, {}])));
  }
}

type Command = fc.AsyncCommand<Model, Real>;

abstract class Step implements Command {
  check(_: Readonly<Model>): boolean {
    return true;
  }
  async run(model: Model, real: Real): Promise<void> {
    await this.act(model, real);
    real.see("command");
    await compare(model, real);
  }
  abstract act(model: Model, real: Real): Promise<void>;
  abstract toString(): string;
}

class Enqueue extends Step {
  readonly #identifier: string;
  readonly #count: number;
  readonly #maxAttempts: number;
  constructor(identifier: string, count: number, maxAttempts: number) {
    super();
    this.#identifier = identifier;
    this.#count = count;
    this.#maxAttempts = maxAttempts;
  }
  async act({ world }: Model, { db }: Real): Promise<void> {
    world.enqueue(this.#identifier, this.#count, this.#maxAttempts);
    await enqueueRaw(db, this.#identifier, this.#count, { maxAttempts: this.#maxAttempts });
  }
  toString = () => `enqueue ${this.#count} ${this.#identifier}, attempts ${this.#maxAttempts}`;
}

class Tick extends Step {
  readonly #slot: number;
  readonly #release: string;
  readonly #onlyFree: boolean;
  readonly #isHeard: boolean;
  constructor(slot: number, release: string, onlyFree: boolean, isHeard: boolean) {
    super();
    this.#slot = slot;
    this.#release = release;
    this.#onlyFree = onlyFree;
    this.#isHeard = isHeard;
  }
  override check = (model: Readonly<Model>) => model.speakers().length < 4;
  async act(model: Model, real: Real): Promise<void> {
    const process: Process = {
      id: randomUUID(),
      slot: this.#slot,
      release: this.#release,
      onlyFree: this.#onlyFree,
      seq: 0,
      acked: 0,
      known: new Map(),
      unheard: undefined,
      said: [],
      confirmedAt: Number.POSITIVE_INFINITY,
      over: false,
      frozen: false,
    };
    model.processes.push(process);
    await speak(model, real, model.processes.length - 1, { want: 2, ending: false, isHeard: this.#isHeard });
  }
  toString = () =>
    `tick at slot ${this.#slot}${this.#onlyFree ? " if free" : ""} of ${this.#release}${this.#isHeard ? "" : ", unheard"}`;
}

/** Of one process among those that may speak; which one is chosen by a number, so that shrinking keeps a meaning. */
abstract class OfOne extends Step {
  readonly #who: number;
  constructor(who: number) {
    super();
    this.#who = who;
  }
  override check(model: Readonly<Model>): boolean {
    return this.candidates(model).length > 0;
  }
  candidates(model: Readonly<Model>): number[] {
    return model.speakers();
  }
  async act(model: Model, real: Real): Promise<void> {
    const candidates = this.candidates(model);
    await this.actAs(model, real, candidates[this.#who % candidates.length]!);
  }
  abstract actAs(model: Model, real: Real, me: number): Promise<void>;
  abstract what(): string;
  toString(): string {
    return `#${this.#who} ${this.what()}`;
  }
}

class Exchange extends OfOne {
  readonly #want: number;
  readonly #isHeard: boolean;
  constructor(who: number, want: number, isHeard: boolean) {
    super(who);
    this.#want = want;
    this.#isHeard = isHeard;
  }
  actAs = (model: Model, real: Real, me: number) =>
    speak(model, real, me, { want: this.#want, ending: false, isHeard: this.#isHeard });
  what = () => `exchanges, want ${this.#want}${this.#isHeard ? "" : ", unheard"}`;
}

class End extends OfOne {
  readonly #isHeard: boolean;
  constructor(who: number, isHeard: boolean) {
    super(who);
    this.#isHeard = isHeard;
  }
  actAs = (model: Model, real: Real, me: number) =>
    speak(model, real, me, { want: 0, ending: true, isHeard: this.#isHeard });
  what = () => `ends${this.#isHeard ? "" : ", unheard"}`;
}

/** A copy of something said before arrives late. Only the last one said may still count, and only once. */
class Stray extends OfOne {
  readonly #which: number;
  constructor(who: number, which: number) {
    super(who);
    this.#which = which;
  }
  override candidates = (model: Readonly<Model>) => [...model.processes.keys()];
  async actAs(model: Model, real: Real, me: number): Promise<void> {
    const { said } = model.processes[me]!;
    await call(model, real, me, said[this.#which % said.length]!);
  }
  what = () => `has a stray copy handled (${this.#which})`;
}

class Work extends OfOne {
  readonly #which: number;
  readonly #outcome: Result["outcome"];
  constructor(who: number, which: number, outcome: Result["outcome"]) {
    super(who);
    this.#which = which;
    this.#outcome = outcome;
  }
  override candidates = (model: Readonly<Model>) =>
    model.speakers().filter((n) => [...model.processes[n]!.known.values()].some((one) => one.outcome === undefined));
  async actAs(model: Model, _: Real, me: number): Promise<void> {
    const running = [...model.processes[me]!.known.values()].filter((one) => one.outcome === undefined);
    running[this.#which % running.length]!.outcome = this.#outcome;
  }
  what = () => `ends a run: ${this.#outcome}`;
}

/** Hands in a result of what another holds, or of its own attempt before this one: no process should, the database must know better. */
class Forge extends OfOne {
  readonly #which: number;
  constructor(who: number, which: number) {
    super(who);
    this.#which = which;
  }
  override candidates = (model: Readonly<Model>) =>
    model.world.tasks.size === 0 ? [] : model.speakers().filter((n) => model.processes[n]!.unheard === undefined);
  async actAs(model: Model, real: Real, me: number): Promise<void> {
    const tasks = [...model.world.tasks.values()];
    const task = tasks[this.#which % tasks.length]!;
    const attempt = task.attempt - (task.holder === me ? 1 : 0);
    await speak(model, real, me, { want: 0, ending: false, isHeard: true }, [
      { task: task.id, attempt, outcome: "SUCCESS" },
    ]);
    real.see("forged");
  }
  what = () => `hands in what it does not hold (${this.#which})`;
}

class Crash extends OfOne {
  async actAs(model: Model, _: Real, me: number): Promise<void> {
    model.processes[me]!.over = true;
  }
  what = () => "is killed";
}

class Freeze extends OfOne {
  async actAs(model: Model, _: Real, me: number): Promise<void> {
    model.processes[me]!.frozen = true;
  }
  what = () => "freezes";
}

/** It thaws and hands in what it has, lease or no lease: the database must know better. */
class Thaw extends OfOne {
  override candidates = (model: Readonly<Model>) =>
    [...model.processes.keys()].filter((n) => model.processes[n]!.frozen && !model.processes[n]!.over);
  async actAs(model: Model, real: Real, me: number): Promise<void> {
    const process = model.processes[me]!;
    process.frozen = false;
    for (const one of process.known.values()) one.outcome ??= "SUCCESS";
    await speak(model, real, me, { want: 2, ending: false, isHeard: true });
  }
  what = () => "thaws and speaks";
}

class Advance extends Step {
  readonly #steps: number;
  constructor(steps: number) {
    super();
    this.#steps = steps;
  }
  /** 3 s a step: no sum of them comes near grace, its half or its quarter. */
  async act({ world }: Model, { db }: Real): Promise<void> {
    const ms = this.#steps * 3000;
    world.now += ms;
    await db.sql(
      `WITH beat AS (UPDATE heartbeat SET last_seen_at = last_seen_at - $1 * interval '1 millisecond', seen_since = seen_since - $1 * interval '1 millisecond')
       UPDATE task SET scheduled_for = scheduled_for - $1 * interval '1 millisecond', suspect_since = suspect_since - $1 * interval '1 millisecond'`,
      [ms],
    );
  }
  toString = () => `${this.#steps * 3} s pass`;
}

/** Residents go on polling while time passes: who is silent meanwhile is called so. */
class Poll extends Step {
  readonly #times: number;
  readonly #want: number;
  constructor(times: number, want: number) {
    super();
    this.#times = times;
    this.#want = want;
  }
  async act(model: Model, real: Real): Promise<void> {
    for (let n = 0; n < this.#times; n += 1) {
      await new Advance(1).act(model, real);
      for (const me of model.speakers())
        await speak(model, real, me, { want: this.#want, ending: false, isHeard: true });
    }
  }
  toString = () => `${this.#times} times 3 s pass and all poll, want ${this.#want}`;
}

interface Saying {
  readonly want: number;
  readonly ending: boolean;
  readonly isHeard: boolean;
}

/** A new number, or what was not heard once more. */
async function speak(
  model: Model,
  real: Real,
  me: number,
  { want, ending, isHeard }: Saying,
  forged: readonly Result[] = [],
): Promise<void> {
  const process = model.processes[me]!;
  if (process.unheard === undefined) {
    const results = [...process.known].flatMap(([task, { attempt, outcome }]) =>
      outcome === undefined ? [] : [{ task, attempt, outcome }],
    );
    const running = process.known.size - results.length;
    process.seq += 1;
    process.unheard = {
      seq: process.seq,
      acked: process.acked,
      want: Math.max(0, want - running),
      alone: running === 0,
      ending,
      onlyFree: process.onlyFree,
      results: [...results, ...forged],
    };
    process.said.push(process.unheard);
  }
  const sentAt = model.world.now;
  const told = await call(model, real, me, process.unheard);
  if (isHeard) hear(process, told, sentAt);
}

function hear(process: Process, told: Told, sentAt: number): void {
  const { results, ending } = process.unheard!;
  process.unheard = undefined;
  if (told.status !== "ok" || ending) {
    process.over = true;
    process.known.clear();
    return;
  }
  process.acked = process.seq;
  process.confirmedAt = sentAt;
  for (const { task, attempt } of results) if (process.known.get(task)?.attempt === attempt) process.known.delete(task);
  for (const [task, attempt] of told.tasks) process.known.set(task, { attempt });
}

/** The same words to the world and to Postgres: the same answer. */
async function call(model: Model, real: Real, me: number, words: Words): Promise<Told> {
  const { id, slot, release } = model.processes[me]!;
  const rowBefore = model.world.rows.get(me);
  const isRepeated = rowBefore !== undefined && words.seq <= rowBefore.seq;
  const before = isRepeated ? await stateOf(real, model) : undefined;
  const expected = model.world.exchange(me, slot, release, words);
  const { results, ...rest } = words;
  const request = {
    invocation: id,
    slot,
    release,
    graceMs: GRACE_MS,
    remainingMs: null,
    bytes: 480_000,
    floors: [],
    ...rest,
    ...inWords(
      results.map(({ task, ...result }) => ({
        id: String(task),
        ...result,
        started: 2,
        finished: 1,
        ...(result.outcome === "FAILURE" && { delayMs: 0, error: "no" }),
      })),
    ),
  };
  const rows = await real.db.database.query(exchange, { request: JSON.stringify(request) });
  const { header, tasks } = decodeAnswer(rows)!;
  const heard: Told = {
    status: header.status as Told["status"],
    ...(header.status === "ok" && { newest: header.newest, rescued: header.rescued }),
    tasks: tasks.map(({ id, attempt, suspect }) => [Number(id), attempt, suspect] as const),
  };
  expect(heard, "the answer").toEqual(expected);
  real.see(expected.status);
  if (before !== undefined) real.see("repeated");
  if (expected.newest === false) real.see("superseded");
  if ((expected.rescued ?? 0) > 0) real.see("rescued");
  if (expected.tasks.some(([, , isSuspect]) => isSuspect)) real.see("suspect told");
  if (before !== undefined && expected.tasks.length > 0) real.see("told again");
  // 10 a repeated exchange claims and records nothing more
  if (before !== undefined) expect((await stateOf(real, model)).work, "after a repetition").toEqual(before.work);
  return heard;
}

async function stateOf({ db }: Real, model: Model) {
  const [row] = await db.sql<{
    state: Record<"tasks" | "failed" | "runs" | "seats" | "rows", string[]>;
  }>(`SELECT json_build_object(
    'tasks', (SELECT coalesce(json_agg(concat_ws(' ', id, held_by, attempt, forgiven, suspect_since IS NOT NULL) ORDER BY id), '[]') FROM task),
    'failed', (SELECT coalesce(json_agg(concat_ws(' ', id, outcome) ORDER BY id), '[]') FROM failed_task),
    'runs', (SELECT coalesce(json_agg(concat_ws(' ', task_id, attempt, result, coalesce(task_outcome, ''))), '[]') FROM task_run),
    'seats', (SELECT coalesce(json_agg(concat_ws(' ', number, epoch, holder) ORDER BY number), '[]') FROM slot),
    'rows', (SELECT coalesce(json_agg(concat_ws(' ', invocation_id, seq, epoch, held, claimed, succeeded, failed, rescued, stale_completions, ended_at IS NOT NULL, expired_at IS NOT NULL)), '[]') FROM heartbeat)) AS state`);
  const named = (text: string): string =>
    model.processes.reduce((said, { id }, n) => said.replaceAll(id, `#${n}`), text);
  const { tasks, failed, runs, seats, rows } = row!.state;
  return {
    work: { tasks: tasks.map(named), failed, runs: runs.toSorted() },
    seats: seats.map(named),
    rows: rows.map(named).toSorted(),
  };
}

/** Postgres stands as the world says, and the world breaks no invariant. */
async function compare(model: Model, real: Real): Promise<void> {
  const { world } = model;
  const holder = (n: number | undefined): string[] => (n === undefined ? [] : [`#${n}`]);
  const flag = (is: boolean): string => (is ? "t" : "f");
  expect(await stateOf(real, model)).toEqual({
    work: {
      tasks: [...world.tasks.values()]
        .sort((a, b) => a.id - b.id)
        .map((task) =>
          [task.id, ...holder(task.holder), task.attempt, task.forgiven, flag(task.suspectSince !== undefined)].join(
            " ",
          ),
        ),
      failed: [...world.outOfAttempts].sort(([a], [b]) => a - b).map(([id, outcome]) => `${id} ${outcome}`),
      runs: world.runs.toSorted(),
    },
    seats: [...world.seats]
      .sort(([a], [b]) => a - b)
      .map(([number, seat]) => [number, seat.epoch, ...holder(seat.holder)].join(" ")),
    rows: [...world.rows]
      .map(([n, row]) =>
        [
          `#${n}`,
          row.seq,
          row.epoch,
          world.heldBy(n).length,
          row.claimed,
          row.succeeded,
          row.failed,
          row.rescued,
          row.stale,
          flag(row.ended),
          flag(row.expired),
        ].join(" "),
      )
      .toSorted(),
  });
  examine(model);
}

function examine(model: Model): void {
  const { world, processes } = model;
  // 8 nothing is lost
  expect(world.tasks.size + world.succeeded + world.outOfAttempts.size, "unfinished + succeeded + failed").toBe(
    world.enqueued,
  );
  const runners = new Map<number, number>();
  for (const [n, process] of processes.entries()) {
    if (!model.believes(process) || process.frozen) continue;
    for (const [task, { attempt, outcome }] of process.known) {
      if (outcome !== undefined || process.unheard?.ending) continue;
      // 1 at most one process that believes in its lease
      expect(runners.get(task), `task ${task} runs twice`).toBeUndefined();
      runners.set(task, n);
      expect(world.tasks.get(task), `task ${task} runs at #${n}`).toMatchObject({ holder: n, attempt });
    }
  }
  for (const task of world.tasks.values()) {
    // 7 attempts used are bounded
    expect(task.attempt - task.forgiven, `attempts of task ${task.id}`).toBeLessThanOrEqual(task.maxAttempts);
    if (task.holder === undefined) continue;
    const row = world.rows.get(task.holder)!;
    expect(row.ended || row.expired, `task ${task.id} is held by one that is gone`).toBe(false);
    // 11 no task is held by a living invocation that was never told
    const process = processes[task.holder]!;
    if (!process.over && process.unheard === undefined)
      expect(process.known.get(task.id)?.attempt, `task ${task.id} is known to its holder`).toBe(task.attempt);
  }
}

export function commands(): fc.Arbitrary<Iterable<Command>> {
  const who = fc.nat(5);
  const isHeard = fc.nat(3).map((n) => n > 0);
  const which = fc.nat(5);
  const exchanges = fc.tuple(who, fc.integer({ min: 0, max: 3 }), isHeard).map((a) => new Exchange(...a));
  const polls = fc.tuple(fc.integer({ min: 1, max: 8 }), fc.nat(2)).map((a) => new Poll(...a));
  const work = fc
    .tuple(who, which, fc.constantFrom("SUCCESS", "FAILURE", "FAILURE", "CANCELLED", "RELEASED"))
    .map((a) => new Work(...(a as [number, number, Result["outcome"]])));
  return fc.commands<Model, Real, false>(
    [
      fc
        .tuple(fc.constantFrom("a", "a", "b"), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }))
        .map((a) => new Enqueue(...a)),
      fc.tuple(fc.nat(1), fc.constantFrom("r1", "r2"), fc.boolean(), isHeard).map((a) => new Tick(...a)),
      exchanges,
      exchanges,
      exchanges,
      work,
      work,
      fc.tuple(who, which).map((a) => new Forge(...a)),
      who.map((n) => new Crash(n)),
      who.map((n) => new Freeze(n)),
      who.map((n) => new Thaw(n)),
      fc.tuple(who, isHeard).map((a) => new End(...a)),
      fc.tuple(who, which).map((a) => new Stray(...a)),
      fc.integer({ min: 1, max: 8 }).map((n) => new Advance(n)),
      polls,
      polls,
    ],
    { maxCommands: 40, size: "max" },
  ) as unknown as fc.Arbitrary<Iterable<Command>>;
}
