/** serverless-offline in a process of its own: HTTP functions and schedules. */
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { PlaceError } from "./places.ts";

/** What its process says over the channel: see plugin.ts, and infra/stages/own-parts.js for what does not build. */
export type Told = "ready" | { readonly failed: string } | { readonly unbuilt: string };

export interface Offline {
  /** It answers. Rejects when it fails or ends before that. */
  readonly ready: Promise<void>;
  readonly exited: Promise<{ code: number | null }>;
  lastLines(): string;
  stop(): Promise<void>;
}

/** It has 5 s of its own to close connections. */
const STOP_MS = 8000;

export function startOffline(options: {
  root: string;
  logFile: string;
  environment: Readonly<Record<string, string>>;
  /** Hears of source files that do not build once it answers: what ran before goes on. */
  onUnbuilt: (why: string) => void;
}): Offline {
  const { root, logFile, environment, onUnbuilt } = options;
  const log = openSync(logFile, "w");
  const serverless = createRequire(import.meta.url).resolve("serverless/bin/serverless.js");
  const child = spawn(process.execPath, [serverless, "offline", "start", "--stage", "local"], {
    cwd: root,
    // The channel tells that it is ready, and tells it when we are no more.
    stdio: ["ignore", log, log, "ipc"],
    // In a group of its own: a Ctrl-C in the terminal is for us, who then stop it in order.
    detached: true,
    env: { ...process.env, ...environment, STINT_TELLS: "true" },
  });
  closeSync(log);
  const lastLines = (): string => readFileSync(logFile, "utf8").trim().split("\n").slice(-8).join("\n");
  const exited = new Promise<{ code: number | null }>((resolve) => {
    child.once("exit", (code) => resolve({ code }));
    child.once("error", () => resolve({ code: null }));
  });
  const ready = new Promise<void>((resolve, reject) => {
    let isReady = false;
    child.on("message", (told: Told) => {
      if (told === "ready") {
        isReady = true;
        resolve();
      } else if ("failed" in told) {
        // It would live on without a function.
        reject(new PlaceError(`The functions did not start: ${told.failed}\nMore in ${logFile}`));
      } else if (isReady) onUnbuilt(told.unbuilt);
    });
    // What it said last may come after its end.
    const silent = new Promise<void>((done) => {
      child.once("disconnect", () => done());
      child.once("error", () => done());
    });
    Promise.all([exited, silent]).then(([{ code }]) =>
      reject(new PlaceError(`serverless-offline did not start (exit code ${code}): ${lastLines()}`)),
    );
  });
  ready.catch(() => {}); // whoever stops it before it is ready need not hear of it
  return {
    ready,
    exited,
    lastLines,
    async stop() {
      child.kill("SIGTERM");
      const escalate = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await exited;
      clearTimeout(escalate);
      rmSync(join(root, ".esbuild", String(child.pid)), { recursive: true, force: true });
    },
  };
}
