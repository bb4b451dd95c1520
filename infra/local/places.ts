/** Where the local stack is: ports and the data folder, by environment variables. */
import { resolve } from "node:path";

export class PlaceError extends Error {}

/** @throws PlaceError naming the variable */
export function portOf(name: "PORT" | "DATA_API_PORT", fallback: number): number {
  const text = process.env[name] || String(fallback);
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535)
    throw new PlaceError(`${name} is a port from 1 to 65535, not ${JSON.stringify(text)}.`);
  return port;
}

export const httpPort = (): number => portOf("PORT", 3000);
export const dataApiPort = (): number => portOf("DATA_API_PORT", 3001);
export const dataApiAddress = (): string => `http://127.0.0.1:${dataApiPort()}`;

/** Shared by `npm start` and single commands, so that one sees what the other has stored. */
export const dataFolder = (root: string): string => resolve(root, process.env.STINT_DATA_DIR || ".stint/postgres");
