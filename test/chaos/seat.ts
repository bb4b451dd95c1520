/** Seats an invocation as the processor function does: the event says whom it replaces, and whether it may wake others. */
import { readTick, runTick } from "../../lib/tick.ts";
import type { InvocationReport } from "../../lib/worker.ts";
import type { Invocation, TickEvent } from "./invocation.ts";

export const seat = (event: TickEvent, slots: number, invocation: Invocation): Promise<InvocationReport> =>
  runTick(readTick(event, slots), invocation);
