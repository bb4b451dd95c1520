/** `npm run bench -- [--only NAME] [--quick] [--json]`: every other module of this folder that exports `bench`. Figures, no judgement. */
import { globSync } from "node:fs";
import { cpus } from "node:os";
import { basename } from "node:path";
import { parseArgs } from "node:util";

export interface BenchOptions {
  /** Small and once: a smoke test, whose figures mean nothing. */
  readonly quick: boolean;
}

export type Figures = Readonly<Record<string, number | string>>;

const { values } = parseArgs({
  options: { only: { type: "string" }, quick: { type: "boolean" }, json: { type: "boolean" } },
});
const found = globSync("*.ts", { cwd: import.meta.dirname }).sort();
const results: Record<string, Figures> = {};
for (const file of found) {
  const name = basename(file, ".ts");
  if (file === basename(import.meta.filename) || (values.only !== undefined && values.only !== name)) continue;
  const { bench } = (await import(`./${file}`)) as { bench?: (options: BenchOptions) => Promise<Figures> };
  if (bench === undefined) continue;
  results[name] = await bench({ quick: values.quick === true });
  if (!values.json) {
    process.stdout.write(`${name}\n`);
    for (const [what, figure] of Object.entries(results[name]))
      process.stdout.write(`  ${what.padEnd(40)} ${figure}\n`);
  }
}
if (Object.keys(results).length === 0) {
  process.stderr.write(`There is no bench ${values.only}.\n`);
  process.exitCode = 2;
} else if (values.json) {
  const machine = { cpu: cpus()[0]?.model ?? "unknown", cores: cpus().length, node: process.version };
  process.stdout.write(`${JSON.stringify({ at: new Date().toISOString(), machine, results })}\n`);
}
