/** Recurring tasks: a schedule (interval or cron with time zone) that enqueues a task at each due time. */
import { Cron } from "croner";
import { StintError } from "./errors.ts";
import { encodePayload } from "./payload.ts";
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
  const recurring =
    every !== undefined
      ? defineIntervalTask({ ...options, every })
      : defineOnGrid(options, (refuse) => calendar(cron!, timeZone ?? "UTC", refuse));
  checkPayload(recurring);
  return recurring;
}

/** Here rather than at each due time, where nobody could be told. */
function checkPayload({ task, payload }: RecurringDefinition): void {
  try {
    encodePayload(task.identifier, task.payload, payload);
  } catch (cause) {
    if (cause instanceof StintError) throw new StintError("definition_invalid", cause.message, { cause });
    throw cause;
  }
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
