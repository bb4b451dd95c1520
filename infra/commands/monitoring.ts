import { Command } from "commander";
import { readWaiting } from "../../lib/monitoring.ts";
import { configOf, withDatabases } from "./environment.ts";

export const monitoringCommand = (): Command =>
  new Command("monitoring")
    .description('Print {"waiting":N}: tasks that are due, unfinished and held by nobody.')
    .action(async () => {
      const waiting = await withDatabases(configOf(), readWaiting);
      process.stdout.write(`${JSON.stringify(waiting)}\n`);
    });
