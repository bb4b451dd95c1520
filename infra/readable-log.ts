import { createLog, type Log } from "../lib/log.ts";

/** For people: time, level, message, then `name=value`. On stderr, as the JSON log; without debug lines. */
export const readableLog = (): Log =>
  createLog(({ level, message, ...fields }) => {
    if (level === "debug") return;
    const shown = Object.entries(fields).map(([name, value]) => ` ${name}=${shortened(name, value)}`);
    process.stderr.write(`${new Date().toISOString()} ${level.padEnd(5)} ${message}${shown.join("")}\n`);
  });

function shortened(name: string, value: unknown): string {
  if (name === "invocation") return String(value).slice(0, 8);
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  return /^[^\s"]+$/.test(text) ? text : JSON.stringify(text);
}
