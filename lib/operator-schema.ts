/** What is said under /processor besides stats: tasks, schedules, the audit log, actions. infra/operator-api.md tells it in prose. */
import * as z from "zod/mini";
import { isStorable } from "./task.ts";

export const TASK_STATES = ["waiting", "scheduled", "retrying", "running", "failed", "cancelled", "succeeded"] as const;
export type TaskState = (typeof TASK_STATES)[number];

const wholeId = z.string().check(z.regex(/^[1-9]\d{0,17}$/, "a whole number as text"));
/** What Postgres takes as well: it knows no year 0, and zones up to 15 hours. */
const MOMENT = /^(?!0000)\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-](0\d|1[0-5]):[0-5]\d)$/;
const moment = z.string().check(
  z.regex(MOMENT, "an ISO 8601 time with a zone"),
  z.refine((text) => Number.isFinite(Date.parse(text)) && isDay(text), "an ISO 8601 time with a zone"),
);
/** Date.parse takes 31 February for 3 March. Every 400 years the calendar is the same. */
function isDay(text: string): boolean {
  const [year, month, day] = text.slice(0, 10).split("-").map(Number);
  return day! <= new Date(Date.UTC(2000 + (year! % 400), month!, 0)).getUTCDate();
}
const storable = (mostBytes: number) =>
  z.string().check(z.refine((text) => isStorable(text, mostBytes), `1 to ${mostBytes} bytes of UTF-8 without NUL`));
const identifier = storable(200);
const wholeText = (least: number, most: number) => {
  const allowed = `a whole number from ${least} to ${most}`;
  return z.pipe(
    z.string().check(z.regex(/^\d{1,9}$/, allowed)),
    z.pipe(z.transform(Number), z.int().check(z.gte(least, allowed), z.lte(most, allowed))),
  );
};

/** Which tasks. `from` (included) and `to` (excluded) are of created_at; of finished_at for succeeded ones. */
export const taskFilterSchema = z.strictObject({
  /** Default: every unfinished one. */
  state: z.optional(z.enum(TASK_STATES)),
  identifier: z.optional(identifier),
  key: z.optional(storable(500)),
  from: z.optional(moment),
  to: z.optional(moment),
});
export type TaskFilter = z.output<typeof taskFilterSchema>;

const database = z.optional(wholeText(0, 9));

/** GET /processor/tasks?... Newest first. */
export const tasksQuerySchema = z.strictObject({
  ...taskFilterSchema.shape,
  /** `next` of the page before. */
  cursor: z.optional(z.string().check(z.regex(/^[\w.:+-]{1,100}$/, "what `next` said"))),
  /** 1 to 100, default 50. */
  limit: z._default(wholeText(1, 100), 50),
  /** Place in TASK_PROCESSOR_DATABASES; default the last one, where producers write. */
  database,
});

export const taskSummarySchema = z.object({
  id: z.string(),
  identifier: z.string(),
  state: z.enum(TASK_STATES),
  /** 0 runs first, 100 last; null for succeeded ones, of which only the runs are kept (as are the other nulls). */
  priority: z.nullable(z.int()),
  scheduledFor: z.nullable(z.string()),
  createdAt: z.nullable(z.string()),
  key: z.nullable(z.string()),
  serialKey: z.nullable(z.string()),
  /** Number of the last attempt, 0 before the first; attempts used may be fewer, as some are forgiven. */
  attempt: z.int(),
  attemptsUsed: z.nullable(z.int()),
  maxAttempts: z.nullable(z.int()),
  heldSince: z.nullable(z.string()),
  /** When it succeeded, failed or was cancelled. */
  finishedAt: z.nullable(z.string()),
  /** Of its last failed run, at most 300 characters. */
  error: z.nullable(z.string()),
});
export type TaskSummary = z.output<typeof taskSummarySchema>;

export const tasksSchema = z.object({
  tasks: z.array(taskSummarySchema),
  /** Null at the end. A page may be short, even empty, and not the last: one look walks over a bounded number of rows. */
  next: z.nullable(z.string()),
});
export type Tasks = z.output<typeof tasksSchema>;

/** GET /processor/tasks/{id} */
export const taskQuerySchema = z.strictObject({ payload: z.optional(z.enum(["0", "1"])), database });

