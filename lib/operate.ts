/** `stint/operator`: what an operator reads and does, from code. The calls, guards and audit log of HTTP and of the command line. */
import * as z from "zod/mini";
import type { Database } from "./database/port.ts";
import { StintError } from "./errors.ts";
import { databaseAt, listTasks, performAction, readAudit, showTask } from "./operator.ts";
import {
  type ActionAnswer,
  type ActionInput,
  type Audit,
  actionSchema,
  type TaskDetail,
  type TaskFilter,
  type Tasks,
  taskFilterSchema,
} from "./operator-schema.ts";
import { listRecurring, readStats } from "./stats.ts";
import type { RecurringStats, Stats } from "./stats-schema.ts";
import { isStorable } from "./task.ts";

export * from "./operator-schema.ts";
export * from "./stats-schema.ts";

export interface OperatorOptions {
  /** In the order of TASK_PROCESSOR_DATABASES: producers write to the last. */
  readonly databases: readonly Database[];
  /** Stands in the audit log beside what is done: a person or a program, 1 to 200 bytes. */
  readonly who: string;
  /** Of the processors, to tell a healthy slot from a stuck one (defaults: 20,000 and 2000 milliseconds). */
  readonly graceMs?: number;
  readonly sleepIntervalMs?: number;
}

/** Of a page: where the one before ended, and most rows (1 to 100, default 50). */
export interface PageOptions {
  readonly cursor?: string;
  readonly limit?: number;
  /** A place in `databases` (default: the last). */
  readonly database?: number;
}

/** Every call @throws StintError option_invalid | database_* | schema_missing */
export interface Operator {
  readStats(): Promise<Stats>;
  /** Newest first. */
  listTasks(filter?: TaskFilter, page?: PageOptions): Promise<Tasks>;
  /** With its runs; its payload and what its handler returned only where asked for. Null when there is none. */
  showTask(id: string, options?: { payload?: boolean; database?: number }): Promise<TaskDetail | null>;
  listRecurring(): Promise<RecurringStats[]>;
  /** Newest first. */
  readAudit(page?: PageOptions): Promise<Audit>;
  /** One guarded call a batch, safe against what a worker does at the same moment; one row in the audit log. */
  act(action: ActionInput): Promise<ActionAnswer>;
}

/** @throws StintError option_invalid */
export function createOperator({
  databases,
  who,
  graceMs = 20_000,
  sleepIntervalMs = 2000,
}: OperatorOptions): Operator {
  if (!Array.isArray(databases) || databases.length === 0)
    throw new StintError("option_invalid", "databases is a list of at least one.");
  if (typeof who !== "string" || !isStorable(who, 200))
    throw new StintError("option_invalid", "who is 1 to 200 bytes of UTF-8 without NUL.");
  const at = (place?: number): Database => databaseAt(databases, place);
  return {
    readStats: () => readStats(databases, { graceMs, sleepIntervalMs }),
    listTasks: async (filter = {}, { database, ...page } = {}) =>
      listTasks(at(database), checked(taskFilterSchema, filter, "filter"), checkedPage(page)),
    showTask: async (id, { database, ...options } = {}) => {
      if (typeof id !== "string" || !/^[1-9]\d{0,17}$/.test(id))
        throw new StintError("option_invalid", `A task's id is a whole number as text, not ${JSON.stringify(id)}.`);
      return await showTask(at(database), id, options);
    },
    listRecurring: () => listRecurring(databases),
    readAudit: async ({ database, ...page } = {}) => readAudit(at(database), checkedPage(page)),
    act: async (action) => performAction(databases, checked(actionSchema, action, "action"), who),
  };
}

function checkedPage<Page extends Omit<PageOptions, "database">>(page: Page): Page {
  const { limit = 50, cursor = "" } = page;
  if (!Number.isInteger(limit) || limit < 1 || limit > 100)
    throw new StintError("option_invalid", "limit is a whole number from 1 to 100.");
  if (typeof cursor !== "string" || !/^[\w.:+-]{0,100}$/.test(cursor))
    throw new StintError("option_invalid", "cursor is what next said.");
  return page;
}

/** Names the member, never what it was. */
function checked<S extends z.ZodMiniType>(schema: S, value: unknown, what: string): z.output<S> {
  const parsed = z.safeParse(schema, value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw new StintError("option_invalid", `${[what, ...path.map(String)].join(".")}: ${message}.`);
}
