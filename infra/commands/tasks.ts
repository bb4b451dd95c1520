import { Command, Option } from "commander";
import * as z from "zod/mini";
import { StintError } from "../../lib/errors.ts";
import { databaseAt, listTasks, performAction, showTask } from "../../lib/operator.ts";
import { actionSchema, TASK_STATES, type TaskSummary, tasksQuerySchema } from "../../lib/operator-schema.ts";
import { PRIORITIES } from "../../lib/task.ts";
import { CommandError, configOf, withDatabases } from "./environment.ts";
import { plain, print, table } from "./table.ts";

type Flags = Readonly<Record<string, string | boolean | undefined>>;

/** Where an action is on tasks: the name on the command line and that of the HTTP body. */
const ACTIONS = [
  ["retry", "retry", "Failed and cancelled tasks wait again, with all their attempts."],
  ["run-now", "run_now", "Scheduled and retrying tasks are due now."],
  ["cancel", "cancel", "Unfinished tasks end as cancelled; the holder of a running one is told."],
  ["delete", "delete", "Failed, cancelled and unfinished tasks that nobody holds are removed."],
  ["set-priority", "set_priority", "Tasks that nobody holds get this priority."],
  ["set-due", "set_due", "Tasks that nobody holds get this due time."],
] as const;

export function tasksCommand(): Command {
  const command = new Command("tasks").description("List, show, retry, cancel, delete and change tasks.");
  filtered(command.command("list"))
    .description("Print tasks, newest first. Without --state: every unfinished one.")
    .option("--limit <n>", "1 to 100", "50")
    .option("--cursor <cursor>", "what the page before said")
    .option("--json", "for programs")
    .action(list);
  command
    .command("show")
    .description("Print one task with its runs.")
    .argument("<id>")
    .option("--payload", "with its payload and what its handler returned")
    .option("--database <place>", "place in TASK_PROCESSOR_DATABASES, from 0 (default: the last)")
    .option("--json", "for programs")
    .action(show);
  for (const [name, action, description] of ACTIONS) {
    const one = filtered(command.command(name)).description(description).argument("[ids...]");
    one.option("--yes", "do it; without it a filter only says how many match").option("--json", "for programs");
    if (action === "set_priority") one.requiredOption("--priority <name>", Object.keys(PRIORITIES).join(", "));
    if (action === "set_due") one.requiredOption("--due <time>", "such as 2030-01-31T08:00:00Z");
    one.action((ids: string[], flags: Flags) => act(action, ids, flags));
  }
  return command;
}

const filtered = (command: Command): Command =>
  command
    .addOption(new Option("--state <state>").choices([...TASK_STATES]))
    .option("--identifier <identifier>")
    .option("--key <key>")
    .option("--from <time>", "created (succeeded ones: finished) at or after, such as 2030-01-31T08:00:00Z")
    .option("--to <time>", "before")
    .option("--database <place>", "place in TASK_PROCESSOR_DATABASES, from 0 (default: the last)");

async function list({ json, ...flags }: Flags): Promise<void> {
  const { cursor, limit, database, ...filter } = checked(tasksQuerySchema, flags);
  const page = await withDatabases(configOf(), (databases) =>
    listTasks(databaseAt(databases, database), filter, { cursor, limit }),
  );
  if (json) return print(JSON.stringify(page));
  print(page.tasks.length === 0 ? "No tasks here." : table(HEAD, page.tasks.map(rowOf)));
  if (page.next !== null) print(`More: --cursor ${page.next}`);
}

const HEAD = ["id", "state", "identifier", "priority", "due", "attempts", "key", "error"];
const rowOf = (task: TaskSummary) => [
  task.id,
  task.state,
  task.identifier,
  task.priority,
  task.scheduledFor ?? task.finishedAt,
  `${task.attemptsUsed ?? task.attempt}${task.maxAttempts === null ? "" : `/${task.maxAttempts}`}`,
  task.key,
  task.error?.slice(0, 60).split("\n", 1).join("") ?? null,
];

async function show(id: string, { json, payload, database }: Flags): Promise<void> {
  checked(z.strictObject({ id: z.string().check(z.regex(/^[1-9]\d{0,17}$/, "a whole number")) }), { id });
  const found = await withDatabases(configOf(), (databases) =>
    showTask(databaseAt(databases, placeOf(database)), id, { payload: payload === true }),
  );
  if (found === null) throw new CommandError("task_not_found", `${id}: there is no such task, or it is kept no more.`);
  if (json) return print(JSON.stringify(found));
  for (const [name, value] of Object.entries(found.task))
    if (value !== null)
      print(`${name.padEnd(14)}  ${plain(typeof value === "object" ? JSON.stringify(value) : String(value))}`);
  if ("payload" in found) print(`payload         ${plain(JSON.stringify(found.payload))}`);
  if ("resultValue" in found) print(`result          ${plain(JSON.stringify(found.resultValue))}`);
  if (found.runs.length > 0) {
    const rows = found.runs.map((run) => [
      run.attempt,
      run.result,
      run.startedAt,
      Math.round(run.durationMs),
      run.invocation,
    ]);
    print(`\n${table(["attempt", "result", "started", "ms", "invocation"], rows)}`);
    for (const run of found.runs)
      if (run.error !== null) print(`\nattempt ${run.attempt}\n${run.error.split("\n").map(plain).join("\n")}`);
  }
}

async function act(
  action: string,
  ids: string[],
  { json, yes, database, priority, due, ...filter }: Flags,
): Promise<void> {
  const all = ids.length === 0;
  if (all && Object.keys(filter).length === 0)
    throw new CommandError("filter_missing", "Give ids, or a filter: --state, --identifier, --key, --from, --to.");
  if (!all && Object.keys(filter).length > 0)
    throw new CommandError("filter_unexpected", "Give ids or a filter, one of the two.");
  const asked = checked(actionSchema, {
    action,
    ...(all ? { filter, dryRun: yes !== true } : { ids }),
    ...(database !== undefined && { database: placeOf(database) }),
    ...(priority !== undefined && { priority: PRIORITIES[String(priority).toUpperCase() as keyof typeof PRIORITIES] }),
    ...(due !== undefined && { due }),
  });
  const answer = await withDatabases(configOf(), (databases) => performAction(databases, asked, "cli"));
  if (json) return print(JSON.stringify(answer));
  const number = `${answer.count}${answer.done ? "" : " or more"}`;
  if (answer.dryRun) print(`${number} would be concerned. Again with --yes does it.`);
  else
    print(
      `${action}: ${answer.count}${ofNone(ids, answer.count)}.${answer.done ? "" : " There is more: once again does the rest."}`,
    );
}

/** Ids that are unknown, or whose tasks are in another state, are passed over: that is said where nothing is left. */
const ofNone = (ids: readonly string[], count: number): string =>
  ids.length > 0 && count === 0
    ? `, as no task with ${ids.length > 1 ? "one of these ids" : "this id"} is in a state for it`
    : "";

const placeOf = (database: string | boolean | undefined): number | undefined =>
  database === undefined ? undefined : Number(database);

/** @throws StintError option_invalid, naming the member */
export function checked<S extends z.ZodMiniType>(schema: S, value: unknown): z.output<S> {
  const parsed = z.safeParse(schema, value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new StintError("option_invalid", `${issue!.path.map(String).join(".") || "the options"}: ${issue!.message}`);
}
