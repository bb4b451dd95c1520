/** What an operator does, from code: pause, cancel, replay, and the recurring schedules. */
import type { Database } from "./database/port.ts";
import { StintError } from "./errors.ts";
import { type CancelOutcome, cancelTask, pauseIdentifier, replayFailed, resumeIdentifier } from "./sql/operate.ts";
import { enableRecurring, listRecurring, type RecurringRow, runRecurring } from "./sql/recurring-tasks.ts";
import { isStorable } from "./task.ts";

export interface ReplayFilter {
  /** Of failed tasks. */
  readonly ids?: readonly string[];
  readonly identifier?: string;
  readonly failedSince?: Date;
  /** At most so many, oldest first (default and most 10,000). */
  readonly limit?: number;
}

export interface Operator {
  /** Nothing of this identifier is claimed any more; `"*"`: nothing at all. What runs goes on. False when it was paused. */
  pause(identifier: string): Promise<boolean>;
  /** False when it was not paused. */
  resume(identifier: string): Promise<boolean>;
  /** A waiting task ends as cancelled; the holder of a running one hears at its next exchange, and its signal aborts. */
  cancel(id: string): Promise<CancelOutcome>;
  /** Failed tasks wait again, with all their attempts. The number of them. */
  replay(filter: ReplayFilter): Promise<number>;
  readonly recurring: {
    list(): Promise<RecurringRow[]>;
    /** Makes it due now. False when there is none, or it is disabled. */
    run(identifier: string): Promise<boolean>;
    enable(identifier: string): Promise<boolean>;
    disable(identifier: string): Promise<boolean>;
  };
}

/** Every call @throws StintError option_invalid | database_* */
export function createOperator(database: Database): Operator {
  const checked = (identifier: string): { identifier: string } => {
    if (typeof identifier !== "string" || !isStorable(identifier, 200))
      throw new StintError("option_invalid", "identifier is 1 to 200 bytes of UTF-8 without NUL.");
    return { identifier };
  };
  return {
    pause: async (identifier) => (await database.query(pauseIdentifier, checked(identifier)))[0]?.changed === true,
    resume: async (identifier) => (await database.query(resumeIdentifier, checked(identifier)))[0]?.changed === true,
    cancel: async (id) => (await database.query(cancelTask, { id: checkedId(id) }))[0]!.outcome,
    replay: async ({ ids, identifier, failedSince, limit = 10_000 }) => {
      if (!Number.isInteger(limit) || limit < 1 || limit > 10_000)
        throw new StintError("option_invalid", "limit is a whole number from 1 to 10,000.");
      if (failedSince !== undefined && !(failedSince instanceof Date && Number.isFinite(failedSince.getTime()))) {
        throw new StintError("option_invalid", "failedSince is a Date.");
      }
      if (ids !== undefined && (!Array.isArray(ids) || ids.length > 10_000)) {
        throw new StintError("option_invalid", "ids is an array of at most 10,000.");
      }
      const filter = {
        ...(ids && { ids: ids.map(checkedId) }),
        ...(identifier !== undefined && checked(identifier)),
        ...(failedSince && { failedSince: failedSince.toISOString() }),
        limit,
      };
      return (await database.query(replayFailed, { filter: JSON.stringify(filter) }))[0]!.replayed;
    },
    recurring: {
      list: () => database.query(listRecurring, {}),
      run: async (identifier) => (await database.query(runRecurring, checked(identifier))).length > 0,
      enable: async (identifier) =>
        (await database.query(enableRecurring, { ...checked(identifier), enabled: true })).length > 0,
      disable: async (identifier) =>
        (await database.query(enableRecurring, { ...checked(identifier), enabled: false })).length > 0,
    },
  };
}

function checkedId(id: string): string {
  if (!/^[1-9]\d{0,18}$/.test(id))
    throw new StintError("option_invalid", `A task's id is a whole number as text, not ${JSON.stringify(id)}.`);
  return id;
}
