import { Command } from "commander";
import { scheduleText } from "../../lib/dashboard/format.ts";
import { performAction } from "../../lib/operator.ts";
import { type Action, actionSchema } from "../../lib/operator-schema.ts";
import { listRecurring } from "../../lib/stats.ts";
import type { RecurringStats } from "../../lib/stats-schema.ts";
import { CommandError, configOf, withDatabases } from "./environment.ts";
import { ago, plain, print, table } from "./table.ts";
import { checked } from "./tasks.ts";

const HEAD = ["identifier", "schedule", "state", "next", "last run", "result", "took", "skipped"];
const rowOf = (one: RecurringStats) => [
  one.identifier,
  scheduleText(one.schedule),
  one.enabled ? "enabled" : `disabled (${one.disabledWhy})`,
  one.enabled ? one.nextAt : null,
  one.lastRunAt,
  one.lastResult,
  one.lastDurationMs === null ? null : ago(one.lastDurationMs),
  one.skipped,
];

export function recurringCommand(): Command {
  const command = new Command("recurring").description("List, run, enable and disable recurring tasks.");
  command
    .command("list")
    .description("Print each schedule with its next due time.")
    .option("--json", "for programs")
    .action(async ({ json }: { json?: boolean }) => {
      const rows = await withDatabases(configOf(), listRecurring);
      if (json) return print(JSON.stringify(rows));
      print(rows.length === 0 ? "No processor has stored a schedule yet." : table(HEAD, rows.map(rowOf)));
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
        print(`${plain(identifier)} ${done}.`);
      });
  }
  return command;
}
