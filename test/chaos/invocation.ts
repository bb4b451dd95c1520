/** One invocation, a process of its own: run.ts bundles it, the scheduler starts it. Its log is a file, a line a write. */
import { openSync, writeSync } from "node:fs";
import { connectDataApi } from "../../lib/database/data-api.ts";
import { connectPg } from "../../lib/database/pg.ts";
import { createLog } from "../../lib/log.ts";
import { createRegistry } from "../../lib/registry.ts";
import type { InvocationOptions, WorkerSettings } from "../../lib/worker.ts";
import { createHandlers } from "./handlers.ts";
import { overhear } from "./overhear.ts";
import { seat } from "./seat.ts";

export type Target =
  | { readonly kind: "pg"; readonly url: string; readonly schema: string }
  | {
      readonly kind: "data-api";
      readonly endpoint: string;
      readonly resourceArn: string;
      readonly secretArn: string;
      readonly database: string;
      readonly schema: string;
    };

/** What the platform calls the function with. */
export type TickEvent = { readonly slot: number; readonly resident?: boolean; readonly woken?: boolean };

/** All but what the event says. */
export type Invocation = Omit<InvocationOptions, "slot" | "resident" | "onlyFree">;

export interface Order {
  readonly event: TickEvent;
  /** Seats that may be called for. Everybody is given the means to call: the code under test decides who does. */
  readonly slots: number;
  /** An identifier that this release does not know. */
  readonly without: string | undefined;
  /** The platform ends the process at this time (epoch milliseconds); the invocation is told so, as Lambda does. */
  readonly outOfTimeAt: number;
  readonly settings: WorkerSettings;
  readonly target: Target;
  readonly logFile: string;
}

// It must not outlive the run, which may be killed at any moment.
process.once("disconnect", () => process.exit(9));
if (!process.connected) process.exit(9);

const order = JSON.parse(process.argv[2]!) as Order;
const file = openSync(order.logFile, "a");
const log = createLog(({ level: _, message, ...fields }) => {
  writeSync(file, `${JSON.stringify({ message, ...fields })}\n`);
});
const database = overhear(order.target.kind === "pg" ? connectPg(order.target) : connectDataApi(order.target), {
  told: (tasks) => log.debug("told", { tasks }),
  gaveBack: (tasks) => log.debug("gave back", { tasks }),
});
try {
  const { settings, without } = order;
  const handlers = createHandlers(settings.graceMs).filter(({ definition }) => definition.identifier !== without);
  const report = await seat(order.event, order.slots, {
    databases: [database],
    registry: createRegistry(handlers, settings.invocationMs),
    wake: { slots: order.slots, call: async (slot: number) => void process.send?.({ slot }) },
    settings,
    log,
    remainingMs: () => order.outOfTimeAt - Date.now(),
  });
  log.info("left", { ...report, maxRssKb: process.resourceUsage().maxRSS });
  process.exit(0);
} catch (error) {
  log.error("refused", { error: String(error), code: (error as { code?: string }).code });
  process.exit(3);
}
