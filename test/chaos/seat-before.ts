/** In place of seat.ts for a release that wakes nobody and knows of no woken ones: to it, each event is a tick. */
import { type InvocationReport, runInvocation } from "../../lib/worker.ts";
import type { Invocation, TickEvent } from "./invocation.ts";

export const seat = (
  { slot, resident = false }: TickEvent,
  _: number,
  { wake: __, ...invocation }: Invocation,
): Promise<InvocationReport> => runInvocation({ ...invocation, slot, resident });
