/** Recurring tasks: a schedule (interval or cron with time zone) that enqueues a task at each due time. */
import { Cron } from "croner";
import {
  defineIntervalTask,
  defineOnGrid,
  type Grid,
  type RecurringDefinition,
  type RecurringOptions,
  type Refuse,
} from "./recurring-definition.ts";
import type { PayloadSchema } from "./task.ts";

/** @throws StintError definition_invalid, naming the option and what is allowed */
export function defineRecurringTask<S extends PayloadSchema>(options: RecurringOptions<S>): RecurringDefinition {
  const { every, cron, timeZone } = options;
  if (every !== undefined) return defineIntervalTask({ ...options, every });
  return defineOnGrid(options, (refuse) => calendar(cron!, timeZone ?? "UTC", refuse));
}

function calendar(cron: string, timeZone: string, refuse: Refuse): Grid {
  try {
    const pattern = new Cron(cron, { timezone: timeZone, paused: true });
    pattern.nextRun(new Date(0));
    return {
      next: (after) => pattern.nextRun(after),
      // Its reference itself is left out.
      previous: (count, until) => pattern.previousRuns(count, new Date(until.getTime() + 1)),
    };
  } catch (cause) {
    return refuse(`cron or timeZone is not usable: ${cause instanceof Error ? cause.message : cause}`);
  }
}
