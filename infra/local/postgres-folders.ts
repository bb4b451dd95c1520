import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type Account, chooseAccount, commandLine, reachable, startedAt } from "./postgres-account.ts";
import { PostgresError } from "./postgres-error.ts";

const prefix = "stint-pg-";
/** Of the address of a unix socket; the system's limit is 108, on macOS 104. */
const socketPathBytes = 100;

/** A temp folder that names its owner, so that no moment exists in which it has none: pid, start time, random. */
export function makeTempFolder(account: Account): string {
  const name = `${prefix}${process.pid}-${startedAt(process.pid)}-`;
  const fits = (base: string) => Buffer.byteLength(join(base, `${name}XXXXXX`, "s", ".s.PGSQL.5432")) < socketPathBytes;
  const base = tempFolders().find((folder) => fits(folder) && reachable(folder, account)) ?? "/tmp";
  const folder = mkdtempSync(join(base, name));
  // Passable for Postgres, owned by us: nobody else can put something in its place.
  ownedBy({ ...account, uid: process.getuid!() }, folder, account.switched ? 0o710 : 0o700);
  return folder;
}

function tempFolders(): string[] {
  return [...new Set([tmpdir(), "/tmp"])].filter((folder) => existsSync(folder)).map((folder) => realpathSync(folder));
}

/** Removes what processes that are no more left behind. Never a folder whose owner lives, nor another user's. */
export function sweepTempFolders(): void {
  for (const base of tempFolders()) {
    for (const name of readdirSync(base)) {
      const [, pid, started] = name.match(/^stint-pg-(\d+)-([0-9a-z]+)-[^.]{6}$/) ?? [];
      if (!pid || startedAt(Number(pid)) === started) continue;
      const folder = join(base, name);
      const stat = lstatSync(folder, { throwIfNoEntry: false });
      if (!stat?.isDirectory() || stat.uid !== process.getuid!()) continue;
      // Its Postgres is about to end with its owner; if nothing told it to, this does. The folder goes at the next start.
      const postmaster = postmasterOf(join(folder, "data"));
      if (postmaster) signal(postmaster, "SIGINT");
      else rmSync(folder, { recursive: true, force: true });
    }
  }
}

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Gone already.
  }
}

export function ownedBy(account: Account, folder: string, mode: number): void {
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, mode);
  if (process.getuid!() === 0) chownSync(folder, account.uid, account.gid);
}

/** The living postmaster of a data folder. A pid file may outlive it and its number be somebody else's by now. */
export function postmasterOf(data: string): number | undefined {
  const pid = Number(readPidFile(data)[0]);
  return pid > 0 && commandLine(pid).includes(data) && startedAt(pid) ? pid : undefined;
}

export function readPidFile(data: string): string[] {
  try {
    return readFileSync(join(data, "postmaster.pid"), "utf8").split("\n");
  } catch {
    return [];
  }
}

/** Takes a kept folder for this process. @returns what gives it back */
export function takeFolder(folder: string): () => void {
  const lock = join(folder, "owner");
  const mine = `${process.pid} ${startedAt(process.pid)} ${randomBytes(8).toString("hex")}\n`;
  const candidate = `${lock}.${randomBytes(6).toString("hex")}`;
  writeFileSync(candidate, mine);
  try {
    for (let attempt = 0; attempt < 10; attempt++) {
      if (linked(candidate, lock)) return () => readOrEmpty(lock) === mine && rmSync(lock, { force: true });
      const theirs = readOrEmpty(lock);
      const [pid, started] = theirs.split(" ");
      if (pid && startedAt(Number(pid)) === started) throw inUse(folder, Number(pid));
      discardStale(lock, theirs, `${candidate}.stale`);
    }
    throw inUse(folder);
  } finally {
    rmSync(candidate, { force: true });
  }
}

/** Another start may have replaced the stale lock since it was read: then what was moved away is put back. */
function discardStale(lock: string, stale: string, aside: string): void {
  try {
    renameSync(lock, aside);
  } catch {
    return;
  }
  if (readOrEmpty(aside) !== stale) linked(aside, lock);
  rmSync(aside, { force: true });
}

export function inUse(folder: string, pid?: number): PostgresError {
  const by = pid ? ` by process ${pid}` : "";
  return new PostgresError(
    "data_folder_in_use",
    `The data folder ${folder} is in use${by}: stop it first or name another folder.`,
  );
}

function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Makes a kept folder and checks that Postgres's user gets there. */
export function keptFolder(dataDir: string, account: Account): string {
  makePassable(dataDir);
  const folder = realpathSync(dataDir);
  // Someone who owns the folder could exchange what lies in it.
  const owner = statSync(folder).uid;
  if (owner !== process.getuid!() && owner !== account.uid)
    throw new PostgresError(
      "data_folder_unreachable",
      `${folder} belongs to user ${owner}: name a folder of your own.`,
    );
  if (!reachable(folder, account))
    throw new PostgresError(
      "data_folder_unreachable",
      `Postgres runs as user ${account.uid} (it refuses to run as root), who may not enter ${folder}: name a folder elsewhere.`,
    );
  return folder;
}

/** Whatever the umask is. The data itself lies in a folder that only Postgres's user may enter. */
function makePassable(folder: string): void {
  const first = mkdirSync(folder, { recursive: true });
  if (first === undefined) return;
  for (let made = resolve(folder); made.startsWith(resolve(first)); made = dirname(made)) chmodSync(made, 0o755);
}

/** Where a checkout keeps its data: in itself, or, when Postgres's user may not go there, under /var/tmp. */
export function dataFolderOf(checkout: string, account = chooseAccount()): string {
  const inside = join(resolve(checkout), ".stint", "postgres");
  if (reachable(inside, account)) return inside;
  const name = createHash("sha256").update(inside).digest("hex").slice(0, 16);
  return join("/var/tmp", `stint-data-${account.uid}-${name}`);
}
