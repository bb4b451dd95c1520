/** `npm start`: everything answers, tasks are run, and nothing stays behind. */
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, expect, test } from "vitest";
import { freePort } from "../infra/local/places.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { statement } from "../lib/database/port.ts";
import { connectDatabase } from "../lib/index.ts";
import { root, temporaryFolder } from "./support/command.ts";
import { startNode } from "./support/stint.ts";

const SLOW_MS = 180_000;
const folder = temporaryFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const startStack = (env: Record<string, string>) => startNode(["infra/local/start.ts"], env, root);

async function running() {
  const [port, dataApiPort] = [await freePort(), await freePort()];
  const run = startStack({
    PORT: String(port),
    DATA_API_PORT: String(dataApiPort),
    STINT_DATA_DIR: join(folder, "postgres"),
    STINT_WATCH: "false",
  });
  const up = until(() => run.output().includes("Stint is running"));
  const early = run.ended.then((ended) => Promise.reject(new Error(`It ended: ${JSON.stringify(ended)}`)));
  early.catch(() => {});
  await Promise.race([up, early]);
  return { ...run, url: `http://127.0.0.1:${port}`, dataApiUrl: `http://127.0.0.1:${dataApiPort}` };
}

const runs = statement<{ succeeded: number }>()(
  "test_runs",
  {},
  ["succeeded"],
  "SELECT CAST(count(*) AS int) AS succeeded FROM {schema}.task_run WHERE result = 'SUCCESS'",
);

test("serves, runs tasks, and Ctrl-C ends all of its processes", { timeout: SLOW_MS }, async () => {
  const { child, ended, url, dataApiUrl, output } = await running();
  const health = await fetch(`${url}/health?format=json`);
  expect([health.status, await health.json()]).toEqual([
    200,
    { DatabaseBackend: "working", MigrationsHealthCheck: "working" },
  ]);
  const monitoring = await fetch(`${url}/processor/monitoring`);
  expect([monitoring.status, await monitoring.json()]).toEqual([200, { waiting: expect.any(Number) }]);
  const refused = await fetch(`${url}/health`, { method: "POST" });
  expect([refused.status, await refused.json()]).toMatchObject([405, { error: { code: "method_not_allowed" } }]);

  Object.assign(process.env, { AWS_REGION: LOCAL.region, AWS_ACCESS_KEY_ID: "local", AWS_SECRET_ACCESS_KEY: "local" });
  const database = await connectDatabase({ kind: "data-api", ...LOCAL }, { endpoint: dataApiUrl });
  await until(async () => (await database.query(runs, {}))[0]!.succeeded >= 3);
  await database.close();

  const [, postgresUrl] = /^ {2}Postgres +(\S+)$/m.exec(output())!;
  const postgres = new pg.Client({ connectionString: postgresUrl });
  await postgres.connect();
  await until(async () => {
    await Promise.all([fetch(`${url}/processor/monitoring`), fetch(`${url}/health`)]);
    const { rows } = await postgres.query(
      "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'rds-data-api' ORDER BY 1",
    );
    const names = ["operator", "producer", "worker"].map((kind) => `task_processor_${kind}`);
    return names.every((name) => rows.some(({ usename }) => usename === name));
  });
  await postgres.end();

  const processes = descendants(child.pid!);
  expect(processes.some(({ command }) => command.includes("offline"))).toBe(true);
  expect(processes.some(({ command }) => command.includes("postgres"))).toBe(true);
  child.kill("SIGINT");
  expect(await ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/Stopping \.\.\.\n$/), stderr: "" });
  await until(() => processes.every((one) => !isRunning(one)));
  for (const { pid } of processes) expect(existsSync(join(root, ".esbuild", String(pid)))).toBe(false);
});

