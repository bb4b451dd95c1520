/** What the commands share: flags over environment variables, and databases for as long as a command runs. */
import { InvalidArgumentError } from "commander";
import { type Config, readConfig } from "../../lib/config.ts";
import type { Database } from "../../lib/database/port.ts";
import { StintError } from "../../lib/errors.ts";
import { connectAll } from "../../lib/runtime.ts";

/** By variable: the flag's name and what was given for it, if anything was. */
export type Overrides = Readonly<Record<string, { readonly flag: string; readonly value: string | undefined }>>;

/** @throws StintError config_invalid, naming the flag where the value came from one */
export function configOf(overrides: Overrides = {}): Config {
  const given = Object.entries(overrides).filter(([, { value }]) => value !== undefined);
  try {
    return readConfig({ ...process.env, ...Object.fromEntries(given.map(([name, { value }]) => [name, value])) });
  } catch (error) {
    if (!(error instanceof StintError)) throw error;
    const message = given.reduce(
      (text, [name, { flag }]) => text.replace(`${name} is`, `${flag} (${name}) is`),
      error.message,
    );
    throw new StintError(error.code, message, { cause: error });
  }
}

export async function withDatabases<T>(
  config: Config,
  work: (databases: readonly Database[]) => Promise<T>,
): Promise<T> {
  const databases = await connectAll(config);
  try {
    return await work(databases);
  } finally {
    await Promise.allSettled(databases.map((database) => database.close()));
  }
}

/** A whole number, as text: its range is the configuration's business. */
export function wholeNumber(text: string): string {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("It is a whole number.");
  return text;
}

/** An error of the command line itself, with a code as StintError's. */
export class CommandError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}
