/** Wakes at a time, through a queue that holds a message back: where nobody polls, so that a database may rest. */
import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { pause } from "./clock.ts";
import type { Database } from "./database/port.ts";
import { StintError } from "./errors.ts";
import type { Log } from "./log.ts";
import { arrangeWake } from "./sql/slots.ts";

/** SQS holds a message for 15 minutes at the most. What is due later is reached in several steps. */
export const MOST_DELAY_MS = 900_000;
const SEND_MS = 3000;

/**
 * Sends `{ "wake": true }` to a queue whose event source mapping calls the processor, to be delivered after `delayMs` (0 to 900,000).
 * The caller's role needs sqs:SendMessage on it. `endpoint` is SQS's own unless told otherwise.
 * @throws StintError wake_failed, with the queue's reason
 */
export function queueWake(queueUrl: string, options: { endpoint?: string } = {}): (delayMs?: number) => Promise<void> {
  const client = new SQSClient({ ...options, maxAttempts: 3 });
  return async (delayMs = 0) => {
    const DelaySeconds = Math.ceil(Math.min(Math.max(delayMs, 0), MOST_DELAY_MS) / 1000);
    const command = new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: '{"wake":true}', DelaySeconds });
    try {
      await client.send(command, { abortSignal: AbortSignal.timeout(SEND_MS) });
    } catch (error) {
      throw new StintError("wake_failed", `A wake could not be sent to ${queueUrl}: ${String(error)}`);
    }
  };
}

export interface ArrangeOptions {
  readonly databases: readonly Database[];
  readonly release: string;
  readonly graceMs: number;
  readonly send: (delayMs: number) => Promise<void>;
  readonly log: Log;
  /** The caller is about to look: it is guarded if there is something to do for it. */
  readonly beginning: boolean;
  /** How long the caller waits, in milliseconds; what is answered later is sent all the same. Default: an eighth of the grace period, as leases run meanwhile. */
  readonly waitMs?: number;
}

/**
 * Sees to it that somebody is called when the next task or occurrence is due, and a quarter past the grace period of whoever works
 * now: a dead man's call. Asked before an invocation claims, before its first task starts, and when it has left. One call is under way at a time: more are not sent.
 */
export async function arrangeNextWake(options: ArrangeOptions): Promise<void> {
  const { databases, graceMs, waitMs = graceMs / 8 } = options;
  const answered = new AbortController();
  const all = Promise.all(databases.map((database) => arrange(database, options)));
  await Promise.race([all.finally(() => answered.abort()), pause(waitMs, answered.signal)]);
}

async function arrange(database: Database, { release, graceMs, send, log, beginning }: ArrangeOptions): Promise<void> {
  try {
    const values = { release, graceMs, mostMs: MOST_DELAY_MS, beginning };
    const [row] = await database.query(arrangeWake, values, { timeoutMs: graceMs / 4 });
    if (row?.delayMs != null) await send(row.delayMs);
  } catch (error) {
    log.error("the next wake could not be arranged; the safety net's tick makes up for it", { error: String(error) });
  }
}
