import type { Database } from "./database/port.ts";
import type { Log } from "./log.ts";
import type { Answer } from "./messages.ts";
import type { RecurringDefinition } from "./recurring.ts";
import type { Registry } from "./registry.ts";
import { fireRecurring, planRecurring } from "./sql/recurring-tasks.ts";

const MOST_MISSED = 100;
/** An occurrence this late was missed: nobody was there at its time. */
const LATE_MS = 60_000;

/** Plans and fires what this answer calls for. The number of schedules concerned; one that fails is logged, and said again by the next exchange. */
export async function advanceSchedules(
  database: Database,
  registry: Registry,
  answer: Answer,
  log: Log,
): Promise<number> {
  try {
    return (await planSchedules(database, registry, answer)) + (await fireDue(database, registry, answer));
  } catch (error) {
    log.warn("a recurring schedule could not be advanced", { error: String(error) });
    return 0;
  }
}

/** Stores what this release knows of its schedules, where the first answer shows something else. The number stored. */
async function planSchedules(database: Database, registry: Registry, answer: Answer): Promise<number> {
  if (!answer.firstOfLease || registry.recurring.size === 0) return 0;
  const stored = answer.schedules ?? {};
  const schedules = [...registry.recurring.values()]
    .filter((one) => stored[one.task.identifier] !== one.schedule)
    .flatMap((one) => {
      const nextAt = one.next(new Date());
      return nextAt === null
        ? []
        : [{ identifier: one.task.identifier, schedule: one.schedule, nextAt: nextAt.toISOString() }];
    });
  if (schedules.length === 0) return 0;
  const [row] = await database.query(planRecurring, { request: JSON.stringify({ schedules }) });
  return row?.planned ?? 0;
}

/** Enqueues what is due, each occurrence once whoever else tries. The number of schedules that fired. */
async function fireDue(database: Database, registry: Registry, answer: Answer): Promise<number> {
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
    const [row] = await database.query(fireRecurring, { request: JSON.stringify(request) });
    if (row?.outcome === "fired") fired += 1;
  }
  return fired;
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
