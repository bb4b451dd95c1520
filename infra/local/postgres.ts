import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { chooseAccount } from "./postgres-account.ts";
import { findBinaries } from "./postgres-binaries.ts";
import { PostgresError } from "./postgres-error.ts";
import {
  inUse,
  keptFolder,
  makeTempFolder,
  ownedBy,
  postmasterOf,
  signal,
  sweepTempFolders,
  takeFolder,
} from "./postgres-folders.ts";
import { dataIn, initialise, type Launch, launch, terminate } from "./postgres-process.ts";

export { PostgresError, type PostgresErrorCode } from "./postgres-error.ts";
export { dataFolderOf } from "./postgres-folders.ts";

export interface PostgresOptions {
  /** Kept after stop. Without it: a temp folder, removed at stop, or by the next start if this process is killed. */
  dataDir?: string;
  /** As in postgresql.conf, for instance { fsync: "off" }. */
  settings?: Record<string, string>;
}

export type StopMode = "fast" | "immediate";

export interface LocalPostgres {
  /** Superuser `stint`, database `postgres`, over a unix socket: nothing listens on the network. */
  readonly url: string;
  urlOf(database: string): string;
  readonly pid: number;
  readonly dataDir: string;
  stop(mode?: StopMode): Promise<void>;
  /** Same socket, same data. Also after Postgres was killed. */
  restart(mode?: StopMode): Promise<void>;
}

/** How long the Postgres of an owner that died may take to end before its folder counts as in use. */
const leftoverDeadlineMs = 15_000;

/**
 * Real Postgres 17 from npm. It ends with this process, however this process ends.
 * @throws PostgresError with a code; `data_folder_in_use` when another living process has the folder
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<LocalPostgres> {
  if (options.dataDir === "") throw new PostgresError("data_folder_unreachable", "The data folder has no name.");
  sweepTempFolders();
  const account = chooseAccount(options.dataDir && dataIn(options.dataDir));
  const binaries = findBinaries(account);
  const temp = makeTempFolder(account);
  let release = () => {};
  const cleanUp = () => {
    release();
    rmSync(temp, { recursive: true, force: true });
  };
  try {
    const folder = options.dataDir ? keptFolder(options.dataDir, account) : temp;
    if (options.dataDir) release = takeFolder(folder);
    const socketFolder = join(temp, "s");
    ownedBy(account, socketFolder, 0o700);
    const data = dataIn(folder);
    const logFile = join(folder, "postgres.log");
    const how: Launch = { binaries, account, data, socketFolder, logFile, settings: options.settings ?? {} };
    if (options.dataDir) await clearLeftovers(folder);
    if (!existsSync(data)) await initialise(how, options.dataDir !== undefined);
    checkVersion(data, binaries.version);
    return running(how, folder, await launch(how), cleanUp);
  } catch (error) {
    cleanUp();
    throw error;
  }
}

/** What an owner that was killed left in a kept folder: half an initialisation, or a Postgres that is just ending. */
async function clearLeftovers(folder: string): Promise<void> {
  for (const name of readdirSync(folder))
    if (/^data\.\d+$/.test(name)) rmSync(join(folder, name), { recursive: true, force: true });
  const data = dataIn(folder);
  const deadline = Date.now() + leftoverDeadlineMs;
  for (let pid = postmasterOf(data); pid; pid = postmasterOf(data)) {
    if (Date.now() > deadline) throw inUse(folder, pid);
    signal(pid, "SIGINT");
    await sleep(50);
  }
  // Its number may belong to somebody else by now, and Postgres would refuse to start.
  rmSync(join(data, "postmaster.pid"), { force: true });
}

function checkVersion(data: string, version: string): void {
  const found = readFileSync(join(data, "PG_VERSION"), "utf8").trim();
  const wanted = version.split(".")[0];
  if (found !== wanted)
    throw new PostgresError("data_folder_version", `${data} was made by Postgres ${found}; this is ${wanted}.`);
}

function running(how: Launch, dataDir: string, first: ChildProcess, cleanUp: () => void): LocalPostgres {
  let child = first;
  let stopped = false;
  let last: Promise<void> = Promise.resolve();
  const inTurn = (work: () => Promise<void>) => {
    const mine = last.then(work);
    last = mine.catch(() => {});
    return mine;
  };
  const urlOf = (database: string) =>
    `postgresql://stint@${encodeURIComponent(how.socketFolder)}:5432/${encodeURIComponent(database)}`;
  return {
    url: urlOf("postgres"),
    urlOf,
    dataDir,
    get pid() {
      return child.pid!;
    },
    stop: (mode = "fast") =>
      inTurn(async () => {
        if (stopped) return;
        stopped = true;
        await terminate(child, mode);
        cleanUp();
      }),
    restart: (mode = "fast") =>
      inTurn(async () => {
        if (stopped) throw new PostgresError("stopped", "This Postgres was stopped: start another.");
        await terminate(child, mode);
        child = await launch(how);
      }),
  };
}
