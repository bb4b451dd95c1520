import { spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { isMainThread } from "node:worker_threads";

/** The user Postgres runs as. It refuses to run as root, so root hands it to somebody else. */
export interface Account {
  uid: number;
  gid: number;
  switched: boolean;
}

export interface Command {
  file: string;
  args: string[];
  uid?: number;
  gid?: number;
  /** The kernel ends it when the process that spawned it dies; otherwise a watchdog has to. */
  diesWithParent: boolean;
}

/** As root: the owner of an existing data folder, else nobody (initdb wants a user with a name). */
export function chooseAccount(dataDir?: string): Account {
  const uid = process.getuid!();
  if (uid !== 0) return { uid, gid: process.getgid!(), switched: false };
  const owner = dataDir ? statSync(dataDir, { throwIfNoEntry: false }) : undefined;
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid, switched: true };
  return { ...nobody(), switched: true };
}

function nobody(): { uid: number; gid: number } {
  const line = readFileSync("/etc/passwd", "utf8").match(/^nobody:[^:]*:(-?\d+):(-?\d+):/m);
  return { uid: Number(line?.[1] ?? 65534) >>> 0, gid: Number(line?.[2] ?? 65534) >>> 0 };
}

export function runAs(account: Account, file: string, args: string[]): Command {
  // The death signal follows the spawning thread, so a worker thread that ends would take Postgres with it.
  const diesWithParent = isMainThread && setprivKnowsDeathSignal();
  const ids = account.switched ? { uid: account.uid, gid: account.gid } : {};
  if (!diesWithParent) return { file, args, ...ids, diesWithParent };
  const change = account.switched ? [`--reuid=${account.uid}`, `--regid=${account.gid}`, "--clear-groups"] : [];
  return { file: "setpriv", args: [...change, "--pdeathsig=INT", "--", file, ...args], diesWithParent };
}

let deathSignal: boolean | undefined;
/** util-linux's setpriv does; busybox's, under the same name, does not. */
function setprivKnowsDeathSignal(): boolean {
  deathSignal ??=
    process.platform === "linux" &&
    String(spawnSync("setpriv", ["--help"], { encoding: "utf8" }).stdout).includes("--pdeathsig");
  return deathSignal;
}

/** Whether the account may pass through every folder above the path, and the path itself if it exists. */
export function reachable(path: string, account: Account): boolean {
  for (let folder = path; ; folder = dirname(folder)) {
    const stat = statSync(folder, { throwIfNoEntry: false });
    if (stat) {
      const bit = stat.uid === account.uid ? 0o100 : stat.gid === account.gid ? 0o010 : 0o001;
      if ((stat.mode & bit) === 0) return false;
    }
    if (folder === dirname(folder)) return true;
  }
}

/** Start time of a living process: with the pid it tells a process from a later one with the same number. */
export function startedAt(pid: number): string | undefined {
  if (process.platform === "linux") {
    try {
      const stat = readFileSync(join("/proc", String(pid), "stat"), "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return fields[0] === "Z" || fields[0] === "X" ? undefined : Number(fields[19]).toString(36);
    } catch {
      return undefined;
    }
  }
  const started = spawnSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).stdout.trim();
  return started === "" ? undefined : Math.floor(Date.parse(started) / 1000).toString(36);
}

/** The full command line of a process, empty when there is none. */
export function commandLine(pid: number): string {
  try {
    if (process.platform === "linux")
      return readFileSync(join("/proc", String(pid), "cmdline"), "utf8").replaceAll("\0", " ");
    return spawnSync("ps", ["-ww", "-o", "command=", "-p", String(pid)], { encoding: "utf8" }).stdout;
  } catch {
    return "";
  }
}
