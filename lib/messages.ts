/** What an invocation and the database say to each other in an exchange. */

/** A task as the answer tells it. */
export interface ClaimedTask {
  readonly id: string;
  readonly identifier: string;
  readonly attempt: number;
  /** Attempts used, this one among them: those lost with an invocation that held others too are forgiven. */
  readonly used: number;
  readonly maxAttempts: number;
  readonly priority: number;
  readonly scheduledFor: string;
  readonly suspect: boolean;
  readonly occurrence: string | null;
  readonly traceParent: string | null;
  readonly payload: unknown;
}

/** One ended run, as it is handed in. Ages are counted back from the sending, so that clocks need not agree. */
export interface Result {
  readonly id: string;
  readonly attempt: number;
  readonly outcome: "SUCCESS" | "FAILURE" | "CANCELLED" | "RELEASED";
  readonly startedAt: number;
  readonly finishedAt: number;
  readonly delayMs?: number;
  readonly retryAt?: string;
  readonly error?: string;
  /** What the handler returned, where it can be kept. */
  readonly value?: unknown;
}

export interface Progress {
  readonly id: string;
  readonly attempt: number;
  readonly value: unknown;
}

export interface Request {
  readonly want: number;
  /** Nothing runs in this process: a suspect may be taken. */
  readonly alone: boolean;
  readonly ending: boolean;
  /** What a claimed task's timeout must fit into; null without a limit. */
  readonly remainingMs: number | null;
  readonly floors: readonly Floor[];
  readonly results: readonly Result[];
  readonly progress?: readonly Progress[];
  /** What this invocation has run so far, by identifier: kept on its heartbeat. */
  readonly metrics?: unknown;
  /** Call others when more is due than can be taken: at most `most` of the seats 0 to `slots - 1`. */
  readonly wake?: { readonly slots: number; readonly most: number };
}

export interface Floor {
  readonly identifier: string;
  readonly priority: number;
  readonly due: string;
  readonly id: string;
}

export interface DueOccurrence {
  readonly identifier: string;
  readonly nextAt: string;
  readonly schedule: string;
}

export interface Answer {
  /** The database's time, ISO 8601 with microseconds. */
  readonly at: string;
  readonly epoch: number;
  readonly newest: boolean;
  readonly more: boolean;
  /** What this number brought before is told again. What it left behind is not known any more. */
  readonly repeated: boolean;
  /** A suspect has waited for longer than the grace period: it runs as soon as nothing else does in this process, and nothing is claimed until then. */
  readonly starves: boolean;
  /** Somebody was not seen for longer than the grace period. */
  readonly silent: boolean;
  /** Somebody was not seen for longer than half the grace period. */
  readonly fading: boolean;
  readonly rescued: number;
  readonly claimed: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly stale: number;
  /** What is due, and the schedule by which it was planned. */
  readonly recurring: readonly DueOccurrence[] | null;
  readonly schedules: Readonly<Record<string, string>> | null;
  /** Held tasks that an operator has cancelled. */
  readonly cancelling: readonly string[] | null;
  /** Free seats for which this invocation, and no other, is to call somebody. */
  readonly wake: readonly number[] | null;
  readonly tasks: readonly ClaimedTask[];
  /** The answer that gave the seat: it alone tells the schedules. */
  readonly firstOfLease: boolean;
}

/** An answer's last row. */
export type Header = Omit<Answer, "tasks" | "firstOfLease"> & {
  status: "ok" | "gone" | "old" | "seat_taken" | "unknown_release";
  ended?: boolean;
};

type TaskColumns = [
  id: string,
  identifier: string,
  attempt: number,
  used: number,
  maxAttempts: number,
  priority: number,
  scheduledFor: string,
  suspect: boolean,
  occurrence: string | null,
  traceParent: string | null,
];

/**
 * The rows of an answer: tasks, each its columns as exchange_v2 puts them in order and its payload, and at last the header. The tasks come in the
 * order in which they are to start. Undefined without any row.
 */