export const taskRunSchema = z.object({
  attempt: z.int(),
  startedAt: z.string(),
  finishedAt: z.string(),
  durationMs: z.number(),
  result: z.enum(["SUCCESS", "FAILURE"]),
  /** How the task ended with this run; null when it went on. */
  outcome: z.nullable(z.enum(["SUCCEEDED", "FAILED", "CANCELLED"])),
  /** At most 8 KiB. */
  error: z.nullable(z.string()),
  invocation: z.string(),
});

export const taskDetailSchema = z.object({
  task: z.object({
    ...taskSummarySchema.shape,
    /** Of a recurring task: the due time it stands for. */
    occurrence: z.nullable(z.string()),
    traceParent: z.nullable(z.string()),
    /** The invocation that holds it. */
    holder: z.nullable(z.string()),
    /** What its handler last reported. */
    progress: z.unknown(),
    payloadBytes: z.nullable(z.int()),
  }),
  /** Newest first, at most 50. */
  runs: z.array(taskRunSchema),
  /** Only with ?payload=1 and while the task is kept. */
  payload: z.optional(z.unknown()),
  /** What the handler returned; only with ?payload=1. */
  resultValue: z.optional(z.unknown()),
});
export type TaskDetail = z.output<typeof taskDetailSchema>;

/** GET /processor/audit?cursor&limit. Newest first. */
export const auditQuerySchema = z.strictObject({
  cursor: z.optional(wholeId),
  limit: z._default(wholeText(1, 100), 50),
  database,
});
export const auditSchema = z.object({
  entries: z.array(
    z.object({
      id: z.string(),
      at: z.string(),
      /** The token's name, or cli. */
      who: z.string(),
      action: z.string(),
      /** What was asked for: ids (the first 100) or filter, identifier, priority, due. */
      what: z.record(z.string(), z.unknown()),
      /** How many it concerned. */
      count: z.int(),
    }),
  ),
  next: z.nullable(z.string()),
});
export type Audit = z.output<typeof auditSchema>;

const tasksShape = {
  /** Either these ... */
  ids: z.optional(z.array(wholeId).check(z.minLength(1), z.maxLength(1000))),
  /** ... or all that match. */
  filter: z.optional(taskFilterSchema),
  /** Only says how many it would concern. */
  dryRun: z._default(z.boolean(), false),
  database: z.optional(z.int().check(z.gte(0), z.lte(9))),
};
const onTasks = <const A extends string>(action: A) => z.strictObject({ action: z.literal(action), ...tasksShape });
const onIdentifier = <const A extends string>(action: A) =>
  z.strictObject({ action: z.literal(action), identifier, database: tasksShape.database });

/** POST /processor/actions */
export const actionSchema = z.discriminatedUnion("action", [
  /** Failed and cancelled tasks wait again with all their attempts. */
  onTasks("retry"),
  /** Scheduled and retrying ones are due now. */
  onTasks("run_now"),
  /** Unfinished ones end as cancelled; the holder of a running one is told. */
  onTasks("cancel"),
  /** Failed, cancelled and unfinished ones that nobody holds are removed; their runs stay. */
  onTasks("delete"),
  z.strictObject({
    action: z.literal("set_priority"),
    ...tasksShape,
    priority: z.literal([0, 25, 50, 75, 100]),
  }),
  z.strictObject({ action: z.literal("set_due"), ...tasksShape, due: moment }),
  /** `*` is all of them. */
  onIdentifier("pause"),
  onIdentifier("resume"),
  onIdentifier("recurring_run"),
  onIdentifier("recurring_enable"),
  onIdentifier("recurring_disable"),
]);
export type Action = z.output<typeof actionSchema>;
export type ActionInput = z.input<typeof actionSchema>;

export const actionAnswerSchema = z.object({
  action: z.string(),
  dryRun: z.boolean(),
  /** How many it concerned, or would concern. 0 is no error: someone was faster, or nothing matches. */
  count: z.int(),
  /** False: there was more than fits into one request. Send it again for the rest; of a dry run: at least so many. */
  done: z.boolean(),
});
export type ActionAnswer = z.output<typeof actionAnswerSchema>;

export const recurringSchema = z.object({ recurring: z.array(z.unknown()) });

export const refusalSchema = z.object({ error: z.object({ code: z.string(), message: z.string() }) });
