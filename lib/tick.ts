/** What the processor function is called with, and whom it seats. */
import { pause } from "./clock.ts";
import { StintError } from "./errors.ts";
import { WAKE_EVERY_MS } from "./producer-wake.ts";
import { isWhole } from "./task.ts";
import { type InvocationOptions, type InvocationReport, runInvocation } from "./worker.ts";

const ROUNDS = 3;

/** What a schedule asks for, an exchange that woke it, or somebody by hand. */
interface Seat {
  readonly slot: number;
  readonly resident?: boolean;
  readonly woken?: boolean;
}

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
  const body = bodyOf(event);
  const called = fieldsOf(body === undefined ? event : parseBody(body));
  if (isSeat(called)) return tickOfSeat(called, numThreads);
  if (called.wake !== true) {
    throw new StintError(
      "event_invalid",
      'The event is { "slot": 0 } with "resident": true or false and a slot from 0, or { "wake": true }.',
    );
  }
  // Of a producer: whichever seat is free.
  const slots = Array.from({ length: numThreads }, (_, number) => number);
  return { slots, resident: false, onlyFree: true, mayWake: true, lingerMs: WAKE_EVERY_MS * 1.5 };
}

function tickOfSeat({ slot, resident = false, woken = false }: Seat, numThreads: number): Tick {
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

type Fields = Readonly<Record<string, unknown>>;

const fieldsOf = (value: unknown): Fields => (typeof value === "object" && value !== null ? (value as Fields) : {});

const isFlag = (value: unknown): boolean => value === undefined || typeof value === "boolean";

// By hand, as the configuration is: the first schema of each kind takes a cold start some tenths of a millisecond.
const isSeat = (called: Fields): called is Fields & Seat =>
  isWhole(called.slot, 0, Number.MAX_SAFE_INTEGER) && isFlag(called.resident) && isFlag(called.woken);

/** As SQS hands a message on; the event source mapping's batch size is 1. */
function bodyOf(event: unknown): string | undefined {
  const { Records: messages } = fieldsOf(event);
  if (!Array.isArray(messages) || messages.length !== 1) return undefined;
  const { body } = fieldsOf(messages[0]);
  return typeof body === "string" ? body : undefined;
}

function parseBody(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
