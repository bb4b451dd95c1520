/**
 * `npm run bench -- [--only NAME ...] [--quick] [--json] [--write]`. A table for people; with --json the same as the last line; with --write
 * the figures are merged into figures.json, and README.md and figures.svg are made anew from it.
 */
import { parseArgs } from "node:util";
import { POSTGRES_SETTINGS } from "./support/arena.ts";
import { load, NAMES, type Name } from "./support/figures.ts";
import { GRAPHILE } from "./support/graphile.ts";
import { busyCores } from "./support/measure.ts";
import { type Measured, machine, write } from "./support/page.ts";
import { PG_BOSS } from "./support/pg-boss.ts";
import { plainTable } from "./support/table.ts";

const { values: flags } = parseArgs({
  options: {
    only: { type: "string", multiple: true },
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  },
});
const unknown = flags.only?.filter((name) => !NAMES.includes(name as Name)) ?? [];
if (unknown.length > 0 || (flags.write && flags.quick)) {
  process.stderr.write(
    unknown.length > 0
      ? `There is no bench ${unknown.join(", ")}. There are: ${NAMES.join(", ")}.\n`
      : "--quick is a smoke test: its figures are not written.\n",
  );
  process.exit(2);
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);
say(
  [
    `Postgres: ${Object.entries({ ...POSTGRES_SETTINGS, fsync: "on", synchronous_commit: "on" })
      .map(([name, value]) => `${name} ${value}`)
      .join(", ")}`,
    `Peers: ${GRAPHILE.batching.text}`,
    `       ${GRAPHILE.plain.text} (small, latency)`,
    `       ${PG_BOSS}`,
  ].join("\n"),
);
if (flags.quick) say("A smoke test: its sizes are small, whatever is described, and its figures mean nothing.");
const results: Partial<Record<Name, Measured>> = {};
for (const name of NAMES) {
  if (flags.only !== undefined && !flags.only.includes(name)) continue;
  const { about, bench, targets = [] } = await load(name);
  const coresBusyBefore = flags.quick ? 0 : await busyCores();
  const startedAt = performance.now();
  const figures = await bench({ quick: flags.quick });
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  results[name] = { at: new Date().toISOString(), seconds, coresBusyBefore, figures };
  say(`\n${name} (${seconds} s)\n${about}\n${plainTable(figures, flags.quick ? [] : targets)}`);
}
if (flags.write) await write(results);
if (flags.json) say(JSON.stringify({ machine: machine(), results }));
