import { Command } from "commander";
import { performAction } from "../../lib/operator.ts";
import { type Action, actionSchema } from "../../lib/operator-schema.ts";
import { listRecurring } from "../../lib/stats.ts";
import { CommandError, configOf, withDatabases } from "./environment.ts";
import { checked } from "./tasks.ts";

export function recurringCommand(): Command {
  const command = new Command("recurring").description("List, run, enable and disable recurring tasks.");
  command
    .command("list")
    .description("Print each schedule with its next due time.")
    .option("--json", "for programs")
    .action(async ({ json }: { json?: boolean }) => {
      const rows = await withDatabases(configOf(), listRecurring);
      if (json) process.stdout.write(`${JSON.stringify(rows)}\n`);
      else if (rows.length === 0) process.stdout.write("No processor has stored a schedule yet.\n");
      else {
        for (const row of rows) {
          const state = row.enabled ? `next at ${row.nextAt ?? "no time"}` : `disabled (${row.disabledWhy})`;
          const last = row.lastOccurrence === null ? "never due yet" : `last due at ${row.lastOccurrence}`;
          process.stdout.write(`${row.identifier}  ${row.schedule}  ${state}  ${last}  skipped ${row.skipped}\n`);
        }
      }
    });
  const acting: [string, string, string][] = [
    ["run", "Make a schedule due now; a live processor that knows it runs it.", "is due now"],
    ["enable", "Let a schedule fire again.", "is enabled"],
    ["disable", "Let a schedule fire no more.", "is disabled"],
  ];
  for (const [name, description, done] of acting) {
    command
      .command(name)
      .description(description)
      .argument("<identifier>")
      .action(async (identifier: string) => {
        const action: Action = checked(actionSchema, { action: `recurring_${name}`, identifier });
        const { count } = await withDatabases(configOf(), (databases) => performAction(databases, action, "cli"));
        if (count === 0) {
          throw new CommandError(
            "recurring_not_found",
            `${identifier}: there is no such schedule${name === "run" ? ", or it is disabled" : ""}.`,
          );
        }
        process.stdout.write(`${identifier} ${done}.\n`);
      });
  }
  return command;
}
