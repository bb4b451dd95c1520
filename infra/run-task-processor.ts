/** A local scheduler for containers: threads that take free slots and stay, over the same invocations as in the cloud. */
import { Bell } from "../lib/bell.ts";
import { builtInHandlers } from "../lib/built-in.ts";
import { pause } from "../lib/clock.ts";
import type { Config } from "../lib/config.ts";
import { DatabaseError } from "../lib/database/failure.ts";
import type { Database } from "../lib/database/port.ts";
import { codeOf, StintError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { Places } from "../lib/places.ts";
import { createRegistry, type Registry } from "../lib/registry.ts";
import { exchange } from "../lib/sql/exchange.ts";
import { pendingMigrations } from "../lib/sql/pending.ts";
import { Suspects } from "../lib/suspects.ts";
import type { TaskHandler } from "../lib/task.ts";
import type { Wake } from "../lib/wake.ts";
import { type InvocationReport, runInvocation } from "../lib/worker.ts";
import { attendDoorbell } from "./doorbell.ts";
import { Resting } from "./resting.ts";
import { SCHEDULE_INTERVAL_MS } from "./thread-health.ts";

export interface TaskProcessorOptions {
  readonly config: Config;
  /** With a pool of threads + 2. */
  readonly databases: readonly Database[];
  readonly handlers: readonly TaskHandler[];
  readonly log: Log;
  /** Aborts to stop: nothing more is claimed, what runs may end within half the grace period, the rest is released. */
  readonly signal: AbortSignal;
}

/** As many as the database has: slots 0 to 999. */
const SEATS = 1000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;

/**
 * Runs until the signal aborts. False when a database could not be told of the end: what was held there is taken over after the grace period.
 * @throws StintError schema_missing, definition_invalid, or what a database refuses for good, before anything is claimed
 */
export async function runTaskProcessor(options: TaskProcessorOptions): Promise<boolean> {
  const { config, databases, handlers, log, signal } = options;
  const registry = createRegistry([...handlers, ...builtInHandlers(config, databases)], null);
  await untilReady(options);
  if (signal.aborted) return true;
  const residents = Math.min(config.residentSlots ?? config.numThreads, config.numThreads);
  log.info("task processor started", {
    threads: config.numThreads,
    residents,
    places: config.queuePopSize,
    databases: config.databases.map(({ name }) => name).join(","),
    tasks: handlers.length,
  });
  const seatsOf = databases.map(() => new Set<number>());
  const restingOf = databases.map(() => new Resting());
  const bells = config.databases.map(({ target }) => (config.listen && target.kind === "pg" ? new Bell() : undefined));
  const attending = bells.map(async (bell, rank) => {
    const { target } = config.databases[rank]!;
    if (bell === undefined || target.kind !== "pg") return;
    await attendDoorbell({ url: target.url, schema: config.schema, ring: () => bell.ring(), log, signal });
  });
  // A crash takes all threads down: a suspect runs beside nothing of any of them.
  const suspects = new Suspects();
  const seatings = Array.from({ length: config.numThreads }, (_, thread) => {
    // One database's outage must not cost the other anything: a seat in each, found and lost independently. A task takes a
    // place of the thread wherever it comes from.
    const places = new Places(config.queuePopSize);
    const resident = thread < residents;
    return databases.map((database, rank) =>
      keepSeated({
        ...options,
        registry,
        thread,
        places,
        suspects,
        database,
        name: config.databases[rank]!.name,
        seats: seatsOf[rank]!,
        resting: restingOf[rank]!,
        bell: bells[rank],
        resident,
      }),
    );
  });
  const [told] = await Promise.all([Promise.all(seatings.flat()), ...attending]);
  return told.every((one) => one);
}

/** Waits for databases that are away, so that a container may start before its database. */
async function untilReady({ databases, log, signal }: TaskProcessorOptions): Promise<void> {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      for (const database of databases) {
        const pending = await pendingMigrations(database);
        if (pending.length === 0) continue;
        throw new StintError("schema_missing", `The database lacks ${pending.join(", ")}: run \`stint migrate\`.`);
      }
      return;
    } catch (error) {
      if (!(error instanceof DatabaseError) || error.retry === "never") throw error;
      await backOff(error, failures, log, signal);
    }
  }
}

interface Seating extends TaskProcessorOptions {
  readonly registry: Registry;
  readonly thread: number;
  readonly database: Database;
  readonly name: string;
  readonly places: Places;
  readonly suspects: Suspects;
  /** What threads of this process sit on or are trying in this database: no two try the same. */
  readonly seats: Set<number>;
  /** Threads that do not poll, between their looks: a resident that sees more due than it can take calls them. */
  readonly resting: Resting;
  readonly bell: Bell | undefined;
  /** Keeps polling; else it looks at each schedule interval, and when called. */
  readonly resident: boolean;
}

