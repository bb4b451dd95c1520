/** What the processes wrote down, a line a write. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Broken, Counts } from "./report.ts";
import type { World } from "./world.ts";

/** One start of a handler, as its process logged it. Microseconds. */
export interface Execution {
  readonly file: string;
  readonly task: string;
  readonly identifier: string;
  readonly attempt: number;
  readonly token: string;
  readonly serial: string | undefined;
  readonly startedAt: number;
  /** The last moment at which it is known to have believed in its lease. */
  believedAt: number;
  ended: boolean;
}

export interface Logs {
  readonly executions: readonly Execution[];
  /** Attempts that a process was told of. */
  readonly told: ReadonlySet<string>;
  readonly faults: Counts;
  readonly broken: readonly Broken[];
}

interface Line {
  message: string;
  task?: string;
  identifier: string;
  attempt: number;
  at: number;
  token: string;
  serial?: string;
  fault?: string;
  /** Of `told` and `gave back`. */
  tasks: readonly (readonly [id: string, attempt: number])[];
  left?: string;
  code?: string;
  maxRssKb?: number;
}

export const attemptOf = (task: string, attempt: number): string => `${task} ${attempt}`;

/** Who leaves so has told the database of all that it held. */
const IN_ORDER: ReadonlySet<string | undefined> = new Set(["nothing_due", "superseded", "out_of_time", "stopped"]);

/** Only the last line of a process can be torn, by a kill in the middle of its write: what it was to say was never followed by anything. */
function* textsIn(world: Pick<World, "folder">): Generator<[file: string, texts: readonly string[]]> {
  for (const file of readdirSync(world.folder).filter((name) => name.startsWith("invocation-"))) {
    const texts = readFileSync(join(world.folder, file), "utf8").split("\n");
    texts.pop();
    yield [file, texts];
  }
}

/** Every line of the handlers' logs about one task. */
export const linesOf = (world: World, task: string): string[] =>
  [...textsIn(world)].flatMap(([file, texts]) =>
    texts
      .filter((text) => text.includes(`"task":"${task}"`) || text.includes(`["${task}",`))
      .map((text) => `${file} ${text}`),
  );

export function readLogs(world: Pick<World, "folder">, counts: Counts): Logs {
  const executions: Execution[] = [];
  const told = new Set<string>();
  const faults = new Counts();
  const broken: Broken[] = [];
  for (const [file, texts] of textsIn(world)) {
    const read = readLog(
      file,
      texts.map((text) => JSON.parse(text) as Line),
    );
    executions.push(...read.executions);
    for (const name of read.told) told.add(name);
    for (const name of read.faults) faults.add(`handler.${name}`);
    broken.push(...read.broken);
    if (read.left !== undefined) counts.add(`left.${read.left}`);
    counts.most("invocation_rss_max_kb", read.maxRssKb);
  }
  return { executions, told, faults, broken };
}

function readLog(file: string, lines: readonly Line[]) {
  // An attempt number is claimed once, so its lines stand in one file.
  const started = new Map<string, Execution>();
  const told = new Map<string, string>();
  const gaveBack = new Set<string>();
  const faults: string[] = [];
  let [left, maxRssKb] = [undefined as string | undefined, 0];
  const executions: Execution[] = [];
  for (const line of lines) {
    const { message, task, attempt, tasks = [] } = line;
    if (message === "told") for (const [id, number] of tasks) told.set(attemptOf(id, number), id);
    if (message === "gave back") for (const [id, number] of tasks) gaveBack.add(attemptOf(id, number));
    if (message === "left") [left, maxRssKb] = [line.left, line.maxRssKb ?? 0];
    if (message === "refused") left = `refused_${line.code ?? "other"}`;
    if (message === "fault") faults.push(line.fault!);
    if (task === undefined) continue;
    const name = attemptOf(task, attempt);
    if (message === "start") {
      const { identifier, token, serial, at } = line;
      const [startedAt, believedAt] = [at, at];
      const execution = { file, task, identifier, attempt, token, serial, startedAt, believedAt, ended: false };
      started.set(name, execution);
      executions.push(execution);
    }
    const execution = started.get(name);
    if (execution === undefined) continue;
    if (message === "believes") execution.believedAt = Math.max(execution.believedAt, line.at);
    // An end says nothing of the lease: what comes after another's block runs before any timer can fire.
    if (message === "end") execution.ended = true;
  }
  const kept = [...told].filter(([name]) => IN_ORDER.has(left) && !started.has(name) && !gaveBack.has(name));
  const broken = kept.map(
    ([name, task]): Broken => ({ invariant: 11, what: `${name} was told, and neither started nor given back`, task }),
  );
  return { executions, told: told.keys(), faults, broken, left, maxRssKb };
}
