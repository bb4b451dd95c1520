/** The kinds of task of a chaos run. A producer needs these only; what they do to their process stands in handlers.ts. */
import * as z from "zod/mini";
import { defineRecurringTask, defineTask } from "../../lib/index.ts";

/** The token is the payload's own identity: made by the producer, logged by the handler. */
const payload = z.object({ token: z.string(), serial: z.optional(z.string()) });
const soon = { kind: "fixed", delayMs: 50 } as const;
const kind = (name: string, more: { timeoutMs?: number; maxAttempts?: number } = {}) =>
  defineTask({ identifier: `chaos.${name}`, payload, timeoutMs: 3000, maxAttempts: 20, backoff: soon, ...more });

export const KINDS = {
  /** Ends at once. */
  quick: kind("quick"),
  /** Works for a while, and looks after each step whether it still may. */
  slow: kind("slow"),
  /** As slow, one at a time and in order for each of a few keys. */
  serial: kind("serial"),
  /** Throws errors, and what are none, before it succeeds. */
  flaky: kind("flaky"),
  /** Ends as cancelled. */
  cancels: kind("cancels"),
  /** Never settles and ignores its signal. */
  never: kind("never", { timeoutMs: 200, maxAttempts: 2 }),
  /** Leaves a promise behind that rejects later, the first two times, and a timer. */
  leaks: kind("leaks"),
  /** Calls process.exit, with 0 or 1, the first two times. */
  exits: kind("exits"),
  /** Blocks the event loop for longer than the grace period, the first two times. */
  blocks: kind("blocks"),
  /** Blocks the event loop for ever, each time. */
  stalls: kind("stalls", { maxAttempts: 2 }),
  /** Allocates until the process is ended for it, the first two times. */
  eats: kind("eats"),
  /** Kills its process each time. */
  poison: kind("poison", { maxAttempts: 2 }),
  /** Works for longer than the grace period the first time: others may be given it meanwhile. */
  holds: kind("holds"),
  /** Has one attempt, and succeeds. */
  single: kind("single", { maxAttempts: 1 }),
} as const;

export type Kind = keyof typeof KINDS;

export const tick = defineRecurringTask({
  identifier: "chaos.tick",
  every: "1s",
  schema: payload,
  payload: { token: "tick" },
  timeoutMs: 3000,
  maxAttempts: 20,
});

/** Half of the tasks: what returns nothing is handed in by columns, the rest one by one. */
export const returnsNothing = (taskId: string): boolean => Number(taskId.at(-1)) % 2 === 0;

/** The token of tasks whose wait alone is measured: their second run ends at once. */
export const RESCUE = "rescue";

/** For ever, as far as a run is concerned: the platform's hard stop comes first. */
export const FOREVER_MS = 60_000;
