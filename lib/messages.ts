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

export interface Answer {
  readonly epoch: number;
  readonly newest: boolean;
  readonly more: boolean;
  readonly silent: boolean;
  readonly rescued: number;
  readonly claimed: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly stale: number;
  readonly recurring: readonly { identifier: string; nextAt: string }[] | null;
  readonly schedules: Readonly<Record<string, string>> | null;
  /** Held tasks that an operator has cancelled. */
  readonly cancelling: readonly string[] | null;
  /** Free seats for which this invocation, and no other, is to call somebody. */
  readonly wake: readonly number[] | null;
  readonly tasks: readonly ClaimedTask[];
  /** The answer that gave the seat: it alone tells the schedules. */
  readonly firstOfLease: boolean;
}

/** An answer's first row. */
export type Header = Omit<Answer, "tasks" | "firstOfLease"> & {
  status: "ok" | "gone" | "old" | "seat_taken" | "unknown_release";
  ended?: boolean;
};

/** A row of the answer after its first: the columns as exchange_v1 puts them in order. */
export function decodeTask(text: string): ClaimedTask {
  const row = JSON.parse(text) as [
    string,
    string,
    number,
    number,
    number,
    number,
    string,
    boolean,
    string | null,
    string | null,
    unknown,
  ];
  const [
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
  ] = row;
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
}
