import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Command, Option } from "commander";
import { StintError } from "../../lib/errors.ts";
import { createLog } from "../../lib/log.ts";
import { connectAll } from "../../lib/runtime.ts";
import type { TaskHandler } from "../../lib/task.ts";
import { type Listener, listen } from "../http-listener.ts";
import { runTaskProcessor } from "../run-task-processor.ts";
import { configOf, wholeNumber } from "./environment.ts";
import { stopSignal } from "./stop-signal.ts";

interface RunFlags {
  readonly sleepintervalms?: string;
  readonly numthreads?: string;
  readonly graceperiodms?: string;
  readonly queuepopsize?: string;
  readonly residentslots?: string;
  readonly listen?: true;
  readonly tasks?: string;
  readonly port?: string;
  readonly host?: string;
}

const DEFAULT_HOST = "127.0.0.1";
const LOOKING_CONNECTIONS = 2;

const number = (flags: string, description: string): Option => new Option(flags, description).argParser(wholeNumber);

export const runCommand = (): Command =>
  new Command("run-task-processor")
    .description(
      "Run tasks until stopped: threads that take free slots, so that replicas add up. For containers; in Lambda, schedules do this.",
    )
    .addOption(
      number(
        "--sleepintervalms <ms>",
        "pause between polls of an idle thread (TASK_PROCESSOR_SLEEP_INTERVAL_MS, 2000)",
      ),
    )
    .addOption(number("--numthreads <n>", "threads of this process (TASK_PROCESSOR_NUM_THREADS, 5)"))
    .addOption(
      number(
        "--graceperiodms <ms>",
        "silence after which a thread counts as stuck (TASK_PROCESSOR_GRACE_PERIOD_MS, 20000)",
      ),
    )
    .addOption(number("--queuepopsize <n>", "most tasks one thread runs at a time (TASK_PROCESSOR_QUEUE_POP_SIZE, 10)"))
    .addOption(
      number(
        "--residentslots <n>",
        "threads that keep polling; the others look once a minute (TASK_PROCESSOR_RESIDENT_SLOTS, all)",
      ),
    )
    .option(
      "--listen",
      "hear at once of what a producer with `notify` enqueues, on one more connection a database (TASK_PROCESSOR_LISTEN)",
    )
    .option(
      "--tasks <file>",
      "a module that exports handlers, one by one or in lists (default, in a checkout: functions/tasks/index.ts)",
    )
    .addOption(
      number("--port <n>", "serve /health and /processor on this port, 0 for a free one (default: not at all)"),
    )
    .option("--host <address>", `with --port: the address to listen on (default: ${DEFAULT_HOST})`)
    .addHelpText(
      "after",
      `
Exit codes: 0 ended by SIGTERM or SIGINT, with nothing held; 1 could not start, or ended with something held, which others take over after the grace period;
2 wrong usage; 143 or 130 ended at once by a second SIGTERM or SIGINT.`,
    )
    .action(run);

async function run(flags: RunFlags): Promise<void> {
  const stopped = stopSignal();
  const config = configOf({
    TASK_PROCESSOR_SLEEP_INTERVAL_MS: { flag: "--sleepintervalms", value: flags.sleepintervalms },
    TASK_PROCESSOR_NUM_THREADS: { flag: "--numthreads", value: flags.numthreads },
    TASK_PROCESSOR_GRACE_PERIOD_MS: { flag: "--graceperiodms", value: flags.graceperiodms },
    TASK_PROCESSOR_QUEUE_POP_SIZE: { flag: "--queuepopsize", value: flags.queuepopsize },
    TASK_PROCESSOR_RESIDENT_SLOTS: { flag: "--residentslots", value: flags.residentslots },
    TASK_PROCESSOR_LISTEN: { flag: "--listen", value: flags.listen && "true" },
  });
  if (config.listen && !config.databases.some(({ target }) => target.kind === "pg"))
    throw new StintError(
      "option_invalid",
      "--listen needs a connection of its own, so DATABASE_URL: the Data API has none.",
    );
  const port = portOf(flags);
  const handlers = await loadHandlers(flags.tasks);
  // One for whoever keeps the seats, one for the recurring tasks and the canary.
  const databases = await connectAll(config, { maxConnections: config.numThreads + 2 });
  // Whoever looks on has connections of his own: many that wait must not take those of the leases.
  const looking = port === undefined ? [] : await connectAll(config, { maxConnections: LOOKING_CONNECTIONS });
  const log = createLog();
  const stop = new AbortController();
  let listener: Listener | undefined;
  if (port !== undefined) {
    const host = flags.host ?? DEFAULT_HOST;
    listener = await listen({ host, port, config, databases: looking, log, signal: stop.signal });
    log.info("listening", { url: listener.url });
  }
  const overdue = stopped.then((signal) => {
    log.info(`${signal}: finishing what runs; again to leave at once`);
    stop.abort();
    return outlived(config.graceMs);
  });
  const done = runTaskProcessor({ config, databases, handlers, log, signal: stop.signal });
  const end = await Promise.race([done.then((told) => (told ? "clean" : "untold")), overdue.then(() => "late")]);
  if (end !== "clean") {
    const why =
      end === "late" ? "What runs has not ended within the grace period" : "The database did not hear of the end";
    throw new StintError("aborted", `${why}: others take over its tasks.`);
  }
  await listener?.close();
  await Promise.allSettled([...databases, ...looking].map((database) => database.close()));
  log.info("stopped");
  // A handler may have left something open.
  process.exit(0);
}

/** @throws StintError option_invalid */
function portOf({ port, host }: RunFlags): number | undefined {
  if (port === undefined && host !== undefined) throw new StintError("option_invalid", "--host needs --port.");
  if (port !== undefined && Number(port) > 65_535) throw new StintError("option_invalid", "--port is 0 to 65535.");
  return port === undefined ? undefined : Number(port);
}

const outlived = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

/** @throws StintError option_invalid when there is no such module, it cannot be loaded, or holds no handler */
async function loadHandlers(given: string | undefined): Promise<TaskHandler[]> {
  const file = given === undefined ? defaultTasks() : resolve(given);
  if (!existsSync(file)) throw new StintError("option_invalid", `--tasks ${given ?? file}: there is no such file.`);
  let module: object;
  try {
    module = await import(pathToFileURL(file).href);
  } catch (cause) {
    const why = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    throw new StintError("option_invalid", `--tasks ${given ?? file} cannot be loaded: ${why}`, { cause });
  }
  const handlers = [...new Set(Object.values(module).flat(2).filter(isHandler))];
  if (handlers.length === 0) {
    throw new StintError(
      "option_invalid",
      `--tasks ${given ?? file} exports no handler: what \`task.handle(...)\` gives, or lists of it, is expected.`,
    );
  }
  return handlers;
}

function defaultTasks(): string {
  const file = fileURLToPath(new URL("../../functions/tasks/index.ts", import.meta.url));
  if (import.meta.url.endsWith(".ts") && existsSync(file)) return file;
  throw new StintError("option_invalid", "--tasks FILE is needed: a module that exports your handlers.");
}

const isHandler = (value: unknown): value is TaskHandler =>
  typeof value === "object" &&
  value !== null &&
  "definition" in value &&
  typeof (value as { run?: unknown }).run === "function";
