// The smallest client of the Runtime API: what Lambda's does, and after each invocation it tells what is still active in the process.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { AWS_LAMBDA_RUNTIME_API: api, LAMBDA_TASK_ROOT: root, _HANDLER: name } = process.env;
const base = `http://${api}/2018-06-01/runtime`;
const [module, member] = name.split(/\.(?=[^.]*$)/);

const post = (path, body, headers = {}) =>
  fetch(`${base}/${path}`, { method: "POST", body: JSON.stringify(body), headers });
const problem = (error) => ({ errorType: error.name, errorMessage: error.message, trace: error.stack?.split("\n") });
/** Timers, and requests and answers on their way. Idle connections that are kept do not count: they keep nothing going. */
const active = () => process.getActiveResourcesInfo().filter((one) => !/^(TCP|Pipe|TTY)/.test(one));

// A handler that blocks the event loop, from outside.
process.on("SIGUSR2", () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 600_000));

let handler;
try {
  handler = (await import(pathToFileURL(join(root, `${module}.mjs`)).href))[member];
} catch (error) {
  await post("init/error", problem(error));
  process.exit(1);
}

for (;;) {
  const next = await fetch(`${base}/invocation/next`);
  const id = next.headers.get("lambda-runtime-aws-request-id");
  const deadline = Number(next.headers.get("lambda-runtime-deadline-ms"));
  const context = {
    awsRequestId: id,
    invokedFunctionArn: next.headers.get("lambda-runtime-invoked-function-arn"),
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: "$LATEST",
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
  const event = await next.json();
  try {
    const answer = await handler(event, context);
    // Timers of this turn have had their say.
    await new Promise((resolve) => setImmediate(resolve));
    await post(`invocation/${id}/response`, answer ?? null, { "x-still-active": active().join() });
  } catch (error) {
    await post(`invocation/${id}/error`, problem(error));
  }
}