test("when it is killed, its processes end by themselves", { timeout: SLOW_MS }, async () => {
  const { child, ended } = await running();
  const processes = descendants(child.pid!);
  expect(processes.length).toBeGreaterThan(1);
  child.kill("SIGKILL");
  await ended;
  await until(() => processes.every((one) => !isRunning(one)));
});

test("what does not build is told: at the start it is the end, later what ran before goes on", {
  timeout: SLOW_MS,
}, async () => {
  const copy = join(folder, "copy");
  for (const part of ["functions", "infra", "lib", "package.json", "serverless.yml", "tsconfig.json"])
    cpSync(join(root, part), join(copy, part), { recursive: true });
  symlinkSync(realpathSync(join(root, "node_modules")), join(copy, "node_modules"));
  const file = join(copy, "functions/tasks/index.ts");
  const good = readFileSync(file, "utf8");
  const bad = `${good}export { nothing } from "./not-there.ts";\n`;
  const [port, dataApiPort] = [await freePort(), await freePort()];
  const start = () =>
    startNode(
      ["infra/local/start.ts"],
      { PORT: String(port), DATA_API_PORT: String(dataApiPort), STINT_DATA_DIR: join(folder, "postgres") },
      copy,
    );
  writeFileSync(file, bad);
  const { code, stderr } = await start().ended;
  expect(code).toBe(1);
  expect(stderr).toMatch(
    /^The functions did not start: .*\nfunctions\/tasks\/index\.ts:\d+:\d+: ERROR: Could not resolve "\.\/not-there\.ts"\nMore in .*functions\.log\n$/,
  );

  writeFileSync(file, good);
  const { child, ended, output } = start();
  await until(() => output().includes("Stint is running"));
  // Its watcher may not have begun to look when the first answer is there.
  let saved = 0;
  await until(() => {
    if (saved++ % 50 === 0) writeFileSync(file, `${bad}// saved ${saved}\n`);
    return output().includes('Could not resolve "./not-there.ts"');
  });
  expect(output()).toContain("Not built, so what ran before goes on: functions/tasks/index.ts");
  expect((await fetch(`http://127.0.0.1:${port}/health/liveness`)).status).toBe(200);
  child.kill("SIGINT");
  expect(await ended).toMatchObject({ code: 0, stderr: "" });
});

test.each(["PORT", "DATA_API_PORT"])("a busy %s is one clear line", { timeout: SLOW_MS }, async (name) => {
  const other = createServer();
  await new Promise<void>((done) => other.listen(0, "127.0.0.1", done));
  const { port } = other.address() as { port: number };
  const free = name === "PORT" ? "DATA_API_PORT" : "PORT";
  const { code, stderr } = await startStack({
    [name]: String(port),
    [free]: String(await freePort()),
    STINT_DATA_DIR: join(folder, "unused"),
  }).ended;
  other.close();
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: `Port ${port} cannot be used (EADDRINUSE): set ${name} to another one.\n`,
  });
});

interface Process {
  readonly pid: number;
  readonly startedAt: string;
  readonly command: string;
}

/** By /proc, where there is one; elsewhere the test has nothing to look at. */
function descendants(pid: number): Process[] {
  const all = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), ...stat(Number(name)) }));
  const found: Process[] = [];
  const parents = [pid];
  for (const parent of parents) {
    for (const one of all.filter(({ parent: mine }) => mine === parent)) {
      parents.push(one.pid);
      found.push({ pid: one.pid, startedAt: one.startedAt, command: commandOf(one.pid) });
    }
  }
  return found;
}

function stat(pid: number): { state: string; parent: number; startedAt: string } {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return { state: fields[0]!, parent: Number(fields[1]), startedAt: fields[19]! };
  } catch {
    return { state: "X", parent: -1, startedAt: "" };
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}

/** A zombie has ended: whoever inherited it has not looked yet. */
function isRunning({ pid, startedAt }: Process): boolean {
  const now = stat(pid);
  return now.startedAt === startedAt && !["Z", "X"].includes(now.state);
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(100);
}
