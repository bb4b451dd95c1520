/** Child processes that are spoken to, and one answer of each. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

export interface Worker {
  /** Lets it begin; resolves when it has left. */
  go(): Promise<{ succeeded: number }>;
}

/** Connected and waiting for the word. */
export async function startWorker(url: string, slot: number, queuePopSize: number): Promise<Worker> {
  const child = fork(fileURLToPath(new URL("worker.ts", import.meta.url)), [url, String(slot), String(queuePopSize)]);
  await heard(child);
  return {
    async go() {
      child.send("go");
      const answer = (await heard(child)) as { succeeded: number };
      if (child.exitCode === null) await once(child, "exit");
      return answer;
    },
  };
}

/** The child's next message. @throws Error when it ends without one */
export function heard(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void =>
      reject(new Error(`The process ended with ${code} before it answered.`));
    child.once("exit", ended);
    child.once("message", (message) => {
      child.off("exit", ended);
      resolve(message);
    });
  });
}
