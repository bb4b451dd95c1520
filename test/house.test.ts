import { globSync, readFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "..");
const read = (file: string): string => readFileSync(resolve(root, file), "utf8");
const files = (pattern: string): string[] =>
  globSync(pattern, { cwd: root }).filter((file) => !file.includes("node_modules"));

/** What a file imports from this checkout, static or not. */
const importsOf = (file: string): string[] =>
  [...read(file).matchAll(/(?:from|import)\s*\(?\s*"(\.{1,2}\/[^"]+)"/g)].map(([, path]) =>
    relative(root, resolve(root, dirname(file), path!)),
  );

/** Types vanish in the bundle. */
const withoutTypes = (file: string): string => read(file).replaceAll(/import type [\s\S]*?;/g, "");

/** What is loaded at once with these files, themselves among it. */
function loadedWith(...entries: readonly string[]): string[] {
  const seen = new Set<string>();
  const walk = (file: string): void => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const [, path] of withoutTypes(file).matchAll(/from\s*"(\.{1,2}\/[^"]+)"/g))
      walk(relative(root, resolve(root, dirname(file), path!)));
  };
  for (const entry of entries) walk(entry);
  return [...seen];
}

describe("imports point one way", () => {
  test("lib imports nothing of functions or infra", () => {
    const wrong = files("lib/**/*.ts").flatMap((file) =>
      importsOf(file)
        .filter((path) => !path.startsWith("lib/"))
        .map((path) => `${file} -> ${path}`),
    );
    expect(wrong).toEqual([]);
  });

  test("functions import lib and themselves", () => {
    const wrong = files("functions/**/*.ts").flatMap((file) =>
      importsOf(file)
        .filter((path) => !/^(lib|functions)\//.test(path))
        .map((path) => `${file} -> ${path}`),
    );
    expect(wrong).toEqual([]);
  });

  test("infra imports no tests", () => {
    const wrong = files("infra/**/*.ts").flatMap((file) => importsOf(file).filter((path) => path.startsWith("test/")));
    expect(wrong).toEqual([]);
  });

  test("statements and adapters know the port, and nothing above them", () => {
    const allowed = /^lib\/(database|sql)\/|^lib\/errors\.ts$/;
    const wrong = files("lib/{database,sql}/**/*.ts").flatMap((file) =>
      importsOf(file)
        .filter((path) => !allowed.test(path))
        .map((path) => `${file} -> ${path}`),
    );
    expect(wrong).toEqual([]);
  });

  test("a task's definition pulls in no handler, worker or adapter", () => {
    const loaded = loadedWith("lib/task.ts", "lib/enqueue.ts");
    expect(
      loaded.filter((file) => /worker|drain|attempt|lease|adapter|database\/(pg|data-api)|^functions/.test(file)),
    ).toEqual([]);
  });

  test("a processor starts without a reader of cron, tracing and the clients of AWS", () => {
    const loaded = loadedWith("lib/processor.ts");
    expect(loaded).toContain("lib/trace.ts");
    expect(loaded.filter((file) => /from "(croner|@opentelemetry|@aws)/.test(withoutTypes(file)))).toEqual([]);
  });
});

test("the environment is read in lib/config.ts, and by the example application in its own settings", () => {
  const readers = files("{lib,functions}/**/*.ts").filter((file) =>
    /process\.env|\benv\b.*"node:process"/.test(read(file)),
  );
  expect(readers.sort()).toEqual(["functions/tasks/settings.ts", "lib/config.ts"]);
});

test("files stay small", () => {
  const long = files("{lib,functions,infra}/**/*.ts").filter(
    (file) => !file.endsWith("inlined.ts") && read(file).split("\n").length > 300,
  );
  expect(long).toEqual([]);
});

test("functions are wiring: 30 lines at the most", () => {
  expect(files("functions/*.ts").filter((file) => read(file).split("\n").length > 31)).toEqual([]);
});
