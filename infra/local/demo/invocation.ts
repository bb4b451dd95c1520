/** One invocation in a process of its own, as in Lambda: `node invocation.ts '{"slot":0,"resident":true}'`. */
import type { Context } from "aws-lambda";

// It must not outlive the demo, which may be killed at any moment: also before anything else has been loaded.
process.once("disconnect", () => process.exit(1));
if (!process.connected) process.exit(1);

const { createLog } = await import("../../../lib/log.ts");
const { createProcessorHandler } = await import("../../../lib/processor.ts");
const { createHandlers } = await import("./handlers.ts");

const { DEMO_RECEIVER_URL, DEMO_SECRET, TASK_PROCESSOR_INVOCATION_MS } = process.env;
const outOfTimeAt = Date.now() + Number(TASK_PROCESSOR_INVOCATION_MS);

const processor = createProcessorHandler({
  handlers: createHandlers({ url: DEMO_RECEIVER_URL!, secret: DEMO_SECRET! }),
  // Each run is in the database; on the terminal only what should not happen.
  log: createLog(({ level, message, ...fields }) => {
    if (level === "warn" || level === "error") process.stderr.write(`\n${message} ${JSON.stringify(fields)}\n`);
  }),
});
const context = { getRemainingTimeInMillis: () => outOfTimeAt - Date.now() } as Context;

await processor(JSON.parse(process.argv[2]!), context);
process.exit(0);
