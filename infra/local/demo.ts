/**
 * `npm run demo`: the main job once. A shop enqueues through the RDS Data API; invocations, each a process of its own, claim and
 * run the tasks, which deliver signed webhooks; the database is asked what became of each. The last line is one JSON object.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { connectDataApi } from "../../lib/database/data-api.ts";
import type { Database } from "../../lib/index.ts";
import { countByKind, found, invocationsIn, type KindCount, succeededIds, sumOf, versionOf } from "./demo/counts.ts";
import { produce, type Told } from "./demo/producer.ts";
import { Progress } from "./demo/progress.ts";
import { type Receiver, startReceiver } from "./demo/receiver.ts";
import { Scheduler } from "./demo/scheduler.ts";
import { openStack } from "./demo/stack.ts";
import { format, table } from "./demo/table.ts";
import { reportUsage } from "./demo/tasks.ts";
import { LOCAL } from "./stack.ts";

const SLOTS = 4;
const TICK_MS = 5000;
const LIMIT_MS = 120_000;
const LOOK_MS = 200;

const startedAt = performance.now();
const isLate = (): boolean => performance.now() - startedAt > LIMIT_MS;

async function main(): Promise<boolean> {
  const stack = await openStack();
  const receiver = await startReceiver();
  const { DATABASE_NAME, TASK_PROCESSOR_SCHEMA } = stack.environment;
  const connection = { ...LOCAL, database: DATABASE_NAME!, schema: TASK_PROCESSOR_SCHEMA!, endpoint: stack.endpoint };
  const database = connectDataApi(connection);
  const scheduler = new Scheduler({
    slots: SLOTS,
    everyMs: TICK_MS,
    environment: {
      ...stack.environment,
      TASK_PROCESSOR_NUM_THREADS: String(SLOTS),
      TASK_PROCESSOR_SLEEP_INTERVAL_MS: "250",
      TASK_PROCESSOR_INVOCATION_MS: "900000",
      // Nothing is old here, and every task in the table is to be one of the demo's.
      ENABLE_CLEAN_UP_OLD_TASKS: "false",
      DEMO_RECEIVER_URL: receiver.url,
      DEMO_SECRET: receiver.secret,
    },
  });
  let closing: Promise<void> | undefined;
  const closeAll = async (): Promise<void> => {
    scheduler.kill();
    await database.close();
    await receiver.close();
    await stack.stop();
  };
  const close = (): Promise<void> => {
    closing ??= closeAll();
    return closing;
  };
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    process.once(signal, () => void close().finally(() => process.exit(code)));
  }
  try {
    console.log(
      `Postgres ${await versionOf(database)} (${stack.place}), ${stack.migrations.applied.length} migrations applied, RDS Data API stand-in on ${stack.endpoint}.`,
    );
    console.log(`${SLOTS} slots, an invocation each every ${TICK_MS / 1000} s; webhooks go to ${receiver.url}.\n`);
    scheduler.start();
    const producing = produce({ database, databaseName: connection.database, endpoint: stack.endpoint });
    producing.catch(() => {}); // awaited below
    const progress = new Progress();
    await untilDone(database, scheduler, producing, progress);
    progress.end();
    return await conclude(database, receiver, scheduler, await producing, TASK_PROCESSOR_SCHEMA!);
  } catch (error) {
    // Interrupted: everything is being taken away under it.
    if (closing === undefined) throw error;
    return false;
  } finally {
    await close();
  }
}

/** Until everything that was asked for is finished; then the ticks cease, and what the recurring task has left is finished too. */
async function untilDone(
  database: Database,
  scheduler: Scheduler,
  producing: Promise<Told>,
  progress: Progress,
): Promise<void> {
  let produced = false;
  const enqueued = producing.then(() => {
    produced = true;
  });
  const unfinished = async (): Promise<KindCount[]> => {
    // One may have its reasons; these are a fault that the next ones will have too.
    if (scheduler.crashed > SLOTS)
      throw new Error(`${scheduler.crashed} invocations crashed: what they said stands above.`);
    const kinds = await countByKind(database);
    progress.show(sumOf(kinds));
    return kinds.filter(({ waiting, running }) => waiting + running > 0);
  };
  for (let isDone = false; !isDone && !isLate(); ) {
    // A producer that failed ends the demo.
    await Promise.race([sleep(LOOK_MS), enqueued.then(() => sleep(LOOK_MS))]);
    // Before the count: what is enqueued during it must not be missed.
    const isComplete = produced;
    const left = await unfinished();
    isDone = isComplete && left.every(({ identifier }) => identifier === reportUsage.task.identifier);
  }
  scheduler.stop();
  do {
    // It supersedes the resident, runs what is due, and leaves. One of the last tick may still take the slot after it.
    await scheduler.invoke({ slot: 0, resident: false });
    await sleep(LOOK_MS);
  } while (!isLate() && ((await unfinished()).length > 0 || scheduler.running > 0));
}

/** Prints the table and the last line. False when anything is lost, doubtful or unfinished. */
async function conclude(
  database: Database,
  receiver: Receiver,
  scheduler: Scheduler,
  told: Told,
  schema: string,
): Promise<boolean> {
  const kinds = await countByKind(database);
  const { enqueued, succeeded, failed, retried, waiting, running } = sumOf(kinds);
  const lost = told.stored.length - (await found(database, told.stored));
  const ghosts = await found(database, told.rolledBack);
  const { invocations, slots, orders } = await invocationsIn(database);
  const undelivered = (await succeededIds(database)).filter((id) => !receiver.accepted.has(id)).length;
  const deliveries = [...receiver.accepted.values()].reduce((sum, count) => sum + count, 0);

  console.log(`\n${table(kinds)}\n`);
  console.log(
    `Receiver: ${format(deliveries)} deliveries accepted, of ${format(receiver.accepted.size)} tasks (${format(succeeded)} succeeded);\n `,
    `${receiver.unavailable} answered 503, ${receiver.refused} refused for their signature, ${receiver.silent} left without an answer.`,
  );
  console.log(
    `Orders: ${told.orders} paid and ${told.rolledBack.length} rolled back; stored: ${orders}, and ${ghosts} webhooks of the others.`,
  );
  console.log(`Invocations: ${invocations} on ${slots} slots, ${scheduler.crashed} of them crashed.`);
  const tables = ["task", "task_run", "failed_task", "heartbeat"].map((name) => `${schema}.${name}`);
  console.log(`Counted from the tables ${tables.join(", ")}.`);
  const durationMs = Math.round(performance.now() - startedAt);
  const result = { enqueued, succeeded, failed, retried, waiting: waiting + running, lost, durationMs };
  const isRight = !isLate() && lost + ghosts + undelivered + waiting + running === 0 && orders === told.orders;
  if (!isRight) {
    const late = isLate() ? `Not finished within ${LIMIT_MS / 1000} s. ` : "";
    console.error(
      `\n${late}Lost: ${lost}, unfinished: ${waiting + running}, undelivered: ${undelivered}, stored though rolled back: ${ghosts}.`,
    );
  }
  console.log(`\n${JSON.stringify(result)}`);
  return isRight;
}

// Should something hang for good.
setTimeout(() => {
  console.error(`Not finished within ${(LIMIT_MS + 30_000) / 1000} s.`);
  process.exit(1);
}, LIMIT_MS + 30_000).unref();

process.exitCode = (await main()) ? 0 : 1;
