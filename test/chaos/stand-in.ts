/** The Data API's stand-in as a process of its own: one that also starts invocations answers seconds late. Its control endpoint sets the faults. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type DataApiOptions, type FaultOptions, startDataApi } from "../../infra/local/data-api/index.ts";

const self = fileURLToPath(import.meta.url);

export interface StandIn {
  readonly endpoint: string;
  readonly faults: {
    set(faults: FaultOptions): Promise<void>;
    clear(): Promise<void>;
    /** How many of each kind, since the start. */
    injected(): Promise<Record<string, number>>;
  };
  close(): Promise<void>;
}

/** @throws Error out of nowhere when the process ends before `close`: a run without it proves nothing */
export async function startStandIn(options: DataApiOptions): Promise<StandIn> {
  const child = fork(self, [JSON.stringify({ ...options, control: true })], { execArgv: [] });
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const endpoint = await firstMessage(child);
  let closing = false;
  child.once("exit", (code, signal) => {
    if (!closing) throw new Error(`The stand-in of the Data API ended with ${signal ?? code}.`);
  });
  const ask = async (method: string, body?: FaultOptions): Promise<{ injected: Record<string, number> }> => {
    const response = await fetch(`${endpoint}/__faults`, {
      method,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`The stand-in refuses these faults: ${await response.text()}`);
    return (await response.json()) as { injected: Record<string, number> };
  };
  return {
    endpoint,
    faults: {
      set: async (faults) => void (await ask("POST", faults)),
      clear: async () => void (await ask("DELETE")),
      injected: async () => (await ask("GET")).injected,
    },
    async close() {
      closing = true;
      child.disconnect();
      await gone;
    },
  };
}

const firstMessage = (child: ChildProcess): Promise<string> =>
  new Promise((resolve, reject) => {
    child.once("message", (endpoint) => resolve(endpoint as string));
    child.once("error", reject);
    child.once("exit", (code, signal) => reject(new Error(`The stand-in did not start: ${signal ?? code}.`)));
  });

if (process.argv[1] === self) {
  const dataApi = await startDataApi(JSON.parse(process.argv[2]!) as DataApiOptions);
  // It must not outlive the run, which may be killed at any moment.
  process.once("disconnect", () => process.exit(0));
  process.send!(dataApi.endpoint);
}
