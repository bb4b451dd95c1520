import { Command, Option } from "commander";
import { readSlots } from "../../lib/sql/slots.ts";
import { allHealthy, judgeSlots } from "../thread-health.ts";
import { configOf, wholeNumber, withDatabases } from "./environment.ts";

interface CheckFlags {
  readonly sleepintervalms?: string;
  readonly numthreads?: string;
  readonly graceperiodms?: string;
}

export const checkCommand = (): Command =>
  new Command("checktaskprocessorthreadhealth")
    .description(
      "Look at each slot's heartbeat. Exit 0 when all threads are healthy, 1 when one is not, or none was ever there.",
    )
    .addOption(
      new Option("--sleepintervalms <ms>", "the processor's (TASK_PROCESSOR_SLEEP_INTERVAL_MS)").argParser(wholeNumber),
    )
    .addOption(new Option("--numthreads <n>", "the processor's (TASK_PROCESSOR_NUM_THREADS)").argParser(wholeNumber))
    .addOption(
      new Option("--graceperiodms <ms>", "the processor's (TASK_PROCESSOR_GRACE_PERIOD_MS)").argParser(wholeNumber),
    )
    .action(check);

async function check(flags: CheckFlags): Promise<void> {
  const config = configOf({
    TASK_PROCESSOR_SLEEP_INTERVAL_MS: { flag: "--sleepintervalms", value: flags.sleepintervalms },
    TASK_PROCESSOR_NUM_THREADS: { flag: "--numthreads", value: flags.numthreads },
    TASK_PROCESSOR_GRACE_PERIOD_MS: { flag: "--graceperiodms", value: flags.graceperiodms },
  });
  const healthy = await withDatabases(config, async (databases) => {
    let all = true;
    for (const [place, database] of databases.entries()) {
      const slots = judgeSlots(await database.query(readSlots, {}), config);
      const prefix = databases.length === 1 ? "" : `${config.databases[place]!.name} `;
      if (slots.length === 0) print(`${prefix}no slots: no task processor has run on this database yet`);
      for (const { slot, state, why } of slots) print(`${prefix}slot ${slot}: ${state}, ${why}`);
      all &&= allHealthy(slots);
    }
    return all;
  });
  print(healthy ? "Task processor has no unhealthy threads." : "Task processor has unhealthy threads.");
  process.exitCode = healthy ? 0 : 1;
}

const print = (line: string): void => void process.stdout.write(`${line}\n`);
