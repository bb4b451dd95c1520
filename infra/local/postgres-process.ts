import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Account, runAs } from "./postgres-account.ts";
import type { Binaries } from "./postgres-binaries.ts";
import { PostgresError } from "./postgres-error.ts";
import { ownedBy, readPidFile } from "./postgres-folders.ts";

const startDeadlineMs = 60_000;
/** A fast stop writes a checkpoint; after this it becomes an immediate one. */
const stopDeadlineMs = 20_000;

export interface Launch {
  binaries: Binaries;
  account: Account;
  data: string;
  socketFolder: string;
  logFile: string;
  settings: Record<string, string>;
}

/** No PG* or LC_* variable of the caller's may change what Postgres does. */
const environment = { PATH: process.env.PATH ?? "", LC_ALL: "C", TZ: "UTC" };

/** Into a folder of its own that is then renamed: a data folder that exists is a complete one. */
export async function initialise(launch: Launch, durable: boolean): Promise<void> {
  const { binaries, account, data, logFile } = launch;
  const making = `${data}.${process.pid}`;
  rmSync(making, { recursive: true, force: true });
  ownedBy(account, making, 0o700);
  const locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
  const args = ["-D", making, "-U", "stint", "--auth=trust", ...locale, ...(durable ? [] : ["--no-sync"])];
  const child = start(account, binaries.initdb, args, logFile);
  const code = await exitOf(child);
  if (code !== 0) throw new PostgresError("initdb_failed", `initdb ended with ${code}: ${lastLines(logFile)}`);
  renameSync(making, data);
}

export async function launch(options: Launch): Promise<ChildProcess> {
  const deadline = Date.now() + startDeadlineMs;
  while (true) {
    const child = start(options.account, options.binaries.postgres, postgresArguments(options), options.logFile);
    if (await isReady(child, options.data, deadline)) {
      child.unref();
      return child;
    }
    const log = lastLines(options.logFile);
    // The children of a postmaster that was killed notice within moments, and until then hold its memory.
    const passing = /pre-existing shared memory block|lock file .* already exists/.test(log);
    if (!passing || Date.now() > deadline - startDeadlineMs + 5_000)
      throw new PostgresError("start_failed", `Postgres did not start: ${log}`);
    await sleep(100);
  }
}

function postgresArguments({ data, socketFolder, settings }: Launch): string[] {
  const all = { listen_addresses: "", port: "5432", timezone: "UTC", log_timezone: "UTC", ...settings };
  return [
    "-D",
    data,
    "-k",
    socketFolder,
    ...Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
  ];
}

async function isReady(child: ChildProcess, data: string, deadline: number): Promise<boolean> {
  while (child.exitCode === null && child.signalCode === null && Date.now() < deadline) {
    const lines = readPidFile(data);
    if (Number(lines[0]) === child.pid && lines[7]?.trim() === "ready") return true;
    await sleep(5);
  }
  await terminate(child, "immediate");
  return false;
}

export async function terminate(child: ChildProcess, mode: "fast" | "immediate"): Promise<void> {
  child.ref();
  const exited = exitOf(child);
  child.kill(mode === "fast" ? "SIGINT" : "SIGQUIT");
  const escalate = setTimeout(() => child.kill("SIGQUIT"), stopDeadlineMs);
  await exited;
  clearTimeout(escalate);
}

function start(account: Account, file: string, args: string[], logFile: string): ChildProcess {
  const command = runAs(account, file, args);
  const watchdog = command.diesWithParent ? undefined : startWatchdog();
  const log = openSync(logFile, "w");
  try {
    const { uid, gid } = command;
    const child = spawn(command.file, command.args, {
      stdio: ["ignore", log, log],
      cwd: "/",
      env: environment,
      // In a group of its own: Ctrl-C in a terminal is for whoever started it, who then stops it in order.
      detached: true,
      ...(uid !== undefined && { uid, gid }),
    });
    child.on("error", () => {}); // exitOf reports it
    watchdog?.watch(child);
    return child;
  } finally {
    closeSync(log);
  }
}

/** A shell that ends the process when our end of its input closes, which the kernel does even after kill -9. */
function startWatchdog() {
  const script = 'read -r pid && { read -r line || kill -INT "$pid"; }';
  const shell = spawn("/bin/sh", ["-c", script], { stdio: ["pipe", "ignore", "ignore"], cwd: "/", detached: true });
  shell.on("error", () => {});
  shell.stdin.on("error", () => {});
  shell.unref();
  (shell.stdin as unknown as { unref(): void }).unref();
  return {
    watch(child: ChildProcess) {
      shell.stdin.write(`${child.pid}\n`);
      child.once("exit", () => shell.stdin.end("done\n"));
    },
  };
}

function exitOf(child: ChildProcess): Promise<number | string> {
  if (child.exitCode !== null) return Promise.resolve(child.exitCode);
  if (child.signalCode !== null) return Promise.resolve(child.signalCode);
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve(code ?? signal ?? "unknown"));
    child.once("error", (error) => resolve(error.message));
  });
}

export function lastLines(logFile: string): string {
  return existsSync(logFile) ? readFileSync(logFile, "utf8").trim().split("\n").slice(-8).join("\n") : "";
}

export const dataIn = (folder: string): string => join(folder, "data");
