/** What the processor function is called with, and whom it seats. */
import * as z from "zod/mini";
import { pause } from "./clock.ts";
import { StintError } from "./errors.ts";
import { WAKE_EVERY_MS } from "./producer-wake.ts";
import { type InvocationOptions, type InvocationReport, runInvocation } from "./worker.ts";

const ROUNDS = 3;
const slot = z.int().check(z.gte(0));
const tickEvent = z.union([
  // Of a schedule, of an exchange that woke it, or by hand.
  z.object({ slot, resident: z.optional(z.boolean()), woken: z.optional(z.boolean()) }),
  // Of a producer: whichever seat is free.
  z.object({ wake: z.literal(true) }),
]);
/** As SQS hands a message on; the event source mapping's batch size is 1. */
const queueEvent = z.object({ Records: z.array(z.object({ body: z.string() })).check(z.minLength(1), z.maxLength(1)) });

export interface Tick {
  /** Seats to try, in this order. */
  readonly slots: readonly number[];
  readonly resident: boolean;
  /** Sits down only where nobody sits. */
  readonly onlyFree: boolean;
  /** One that was woken by an exchange wakes nobody: chains end. */
  readonly mayWake: boolean;
  /** Looks again for so long, for what is enqueued right after the call. */
  readonly lingerMs: number;
}

/**
 * `{ "slot": 0, "resident": true }`, `{ "slot": 3, "woken": true }`, `{ "wake": true }`, or one of them in a message of SQS.
 * @throws StintError event_invalid | slot_invalid
 */
export function readTick(event: unknown, numThreads: number): Tick {
  const queued = z.safeParse(queueEvent, event);
  const parsed = z.safeParse(tickEvent, queued.success ? parseBody(queued.data.Records[0]!.body) : event);
  if (!parsed.success) {
    throw new StintError(
      "event_invalid",
      'The event is { "slot": 0 } with "resident": true or false and a slot from 0, or { "wake": true }.',
    );
  }
  if ("wake" in parsed.data) {
    const slots = Array.from({ length: numThreads }, (_, number) => number);
    return { slots, resident: false, onlyFree: true, mayWake: true, lingerMs: WAKE_EVERY_MS * 1.5 };
  }
  const { slot, resident = false, woken = false } = parsed.data;
  if (slot >= numThreads) {
    throw new StintError(
      "slot_invalid",
      `Slot ${slot} is out of range: 0 to ${numThreads - 1} with TASK_PROCESSOR_NUM_THREADS=${numThreads}.`,
    );
  }
  return { slots: [slot], resident: resident && !woken, onlyFree: woken, mayWake: !woken, lingerMs: 0 };
}

/** One invocation, on the first seat of the tick that it may have. */
export async function runTick(
  { slots, resident, onlyFree, mayWake, lingerMs }: Tick,
  { wake, ...options }: Omit<InvocationOptions, "slot" | "resident" | "onlyFree">,
): Promise<InvocationReport> {
  const how = { ...options, resident, onlyFree, lingerMs, ...(mayWake && wake && { wake }) };
  for (let round = 1; ; round += 1) {
    for (const slot of slots) {
      const report = await runInvocation({ ...how, slot });
      // Who sits on the last seat may just be leaving, after its last look: ask again.
      const again = slots.length > 1 && (slot !== slots.at(-1) || round < ROUNDS);
      if (report.left !== "seat_taken" || !again) return report;
    }
    await pause(WAKE_EVERY_MS / 2);
  }
}

function parseBody(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