export function decodeAnswer(
  rows: readonly { answer: string }[],
): { header: Header; tasks: ClaimedTask[] } | undefined {
  const last = rows.at(-1);
  if (last === undefined) return undefined;
  const tasks = rows.slice(0, -1).flatMap(({ answer }) => decodeTasks(JSON.parse(`[${answer}]`) as unknown[]));
  return { header: JSON.parse(last.answer) as Header, tasks: tasks.sort(byTurn) };
}

/** @param told columns, payload, columns, payload, and so on */
const decodeTasks = (told: readonly unknown[]): ClaimedTask[] =>
  Array.from({ length: told.length / 2 }, (_, n) => decodeTask(told[2 * n] as TaskColumns, told[2 * n + 1]));

const decodeTask = (columns: TaskColumns, payload: unknown): ClaimedTask => {
  const [id, identifier, attempt, used, maxAttempts, priority, scheduledFor, suspect, occurrence, traceParent] =
    columns;
  return {
    id,
    identifier,
    attempt,
    used,
    maxAttempts,
    priority,
    scheduledFor,
    suspect,
    occurrence,
    traceParent,
    payload,
  };
};

/** Times come in UTC, so that their text sorts as they do. */
function byTurn(one: ClaimedTask, other: ClaimedTask): number {
  if (one.priority !== other.priority) return one.priority - other.priority;
  if (one.scheduledFor !== other.scheduledFor) return one.scheduledFor < other.scheduledFor ? -1 : 1;
  return Number(BigInt(one.id) - BigInt(other.id));
}

/** Runs that succeeded and returned nothing to keep, by columns, each an array as Postgres writes it: the least that both sides can read. */
export interface Done {
  readonly id: string;
  readonly attempt: string;
  /** Ages in milliseconds. */
  readonly started: string;
  readonly finished: string;
}

/** The other results, one by one. */
export type EncodedResult = Omit<Result, "startedAt" | "finishedAt"> & { started: number; finished: number };

/** @param at when it is sent, in milliseconds of the monotonic clock */
export function encodeResults(all: readonly Result[], at: number): { results: EncodedResult[]; done?: Done } {
  const plain = all.filter(isPlain);
  const results = all
    .filter((result) => !isPlain(result))
    .map(({ startedAt, finishedAt, ...result }) => ({
      ...result,
      started: Math.round(at - startedAt),
      finished: Math.round(at - finishedAt),
    }));
  if (plain.length === 0) return { results };
  const column = (pick: (result: Result) => string | number): string => `{${plain.map(pick).join(",")}}`;
  return {
    results,
    done: {
      id: column(({ id }) => id),
      attempt: column(({ attempt }) => attempt),
      started: column(({ startedAt }) => Math.round(at - startedAt)),
      finished: column(({ finishedAt }) => Math.round(at - finishedAt)),
    },
  };
}

/** Of results, and of progress: the Data API takes 4 MiB a request, and both may be in it. */
const REPORT_BYTES = 1_500_000;
/** All but its text. */
const REPORT_FRAME_BYTES = 200;

/** How many of them, from the first on, fit into one request; one at the least. Their text is JSON in a JSON string there, which may be longer by half. */
export function countThatFit(reports: readonly { readonly value?: unknown; readonly error?: string }[]): number {
  let bytes = 0;
  const last = reports.findIndex(({ value, error }, place) => {
    bytes += REPORT_FRAME_BYTES + sizeInRequest(value) + sizeInRequest(error);
    return bytes > REPORT_BYTES && place > 0;
  });
  return last < 0 ? reports.length : last;
}

const sizeInRequest = (part: unknown): number =>
  part === undefined ? 0 : Buffer.byteLength(JSON.stringify(JSON.stringify(part)));

const isPlain = ({ outcome, value }: Result): boolean => outcome === "SUCCESS" && value === undefined;
