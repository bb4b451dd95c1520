/** One invocation, a process of its own: run.ts bundles it, the scheduler starts it. Its log is a file, a line a write. */
import { openSync, writeSync } from "node:fs";
import { connectDataApi } from "../../lib/database/data-api.ts";
import { connectPg } from "../../lib/database/pg.ts";
import { createLog } from "../../lib/log.ts";
import { createRegistry } from "../../lib/registry.ts";
import { runInvocation, type WorkerSettings } from "../../lib/worker.ts";
import { createHandlers } from "./handlers.ts";

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

export interface Order {
  readonly slot: number;
  readonly resident: boolean;
  /** Called by an exchange of another: it sits down where nobody sits. */
  readonly woken: boolean;
  /** An identifier that this release does not know. */
  readonly without: string | undefined;
  /** Seats that may be called for; 0: it wakes nobody. */
  readonly wakes: number;
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
const database =
  order.target.kind === "pg" ? connectPg({ ...order.target, maxConnections: 2 }) : connectDataApi(order.target);
const log = createLog(({ level: _, message, ...fields }) => {
  writeSync(file, `${JSON.stringify({ message, ...fields })}\n`);
});
try {
  const { settings, without } = order;
  const handlers = createHandlers(settings.graceMs).filter(({ definition }) => definition.identifier !== without);
  const report = await runInvocation({
    databases: [database],
    registry: createRegistry(handlers, settings.invocationMs),
    slot: order.slot,
    resident: order.resident,
    onlyFree: order.woken,
    ...(order.wakes > 0 && {
      wake: { slots: order.wakes, call: async (slot: number) => void process.send?.({ slot }) },
    }),
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
