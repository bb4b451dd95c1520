/** Invocations as the database sees them: exchanges spoken by hand, one number at a time. */
import { randomUUID } from "node:crypto";
import { type ClaimedTask, decodeAnswer, encodeResults, type Result } from "../../lib/messages.ts";
import { exchange, registerRelease } from "../../lib/sql/exchange.ts";
import { enqueueTasks } from "../../lib/sql/tasks.ts";
import type { TestDatabase } from "./database.ts";

export const GRACE_MS = 20_000;

export interface Spoken {
  readonly status: string;
  readonly epoch: number;
  readonly newest: boolean;
  readonly more: boolean;
  readonly starves: boolean;
  readonly silent: boolean;
  readonly fading: boolean;
  readonly rescued: number;
  readonly claimed: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly stale: number;
  readonly ended?: boolean;
  readonly tasks: Pick<ClaimedTask, "id" | "identifier" | "attempt" | "used" | "suspect" | "payload">[];
}

/** A result as it is told: how long ago it started and ended, in milliseconds. */
export type Told = Omit<Result, "startedAt" | "finishedAt"> & { readonly started: number; readonly finished: number };

/** As an invocation writes it that sends at moment 0. */
export const inWords = (results: readonly Told[]) =>
  encodeResults(
    results.map(({ started, finished, ...result }) => ({ ...result, startedAt: -started, finishedAt: -finished })),
    0,
  );

export type Words = Partial<{
  seq: number;
  acked: number;
  want: number;
  alone: boolean;
  ending: boolean;
  onlyFree: boolean;
  remainingMs: number | null;
  bytes: number;
  results: readonly Told[];
  floors: object[];
  release: string;
  graceMs: number;
}>;

/** Registers a release whose identifiers have these timeouts and limits. */
export async function register(
  db: TestDatabase,
  release: string,
  tasks: Record<string, { timeoutMs?: number; maxAttempts?: number }>,
): Promise<void> {
  const rows = Object.entries(tasks).map(([identifier, { timeoutMs = 60_000, maxAttempts = 3 }]) => ({
    identifier,
    timeoutMs,
    maxAttempts,
  }));
  await db.database.query(registerRelease, { request: JSON.stringify({ release, tasks: rows }) });
}

export async function enqueueRaw(
  db: TestDatabase,
  identifier: string,
  count = 1,
  more: object = {},
): Promise<string[]> {
  const payloads = Array.from({ length: count }, (_, n) => ({ n }));
  const request = JSON.stringify({ token: null, identifier, priority: 50, payloads, ...more });
  const [row] = await db.database.query(enqueueTasks, { request });
  return (JSON.parse(row!.answer) as { ids: string[] }).ids;
}

export class Speaker {
  readonly id = randomUUID();
  readonly db: TestDatabase;
  readonly slot: number;
  readonly release: string;
  seq = 0;
  acked = 0;

  constructor(db: TestDatabase, { slot = 0, release = "r1" } = {}) {
    this.db = db;
    this.slot = slot;
    this.release = release;
  }

  /** Speaks under the next number and hears the answer. */
  async say(words: Words = {}): Promise<Spoken> {
    this.seq += 1;
    const answer = await this.repeat(words);
    this.acked = this.seq;
    return answer;
  }

  /** Speaks under the number of before, as one who heard nothing. */
  async repeat(words: Words = {}): Promise<Spoken> {
    const request = JSON.stringify(this.request(words));
    const answer = decodeAnswer(await this.db.database.query(exchange, { request }));
    return { ...answer!.header, tasks: answer!.tasks };
  }

  request(words: Words = {}): object {
    return {
      invocation: this.id,
      slot: this.slot,
      onlyFree: false,
      release: this.release,
      graceMs: GRACE_MS,
      seq: this.seq,
      acked: this.acked,
      want: 10,
      alone: true,
      ending: false,
      remainingMs: null,
      bytes: 480_000,
      floors: [],
      ...words,
      ...inWords(words.results ?? []),
    };
  }

  /** Has been seen long enough, without a gap, to call others silent. */
  async becomeWitness(): Promise<void> {
    await this.db.sql("UPDATE heartbeat SET seen_since = seen_since - interval '1 hour' WHERE invocation_id = $1", [
      this.id,
    ]);
  }

  /** Silent for longer than the grace period: the row moves, not the clock. */
  async fallSilent(ms = GRACE_MS + 1000): Promise<void> {
    await this.db.sql(
      "UPDATE heartbeat SET last_seen_at = last_seen_at - $2 * interval '1 millisecond', seen_since = seen_since - $2 * interval '1 millisecond' WHERE invocation_id = $1",
      [this.id, ms],
    );
  }
}

export const success = (task: { id: string; attempt: number }): Told => ({
  id: task.id,
  attempt: task.attempt,
  outcome: "SUCCESS",
  started: 2,
  finished: 1,
});

export const failure = (task: { id: string; attempt: number }, more: Partial<Told> = {}): Told => ({
  id: task.id,
  attempt: task.attempt,
  outcome: "FAILURE",
  started: 2,
  finished: 1,
  delayMs: 0,
  error: "Error: no",
  ...more,
});