/** Takes a seat, and another whenever that one is lost, until the signal aborts. False when something may be held at its end. */
async function keepSeated(seating: Seating): Promise<boolean> {
  const { config, signal, database } = seating;
  const exchanges = noteAnswers(database);
  const log = seating.log.with({
    thread: seating.thread,
    ...(config.databases.length > 1 && { database: seating.name }),
  });
  let called: number | undefined;
  let told = true;
  for (let failures = 0; !signal.aborted; ) {
    try {
      const report = await sitDown(seating, exchanges.database, called);
      failures = 0;
      if (report?.left !== "lease_lost") told = true;
      // Where the signal came before the first answer, nothing was claimed, unless a request may have been handled.
      else if (report.epoch > 0 || exchanges.areInDoubt()) told = false;
      const waitMs = pauseAfter(report, seating, log);
      called = seating.resident ? void (await pause(waitMs, signal)) : await seating.resting.rest(waitMs, signal);
    } catch (error) {
      // It may have been refused while it held something.
      told = false;
      await backOff(error, failures, log, signal);
      failures += 1;
    }
  }
  return told;
}

/** Passes all on, and knows whether an exchange that may have been handled is still without an answer. */
function noteAnswers(database: Database): { database: Database; areInDoubt: () => boolean } {
  let inDoubt = false;
  const query: Database["query"] = async (statement, values, options) => {
    try {
      const rows = await database.query(statement, values, options);
      if (statement.name === exchange.name) inDoubt = false;
      return rows;
    } catch (error) {
      if (statement.name === exchange.name) inDoubt ||= !(error instanceof DatabaseError) || error.retry === "unknown";
      throw error;
    }
  };
  return { database: { ...database, query }, areInDoubt: () => inDoubt };
}

/** Tells how it went, and how long to wait before the next seat. */
function pauseAfter(report: InvocationReport | undefined, { config, signal }: Seating, log: Log): number {
  if (report === undefined) {
    if (!signal.aborted) log.warn("no slot is free", { slots: SEATS });
    return config.sleepIntervalMs;
  }
  const { slot, left, claimed, succeeded, failed, rescued } = report;
  const fields = { slot, left, claimed, succeeded, failed, rescued };
  if (left === "lease_lost" && !signal.aborted) {
    log.warn("lost its lease: the database did not answer in time", fields);
    return config.sleepIntervalMs;
  }
  // A look that found nothing is no news.
  if (left === "nothing_due" && claimed === 0) log.debug("found nothing due", fields);
  else log.info("left its slot", fields);
  return left === "nothing_due" ? SCHEDULE_INTERVAL_MS : 0;
}

/** Takes the slot it is called for or the lowest free one, and stays there as long as it may. Undefined: none was free. */
async function sitDown(
  seating: Seating,
  database: Database,
  called: number | undefined,
): Promise<InvocationReport | undefined> {
  const { config, databases, registry, seats, resident, places, suspects, log, signal } = seating;
  const settings = { ...config, invocationMs: null };
  const recurringDatabase = seating.database === databases.at(-1) ? database : databases.at(-1)!;
  for (let place = called === undefined ? 0 : -1; place < SEATS && !signal.aborted; place += 1) {
    const slot = place < 0 ? called! : place;
    if (seats.has(slot)) continue;
    seats.add(slot);
    try {
      const how = {
        databases: [database],
        recurringDatabase,
        registry,
        slot,
        resident,
        onlyFree: true,
        // Who was called calls nobody.
        ...(resident && { wake: wakeOf(seating) }),
        ...(seating.bell && { bell: seating.bell }),
        places,
        suspects,
        settings,
      };
      const report = await runInvocation({ ...how, log, signal });
      if (report.left !== "seat_taken") return report;
    } finally {
      seats.delete(slot);
    }
  }
  return undefined;
}

const wakeOf = ({ config, seats, resting }: Seating): Wake => ({
  // Every number makes a row: no more than this process and those it knows of can need.
  get slots() {
    return Math.min(SEATS, Math.max(...seats) + 1 + config.numThreads);
  },
  most: () => resting.size,
  call: async (slot) => resting.call(slot),
});

async function backOff(error: unknown, failures: number, log: Log, signal: AbortSignal): Promise<void> {
  const waitMs = Math.round(Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.5 + Math.random() / 2));
  const message = error instanceof Error ? error.message : String(error);
  log.error("the database is away or refuses; trying again", { code: codeOf(error), error: message, waitMs });
  await pause(waitMs, signal);
}
