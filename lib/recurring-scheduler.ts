import type { Database } from "./database/port.ts";
import type { Log } from "./log.ts";
import type { Answer } from "./messages.ts";
import type { RecurringDefinition } from "./recurring-definition.ts";
import type { Registry } from "./registry.ts";
import { fireRecurring, planRecurring } from "./sql/recurring-tasks.ts";

const MOST_MISSED = 100;
/** An occurrence this late was missed: nobody was there at its time. */
const LATE_MS = 60_000;

interface SchedulesOptions {
  readonly database: Database;
  readonly registry: Registry;
  readonly log: Log;
  readonly settings: { readonly graceMs: number };
}

/** Plans and fires what answers call for, in an eighth of the grace period each time: the lease is not confirmed meanwhile. */
export class Schedules {
  readonly #options: SchedulesOptions;
  /** What the first answer said is stored, until what this release knows of it is stored too. */
  #unplanned: Answer["schedules"] | undefined;

  constructor(options: SchedulesOptions) {
    this.#options = options;
  }

  /** The number of schedules concerned. What fails is logged and, as what is left over, done after the next answer. */
  async advance(answer: Answer): Promise<number> {
    const { log, settings } = this.#options;
    const until = performance.now() + settings.graceMs / 8;
    const leftMs = (): number => Math.max(1, Math.ceil(until - performance.now()));
    if (answer.firstOfLease) this.#unplanned = answer.schedules ?? {};
    try {
      return (await this.#plan(leftMs())) + (await this.#fire(answer, leftMs));
    } catch (error) {
      log.warn("a recurring schedule could not be advanced", { error: String(error) });
      return 0;
    }
  }

  /** Stores what this release knows of its schedules, where something else is stored. The number stored. */
  async #plan(timeoutMs: number): Promise<number> {
    const { database, registry } = this.#options;
    const stored = this.#unplanned;
    if (stored === undefined || stored === null) return 0;
    const schedules = [...registry.recurring.values()]
      .filter((one) => stored[one.task.identifier] !== one.schedule)
      .flatMap((one) => {
        const nextAt = one.next(new Date());
        return nextAt === null
          ? []
          : [{ identifier: one.task.identifier, schedule: one.schedule, nextAt: nextAt.toISOString() }];
      });
    if (schedules.length === 0) {
      this.#unplanned = undefined;
      return 0;
    }
    const [row] = await database.query(planRecurring, { request: JSON.stringify({ schedules }) }, { timeoutMs });
    this.#unplanned = undefined;
    return row?.planned ?? 0;
  }

  /** Enqueues what is due, each occurrence once whoever else tries. The number of schedules that fired. */
  async #fire(answer: Answer, leftMs: () => number): Promise<number> {
    const { database, registry } = this.#options;
    let fired = 0;
    for (const { identifier, nextAt } of answer.recurring ?? []) {
      const recurring = registry.recurring.get(identifier);
      if (recurring === undefined) continue;
      const { occurrences, next } = occurrencesUntil(recurring, new Date(nextAt), new Date());
      const request = {
        identifier,
        expectedAt: nextAt,
        nextAt: next?.toISOString() ?? "infinity",
        occurrences: occurrences.map((due) => due.toISOString()),
        overlap: recurring.overlap,
        payload: recurring.payload,
        priority: recurring.task.priority,
      };
      const timeoutMs = leftMs();
      const [row] = await database.query(fireRecurring, { request: JSON.stringify(request) }, { timeoutMs });
      if (row?.outcome === "fired") fired += 1;
    }
    return fired;
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
