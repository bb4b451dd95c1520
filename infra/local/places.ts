/** Where the local stack is: ports and the data folder, by environment variables. */
import { type AddressInfo, createServer, type Server } from "node:net";
import { resolve } from "node:path";
import { dataFolderOf } from "./postgres-folders.ts";

/** Of stage `local`, and of the receiver that `npm start` brings. */
export const LOCAL_WEBHOOK_KEY = "local-webhook-signing-key";

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
export const dataFolder = (root: string): string =>
  process.env.STINT_DATA_DIR ? resolve(root, process.env.STINT_DATA_DIR) : dataFolderOf(root);

/** @throws PlaceError when something listens there */
export async function refuseBusy(name: "PORT" | "DATA_API_PORT", port: number): Promise<void> {
  try {
    await close(await listen(port));
  } catch (error) {
    throw new PlaceError(
      `Port ${port} cannot be used (${(error as NodeJS.ErrnoException).code}): set ${name} to another one.`,
    );
  }
}

export async function freePort(): Promise<number> {
  const server = await listen(0);
  const { port } = server.address() as AddressInfo;
  await close(server);
  return port;
}

const listen = (port: number): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject).listen(port, "127.0.0.1", () => resolve(server));
  });

const close = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
