import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterEach } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const bin = fileURLToPath(new URL("../../infra/stint.js", import.meta.url));
const started = new Set<ChildProcess>();

afterEach(() => {
  for (const child of started) child.kill("SIGKILL");
});

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  /** Both streams so far. */
  output(): string;
  readonly ended: Promise<Ended>;
}

/** Starts the command as a process of its own, with these variables and none of the caller's but PATH and HOME. */
export function startStint(args: readonly string[], env: Record<string, string> = {}): Running {
  return startNode([bin, ...args], env, root);
}

export function startNode(args: readonly string[], env: Record<string, string>, cwd: string): Running {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(process.execPath, args, { cwd, env: { PATH, HOME, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  started.add(child);
  let stdout = "";
  let stderr = "";
  child.stdout!.on("data", (text) => {
    stdout += text;
  });
  child.stderr!.on("data", (text) => {
    stderr += text;
  });
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code, signal) => {
      started.delete(child);
      resolve({ code, signal, stdout, stderr });
    });
  });
  return { child, output: () => stdout + stderr, ended };
}

export const stint = (args: readonly string[], env: Record<string, string> = {}): Promise<Ended> =>
  startStint(args, env).ended;

/** Looks again and again until it is so. Gives up when a process that was started has ended by itself, and says what it wrote. */
export async function until(what: string, holds: () => unknown, ...processes: readonly Running[]): Promise<void> {
  const deadline = performance.now() + 45_000;
  while (!(await holds())) {
    const over = processes.find(({ child }) => child.exitCode !== null);
    if (over !== undefined || performance.now() > deadline) {
      throw new Error(`It never came to this: ${what}\n${processes.map((one) => one.output()).join("\n")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
