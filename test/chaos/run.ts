/** `npm run chaos -- --tasks 2000 --minutes 1 --seed 7 --json`: see README.md beside this file. */
import { parseArgs } from "node:util";
import { play, SETTINGS } from "./play.ts";
import { printOutcome } from "./report.ts";
import { measureRescue } from "./rescue.ts";

const { values } = parseArgs({
  options: {
    tasks: { type: "string", default: "2000" },
    minutes: { type: "string", default: "1" },
    seed: { type: "string" },
    slots: { type: "string", default: "6" },
    every: { type: "string", default: "2000" },
    places: { type: "string", default: String(SETTINGS.queuePopSize) },
    grace: { type: "string", default: String(SETTINGS.graceMs) },
    upgrade: { type: "string" },
    json: { type: "boolean", default: false },
    rescue: { type: "boolean", default: false },
    kills: { type: "string", default: "50" },
  },
});
const number = (name: "tasks" | "minutes" | "slots" | "every" | "grace" | "places" | "kills"): number => {
  const value = Number(values[name]);
  if (!Number.isFinite(value) || value < 0) throw new Error(`--${name} is a number, not ${values[name]}`);
  return value;
};
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
// With --json the answer is the last line of stdout; what is told on the way goes to stderr.
const write = (line: string): void => void (values.json ? process.stderr : process.stdout).write(`${line}\n`);

// Postgres and the processes end with this one.
process.once("SIGINT", () => process.exit(130));
process.once("SIGTERM", () => process.exit(143));

if (values.rescue) {
  const answer = { ...(await measureRescue({ seed, kills: number("kills"), write })) };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
} else {
  write(`seed ${seed}`);
  const { broken, ...outcome } = await play({
    seed,
    tasks: number("tasks"),
    minutes: number("minutes"),
    slots: number("slots"),
    everyMs: number("every"),
    graceMs: number("grace"),
    queuePopSize: number("places"),
    upgradeFrom: values.upgrade,
    write,
  });
  printOutcome(outcome, write);
  if (values.json) process.stdout.write(`${JSON.stringify(outcome)}\n`);
  if (broken.length > 0 || outcome.lost > 0) {
    write(`\nbroken: run again with --seed ${seed}`);
    process.exitCode = 1;
  }
}
