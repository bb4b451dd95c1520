import { Command } from "commander";
import { migrate } from "../../lib/sql/migrate.ts";
import { configOf, withDatabases } from "./environment.ts";

export const migrateCommand = (): Command =>
  new Command("migrate")
    .description(
      "Make or bring up to date Stint's schema in each configured database. Safe to repeat, and to run twice at once.",
    )
    .action(async () => {
      const config = configOf();
      await withDatabases(config, async (databases) => {
        for (const [place, database] of databases.entries()) {
          const { applied, newer } = await migrate(database);
          const name = `${config.databases[place]!.name}, schema ${config.schema}`;
          process.stdout.write(`${name}: ${applied.length === 0 ? "up to date" : `applied ${applied.join(", ")}`}\n`);
          if (newer.length > 0) process.stdout.write(`${name}: has from a newer release ${newer.join(", ")}\n`);
        }
      });
    });
