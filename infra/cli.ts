/** The command `stint`. */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { codeOf } from "../lib/errors.ts";
import { checkCommand } from "./commands/check-thread-health.ts";
import { dataApiCommand } from "./commands/data-api.ts";
import { enqueueCommand } from "./commands/enqueue.ts";
import { migrateCommand } from "./commands/migrate.ts";
import { monitoringCommand } from "./commands/monitoring.ts";
import { recurringCommand } from "./commands/recurring.ts";
import { rolesCommand } from "./commands/roles.ts";
import { runCommand } from "./commands/run-task-processor.ts";
import { pauseCommand, slotsCommand, statsCommand, topCommand } from "./commands/stats.ts";
import { tasksCommand } from "./commands/tasks.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

/** The package's, seen from infra/ and from dist/infra/. */
function version(): string {
  for (const path of ["../package.json", "../../package.json"]) {
    try {
      return JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8")).version;
    } catch {}
  }
  return "unknown";
}

const program = new Command("stint")
  .description("A task processor without a server: tasks in the Postgres you already have.")
  .version(version())
  .exitOverride()
  // One line, also where a suggestion would stand on a second.
  .configureOutput({ outputError: (text, write) => write(`${text.trim().replaceAll(/\s*\n\s*/g, " ")}\n`) })
  .addHelpText(
    "after",
    `
The database is configured by environment variables: DATABASE_URL (a Postgres URL), or DATABASE_RESOURCE_ARN,
DATABASE_SECRET_ARN and DATABASE_NAME (an Aurora cluster). A flag goes before its variable.
Exit codes: 0 done, 1 failed, 2 wrong usage.`,
  );

for (const command of [
  migrateCommand(),
  rolesCommand(),
  dataApiCommand(),
  runCommand(),
  checkCommand(),
  enqueueCommand(),
  monitoringCommand(),
  recurringCommand(),
  tasksCommand(),
  slotsCommand(),
  statsCommand(),
  topCommand(),
  pauseCommand("pause"),
  pauseCommand("resume"),
]) {
  program.addCommand(inherit(command));
}

/** Its subcommands, too, answer in one line and with the exit codes above. */
function inherit(command: Command): Command {
  command.copyInheritedSettings(program);
  for (const one of command.commands) one.copyInheritedSettings(program);
  return command;
}

// Whoever reads may have seen enough, as `head` has: what is written after that is nobody's, and no failure.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error) => {
    if (codeOf(error) !== "EPIPE") throw error;
  });

try {
  await program.parseAsync();
} catch (error) {
  // At once: a module of tasks may have left something open.
  process.exit(explain(error));
}

/** Says what went wrong, in lines that begin with a code, never a stack. The exit code. */
function explain(error: unknown): number {
  // commander has said it already.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`${codeOf(error) ?? "failed"}: ${message.trimEnd()}\n`);
  return EXIT_FAILED;
}
