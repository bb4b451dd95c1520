import { createLog, type Log, readable } from "../lib/log.ts";

/** For people, wherever it goes. On stderr; without debug lines. */
export const readableLog = (): Log =>
  createLog((line) => {
    if (line.level !== "debug") process.stderr.write(`${readable(line)}\n`);
  });
