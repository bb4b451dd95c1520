/** Whether the slots' invocations come and go as they should, judged by their heartbeat rows alone: it can be asked from anywhere. */
import type { SlotRow } from "../lib/sql/slots.ts";

/** How often a schedule ticks, in the cloud and in a container. */
export const SCHEDULE_INTERVAL_MS = 60_000;

export interface SlotHealth {
  readonly slot: number;
  /** "vacant": nobody sits there, and nobody needs to. */
  readonly state: "healthy" | "unhealthy" | "vacant";
  readonly why: string;
}

export interface ThreadHealthOptions {
  readonly graceMs: number;
  readonly sleepIntervalMs: number;
  /** As many slots must be healthy before one that does not tick any more counts as given up. */
  readonly numThreads: number;
}

/**
 * A slot is healthy when its last invocation ended cleanly or was seen within grace + sleep interval, and it ticked within two
 * schedule intervals; a resident that is seen ticks. One that has not ticked for longer is vacant where enough others are
 * healthy: the seat of a replica that is no more, or of a process that was killed and sits elsewhere now.
 */
export function judgeSlots(rows: readonly SlotRow[], options: ThreadHealthOptions): SlotHealth[] {
  const judged = rows.map((row) => judge(row, options));
  const healthy = judged.filter(({ state }) => state === "healthy").length;
  return judged.map((one, place) =>
    one.state === "unhealthy" && !ticks(rows[place]!) && healthy >= options.numThreads
      ? { ...one, state: "vacant", why: `${one.why}; ${healthy} others are healthy` }
      : one,
  );
}

export const allHealthy = (slots: readonly SlotHealth[]): boolean =>
  slots.length > 0 && slots.every(({ state }) => state !== "unhealthy");

function judge(row: SlotRow, { graceMs, sleepIntervalMs }: ThreadHealthOptions): SlotHealth {
  const { slot, ended, expired, seenAgoMs } = row;
  const seen = seconds(seenAgoMs);
  if (expired) return { slot, state: "unhealthy", why: `its last invocation fell silent ${seen} ago and was expired` };
  if (!ended && seenAgoMs > graceMs + sleepIntervalMs) {
    return { slot, state: "unhealthy", why: `not seen for ${seen}, allowed are ${seconds(graceMs + sleepIntervalMs)}` };
  }
  if (!ticks(row))
    return { slot, state: "unhealthy", why: `no tick for ${seen}, allowed are ${seconds(2 * SCHEDULE_INTERVAL_MS)}` };
  return { slot, state: "healthy", why: ended ? `ended ${seen} ago` : `seen ${seen} ago` };
}

const ticks = (row: SlotRow): boolean => row.seenAgoMs <= 2 * SCHEDULE_INTERVAL_MS;

const seconds = (ms: number): string => `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
