import { lockWaitMs } from "./database/limits.ts";
import type { Database } from "./database/port.ts";
import type { Log, LogFields } from "./log.ts";
import type { Answer, DueOccurrence } from "./messages.ts";
import type { RecurringDefinition } from "./recurring-definition.ts";
import type { Registry } from "./registry.ts";
import { fireRecurring, planRecurring } from "./sql/recurring-tasks.ts";

const MOST_MISSED = 100;
/** An occurrence this late was missed: nobody was there at its time, or nobody who knows the schedule that it was planned by. */
const LATE_MS = 60_000;
/** The schedule's row, then the serial key of its occurrences. */
const FIRE_LOCKS = 2;

interface SchedulesOptions {
  readonly database: Database;
  readonly registry: Registry;
  readonly log: Log;
  readonly settings: { readonly graceMs: number };
}

/**
 * Plans and fires what answers call for, in an eighth of the grace period each time: the lease is not confirmed meanwhile. By the database's
 * time: a clock behind it would give an occurrence again and again, one ahead of it would leave some out.
 */
export class Schedules {
  readonly #options: SchedulesOptions;
  /** What the first answer said is stored, until what this release knows of it is stored too. */
  #unplanned: Answer["schedules"] | undefined;

  constructor(options: SchedulesOptions) {
    this.#options = options;
  }

  /** The number of schedules concerned. What fails is logged and, as what is left over, done after the next answer. */
  async advance(answer: Answer): Promise<number> {
    const { registry, settings } = this.#options;
    const until = performance.now() + settings.graceMs / 8;
    const shareMs = (shares: number): number => Math.max(1, Math.ceil((until - performance.now()) / shares));
    if (answer.firstOfLease) this.#unplanned = answer.schedules ?? {};
    const now = new Date(answer.at);
    const known = (answer.recurring ?? []).flatMap((due) => {
      const recurring = registry.recurring.get(due.identifier);
      return recurring === undefined ? [] : [{ due, recurring }];
    });
    // One that cannot be advanced, or has to wait, must not keep those after it from their turn.
    let shares = known.length + 1;
    let concerned = await this.#try(() => this.#plan(now, shareMs(shares)), {});
    for (const { due, recurring } of known) {
      shares -= 1;
      concerned += await this.#try(() => this.#fire(due, recurring, now, shareMs(shares)), {
        identifier: due.identifier,
      });
    }
    return concerned;
  }

  async #try(step: () => Promise<number>, fields: LogFields): Promise<number> {
    try {
      return await step();
    } catch (error) {
      this.#options.log.warn("a recurring schedule could not be advanced", { ...fields, error: String(error) });
      return 0;
    }
  }

  /** Stores what this release knows of its schedules, where something else is stored. The number stored. */
  async #plan(now: Date, timeoutMs: number): Promise<number> {
    const stored = this.#unplanned;
    if (stored === undefined || stored === null) return 0;
    const differing = [...this.#options.registry.recurring.values()].filter(
      (one) => stored[one.task.identifier] !== one.schedule,
    );
    const planned = await this.#store(differing, now, timeoutMs);
    this.#unplanned = undefined;
    return planned;
  }

  async #store(definitions: readonly RecurringDefinition[], now: Date, timeoutMs: number): Promise<number> {
    const schedules = definitions.flatMap((one) => {
      const nextAt = one.next(now);
      return nextAt === null
        ? []
        : [{ identifier: one.task.identifier, schedule: one.schedule, nextAt: nextAt.toISOString() }];
    });
    if (schedules.length === 0) return 0;
    const request = JSON.stringify({ schedules, waitMs: lockWaitMs(timeoutMs) });
    const [row] = await this.#options.database.query(planRecurring, { request }, { timeoutMs });
    return row?.planned ?? 0;
  }

  /**
   * Enqueues what is due, each occurrence once whoever else tries: 1, or 0 where another was faster. What was planned by another schedule is left to those who
   * know it; where they do not come, it is planned anew.
   */
  async #fire(
    { identifier, nextAt, schedule }: DueOccurrence,
    recurring: RecurringDefinition,
    now: Date,
    timeoutMs: number,
  ): Promise<number> {
    const due = new Date(nextAt);
    if (schedule !== recurring.schedule)
      return now.getTime() - due.getTime() > LATE_MS ? await this.#store([recurring], now, timeoutMs) : 0;
    const { occurrences, next } = occurrencesUntil(recurring, due, now);
    const request = JSON.stringify({
      identifier,
      schedule,
      waitMs: lockWaitMs(timeoutMs, FIRE_LOCKS),
      expectedAt: nextAt,
      nextAt: next?.toISOString() ?? "infinity",
      occurrences: occurrences.map((each) => each.toISOString()),
      overlap: recurring.overlap,
      payload: recurring.payload,
      priority: recurring.task.priority,
    });
    const [row] = await this.#options.database.query(fireRecurring, { request }, { timeoutMs });
    return row?.outcome === "fired" ? 1 : 0;
  }
}

/** Which due times get a task, from the stored one to now, and the first one after now. Its cost does not grow with the time missed. */
export function occurrencesUntil(
  recurring: RecurringDefinition,
  from: Date,
  now: Date,
): { occurrences: Date[]; next: Date | null } {
  const next = recurring.next(now);
  // The stored one need not lie on the grid: an operator made it due, or an older release planned it.
  const since = recurring
    .previous(recurring.missed === "all" ? MOST_MISSED : 1, now)
    .filter((due) => due > from)
    .reverse();
  const due = since.length < MOST_MISSED ? [from, ...since] : since;
  const last = due.at(-1)!;
  if (recurring.missed === "all") return { occurrences: due, next };
  if (recurring.missed === "skip" && now.getTime() - last.getTime() > LATE_MS) return { occurrences: [], next };
  return { occurrences: [last], next };
}
