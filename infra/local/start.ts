/** `npm start`: the whole of Stint on this machine until Ctrl-C. */
import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connectDatabase } from "../../lib/database/connect.ts";
import { StintError } from "../../lib/errors.ts";
import { createLog, type Log } from "../../lib/log.ts";
import { stopSignal } from "../commands/stop-signal.ts";
import { type Offline, startOffline } from "./offline.ts";
import { dataApiPort, dataFolder, freePort, httpPort, PlaceError, refuseBusy } from "./places.ts";
import { PostgresError } from "./postgres-error.ts";
import { type Producer, startProducer } from "./producer.ts";
import { LOCAL, localSecretOf, type Stack, startStack } from "./stack.ts";

const STATUS_MS = 10_000;
const SAME_MS = 1000;
const root = resolve(import.meta.dirname, "../..");
const say = (text: string): void => void process.stdout.write(`${text}\n`);

async function run(): Promise<number> {
  const stopped = stopSignal();
  const port = httpPort();
  await refuseBusy("PORT", port);
  await refuseBusy("DATA_API_PORT", dataApiPort());
  say("Starting Postgres, the Data API stand-in, functions and schedules ...");
  const stack = await startStack({ dataDir: dataFolder(root), dataApiPort: dataApiPort() });
  const lambdaPort = await freePort();
  // For this run only; one's own may be given.
  const adminToken = randomBytes(18).toString("base64url");
  const adminTokens = process.env.MONITORING_ADMIN_TOKEN || `local:${adminToken}`;
  const logFile = `${stack.postgres.dataDir}/functions.log`;
  const offline = startOffline({
    root,
    logFile,
    environment: {
      ...stack.environment,
      STINT_LAMBDA_PORT: String(lambdaPort),
      MONITORING_ADMIN_TOKEN: adminTokens,
    },
    onUnbuilt: sayOnce((why) => `Not built, so what ran before goes on: ${why}\nMore in ${logFile}`),
  });
  const database = await connectDatabase(
    { kind: "data-api", ...LOCAL, secretArn: localSecretOf("producer") },
    { endpoint: stack.dataApi.endpoint },
  );
  const over = new AbortController();
  let producer: Producer | undefined;
  try {
    const started = await Promise.race([offline.ready.then(() => "ready"), stopped]);
    if (started !== "ready") return 0;
    producer = await startProducer(database, producerLog());
    say(welcome(port, stack, logFile, process.env.MONITORING_ADMIN_TOKEN ? undefined : adminToken));
    // Schedules fire at the full minute: this stands in for the first one.
    tick(lambdaPort, { slot: 0, resident: process.env.TASK_PROCESSOR_RESIDENT_SLOTS !== "0" }).catch(() => {});
    const ended = await Promise.race([stopped, offline.exited, reportForEver(port, producer, over.signal)]);
    if (typeof ended === "string") return 0;
    throw new PlaceError(`The functions ended by themselves: ${offline.lastLines()}`);
  } finally {
    over.abort();
    say("Stopping ...");
    await stop(producer, offline, () => database.close(), stack);
  }
}

async function stop(
  producer: Producer | undefined,
  offline: Offline,
  closeDatabase: () => unknown,
  stack: Stack,
): Promise<void> {
  // What is called goes last. None of these may keep the next from being stopped.
  for (const end of [() => producer?.stop(), () => offline.stop(), closeDatabase, () => stack.stop()]) {
    await (async () => end())().catch((error: unknown) => process.stderr.write(`While stopping: ${error}\n`));
  }
}

/** With the token of this run; undefined where one's own is set, which is not for a screen. */
function welcome(port: number, { postgres, dataApi }: Stack, logFile: string, adminToken: string | undefined): string {
  const url = `http://127.0.0.1:${port}`;
  // Reading is open here: without being asked, a browser would keep the token to itself.
  const dashboard = adminToken === undefined ? "/processor" : "/processor?sign-in=1";
  const link = adminToken === undefined ? url : `http://admin:${adminToken}@127.0.0.1:${port}`;
  return `
Stint is running. Ctrl-C stops all of it.
  dashboard       ${link}${dashboard}
  tasks waiting   ${url}/processor/monitoring
  health          ${url}/health
  Data API        ${dataApi.endpoint}
  Postgres        ${postgres.url}
  functions' log  ${logFile}

An example producer enqueues webhooks; slot 0 stays and runs them, the others come each minute. In another terminal:
  curl ${url}/processor/monitoring
  curl '${url}/health?format=json'
  ${dataApi.port === 3001 ? "" : `DATA_API_PORT=${dataApi.port} `}npx serverless invoke local -f processor --data '{"slot":1}'
  DATABASE_URL='${postgres.url}' npx stint checktaskprocessorthreadhealth
`;
}

/** As a schedule does, with an answer at its end: serverless-offline dies of an asynchronous invocation that fails. */
async function tick(lambdaPort: number, event: { slot: number; resident: boolean }): Promise<void> {
  const url = `http://127.0.0.1:${lambdaPort}/2015-03-31/functions/stint-local-processor/invocations`;
  const answer = await fetch(url, { method: "POST", body: JSON.stringify(event) });
  if (answer.headers.has("x-amz-function-error"))
    say(`The first invocation failed: ${((await answer.json()) as { errorMessage?: string }).errorMessage}`);
}

/** Says nothing more once the signal has aborted. */
async function reportForEver(port: number, producer: Producer, signal: AbortSignal): Promise<never> {
  for (;;) {
    await sleep(STATUS_MS, undefined, { ref: false });
    const { waiting } = await fetch(`http://127.0.0.1:${port}/processor/monitoring`)
      .then((answer) => answer.json() as Promise<{ waiting?: number }>)
      .catch(() => ({ waiting: undefined }));
    if (signal.aborted) continue;
    say(
      `${new Date().toISOString().slice(11, 19)}Z  webhooks delivered: ${producer.delivered}, tasks waiting: ${waiting ?? "unknown: the functions' log says why"}`,
    );
  }
}

/** Each function that has the file says the same. */
function sayOnce(textOf: (what: string) => string): (what: string) => void {
  let said = "";
  return (what) => {
    if (what === said) return;
    said = what;
    say(textOf(what));
    setTimeout(() => {
      said = "";
    }, SAME_MS).unref();
  };
}

const producerLog = (): Log => createLog(({ message, error }) => say(`${message}: ${error}`));

run().then(
  (code) => process.exit(code),
  (error: unknown) => {
    const expected = error instanceof PlaceError || error instanceof PostgresError || error instanceof StintError;
    process.stderr.write(`${expected ? error.message : error instanceof Error ? error.stack : error}\n`);
    process.exit(1);
  },
);
