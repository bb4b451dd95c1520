import { Argument, Command, InvalidArgumentError, Option } from "commander";
import * as z from "zod/mini";
import { createTaskClient } from "../../lib/enqueue.ts";
import { StintError } from "../../lib/errors.ts";
import { defineTask, PRIORITIES, type Priority, type TaskDefinition } from "../../lib/task.ts";
import { configOf, withDatabases } from "./environment.ts";

interface EnqueueFlags {
  readonly delayUntil?: Date;
  readonly priority?: Priority;
}

export const enqueueCommand = (): Command =>
  new Command("enqueue")
    .description(
      "Store one task and print the answer as JSON. The identifier may be one that only the processor knows.",
    )
    .addArgument(new Argument("<identifier>", "such as invoices.send"))
    .addArgument(new Argument("<json>", `the payload, such as '{"invoiceId": 7}'`))
    .addOption(
      new Option("--delay-until <time>", "not before this moment, such as 2030-01-31T08:00:00Z").argParser(moment),
    )
    .addOption(
      new Option("--priority <name>", `${Object.keys(PRIORITIES).join(", ")} (default: NORMAL)`).argParser(
        priorityNamed,
      ),
    )
    .action(async (identifier: string, json: string, { delayUntil, priority }: EnqueueFlags) => {
      const definition = permissive(identifier);
      const payload = parsed(identifier, json);
      const answer = await withDatabases(configOf(), (databases) =>
        createTaskClient({ database: databases.at(-1)! }).enqueue(definition, payload, {
          ...(delayUntil && { delayUntil }),
          ...(priority && { priority }),
        }),
      );
      process.stdout.write(`${JSON.stringify(answer)}\n`);
    });

/** Takes any JSON; how often it is tried is left to the release that runs it: null is stored. */
const permissive = (identifier: string): TaskDefinition =>
  ({
    ...defineTask({ identifier, payload: z.unknown() }),
    maxAttempts: null as unknown as number,
  }) as unknown as TaskDefinition;

function parsed(identifier: string, json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new StintError("payload_not_json", `${identifier}: the payload is not JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** With a zone: a local time would mean something else on each machine. */
function moment(text: string): Date {
  const time = new Date(text);
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/i.test(text) || Number.isNaN(time.getTime())) {
    throw new InvalidArgumentError("It is an ISO 8601 time with a zone, such as 2030-01-31T08:00:00Z.");
  }
  return time;
}

function priorityNamed(text: string): Priority {
  const name = text.toUpperCase();
  if (!Object.hasOwn(PRIORITIES, name))
    throw new InvalidArgumentError(`It is one of ${Object.keys(PRIORITIES).join(", ")}.`);
  return name as Priority;
}
