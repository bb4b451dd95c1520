/** Who is called next, and when: where nobody polls, so that a database may rest. */
import { pause } from "./clock.ts";
import type { Database } from "./database/port.ts";
import type { Log } from "./log.ts";
import { arrangeWake } from "./sql/slots.ts";

export interface ArrangeOptions {
  readonly databases: readonly Database[];
  readonly release: string;
  readonly graceMs: number;
  readonly send: (delayMs: number) => Promise<void>;
  /** What `send` can hold back at the most; what is due later is reached in several steps. */
  readonly mostMs: number;
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

async function arrange(
  database: Database,
  { release, graceMs, send, mostMs, log, beginning }: ArrangeOptions,
): Promise<void> {
  try {
    const values = { release, graceMs, mostMs, beginning };
    const [row] = await database.query(arrangeWake, values, { timeoutMs: graceMs / 4 });
    if (row?.delayMs != null) await send(row.delayMs);
  } catch (error) {
    log.error("the next wake could not be arranged; the safety net's tick makes up for it", { error: String(error) });
  }
}
