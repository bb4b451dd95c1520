/** A database for one command: the running stack's, or one started for it. */
import { setTimeout as sleep } from "node:timers/promises";
import { dataApiAddress, dataFolder } from "./places.ts";
import { PostgresError } from "./postgres-error.ts";
import { type Stack, startStack } from "./stack.ts";

/** How long another command may hold the data folder. */
const waitMs = 30_000;

/**
 * The stand-in at the Data API port, if one answers there. Else a stack on the data folder of `npm start`, at a port that
 * only this command knows: another command must not lean on what ends with this one.
 * @throws PostgresError data_folder_in_use when another process keeps the folder for half a minute without answering at the port
 */
export async function borrowStack(
  serviceDir: string,
): Promise<{ endpoint: string } | { endpoint: string; stack: Stack }> {
  const endpoint = dataApiAddress();
  for (const deadline = Date.now() + waitMs; ; ) {
    if (await isStandIn(endpoint)) return { endpoint };
    try {
      const stack = await startStack({ dataDir: dataFolder(serviceDir) });
      return { endpoint: stack.dataApi.endpoint, stack };
    } catch (error) {
      const inUse = error instanceof PostgresError && error.code === "data_folder_in_use";
      if (!inUse || Date.now() > deadline) throw error;
      await sleep(250);
    }
  }
}

/** Not just anything that listens there: only the Data API has this error. */
async function isStandIn(endpoint: string): Promise<boolean> {
  try {
    const answer = await fetch(endpoint, { signal: AbortSignal.timeout(5000) });
    return (
      (await answer.text()).includes("Unknown operation") ||
      answer.headers.get("x-amzn-errortype")?.includes("UnknownOperation") === true
    );
  } catch {
    return false;
  }
}
