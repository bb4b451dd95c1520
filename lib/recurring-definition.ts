/** What a recurring task is, and the grid of an interval; cron is in recurring.ts. */
import { StintError } from "./errors.ts";
import { defineTask, type PayloadSchema, type TaskDefinition, type TaskHandler, type TaskOptions } from "./task.ts";

/** What becomes of due times that nobody was there for: the last of them runs, none does, each does (at most 100). */
export type Missed = "once" | "skip" | "all";

export interface RecurringOptions<S extends PayloadSchema> extends Omit<TaskOptions<S>, "queueSize" | "payload"> {
  /** Of the payload. */
  readonly schema: S;
  /** Stored with each occurrence; what `schema` takes. */
  readonly payload: unknown;
  /** An interval such as "30s", "15m", "1h", "7d", on a grid from midnight UTC (or from firstRunTime). */
  readonly every?: string;
  /** Five fields, or six with seconds first, as croner reads them. */
  readonly cron?: string;
  /** Of cron; an IANA name, default UTC. */
  readonly timeZone?: string;
  /** "HH:MM" UTC: where the grid of `every` starts. */
  readonly firstRunTime?: string;
  /** Default once. */
  readonly missed?: Missed;
  /** Enqueue an occurrence also while the last one is unfinished (default false: it is skipped and counted). */
  readonly overlap?: boolean;
}

export interface RecurringDefinition {
  readonly task: TaskDefinition;
  readonly payload: unknown;
  /** The schedule as stored, to see whether it has changed. */
  readonly schedule: string;
  readonly missed: Missed;
  readonly overlap: boolean;
  /** The first due time after `after`, exactly on the grid; null when there is none. */
  next(after: Date): Date | null;
  /** The last `count` due times at or before `until`, newest first. */
  previous(count: number, until: Date): Date[];
  handle(run: Parameters<TaskDefinition["handle"]>[0]): RecurringHandler;
}

export interface RecurringHandler extends TaskHandler {
  readonly recurring: RecurringDefinition;
}

const UNIT_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
/** The original has 30 minutes; a Lambda function has 15 in all. */
const DEFAULT_TIMEOUT_MS = 600_000;

/** Both directions of a schedule's grid. */
export interface Grid {
  next(after: Date): Date | null;
  /** The last `count` points at or before `until`, newest first. */
  previous(count: number, until: Date): Date[];
}

/** Says why a definition is not usable. */
export type Refuse = (message: string) => never;

/**
 * A recurring task on whatever grid its schedule means.
 * @throws StintError definition_invalid, naming the option and what is allowed
 */
export function defineOnGrid<S extends PayloadSchema>(
  options: RecurringOptions<S>,
  gridOf: (refuse: Refuse) => Grid,
): RecurringDefinition {
  const { schema, payload, every, cron, timeZone, firstRunTime, missed = "once", overlap = false, ...task } = options;
  const definition = defineTask({ timeoutMs: DEFAULT_TIMEOUT_MS, ...task, payload: schema });
  const refuse: Refuse = (message) => {
    throw new StintError("definition_invalid", `${options.identifier}: ${message}`);
  };
  if ((every === undefined) === (cron === undefined)) refuse("one of every and cron is set, not both and not neither.");
  if (!["once", "skip", "all"].includes(missed)) refuse("missed is once, skip or all.");
  if (typeof overlap !== "boolean") refuse("overlap is true or false.");
  if (timeZone !== undefined && cron === undefined) refuse("timeZone goes with cron: an interval has none.");
  if (firstRunTime !== undefined && every === undefined) refuse("firstRunTime goes with every.");
  const grid = gridOf(refuse);
  const recurring: RecurringDefinition = Object.freeze({
    task: definition as unknown as TaskDefinition,
    payload,
    schedule: JSON.stringify(every !== undefined ? { every, firstRunTime } : { cron, timeZone: timeZone ?? "UTC" }),
    missed,
    overlap,
    next: grid.next,
    previous: grid.previous,
    handle: (run: Parameters<TaskDefinition["handle"]>[0]): RecurringHandler => ({
      ...recurring.task.handle(run),
      recurring,
    }),
  });
  return recurring;
}

/** For what Stint itself runs: without a reader of cron, 33 KB that every cold start would compile. */
export const defineIntervalTask = <S extends PayloadSchema>(
  options: RecurringOptions<S> & { readonly every: string },
): RecurringDefinition => defineOnGrid(options, (refuse) => interval(options.every, options.firstRunTime, refuse));

function interval(every: string, firstRunTime: string | undefined, refuse: Refuse): Grid {
  const match = /^(\d{1,9})([smhd])$/.exec(every);
  const everyMs = match === null ? 0 : Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS];
  if (everyMs < 1000 || everyMs > 366 * UNIT_MS.d) {
    refuse(`every is a whole number and a unit (s, m, h, d), from 1s to 366d, not ${JSON.stringify(every)}.`);
  }
  const time = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(firstRunTime ?? "00:00");
  if (time === null) refuse(`firstRunTime is HH:MM, not ${JSON.stringify(firstRunTime)}.`);
  const startMs = Number(time![1]) * UNIT_MS.h + Number(time![2]) * UNIT_MS.m;
  const place = (at: Date): number => Math.floor((at.getTime() - startMs) / everyMs);
  const pointAt = (number: number): Date => new Date(number * everyMs + startMs);
  return {
    next: (after) => pointAt(place(after) + 1),
    previous: (count, until) => Array.from({ length: count }, (_, n) => pointAt(place(until) - n)),
  };
}
