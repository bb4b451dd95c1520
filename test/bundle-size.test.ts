/** What a cold start reads. Built as serverless.yml says; source maps and what is loaded later lie apart. */
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { type BuildOptions, build } from "esbuild";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { root } from "./support/command.ts";

const { exclude, outputFileExtension, plugins, skipRebuild, watch, ...settings } = parse(
  readFileSync(join(root, "serverless.yml"), "utf8"),
).custom.esbuild;
const options = settings as BuildOptions;

test.each([
  ["processor", 300],
  ["health", 230],
  ["monitoring", 400],
  ["migrate", 340],
])("%s is at most %i KB", async (name, mostKb) => {
  const { outputFiles, metafile } = await build({
    ...options,
    entryPoints: [`functions/${name}.ts`],
    absWorkingDir: root,
    external: exclude,
    write: false,
    metafile: true,
    outdir: root,
  });
  const output = (entryPoint: string) =>
    Object.keys(metafile.outputs).find((path) => metafile.outputs[path]!.entryPoint === entryPoint)!;
  const read = new Set<string>();
  const readWith = (path: string): void => {
    read.add(path);
    for (const { path: next, kind, external } of metafile.outputs[path]!.imports)
      if (kind === "import-statement" && !external && !read.has(next)) readWith(next);
  };
  readWith(output(`functions/${name}.ts`));
  readWith(output("lib/database/data-api.ts"));
  const code = outputFiles.filter(({ path }) => read.has(relative(root, path)));
  expect(code).toHaveLength(read.size);
  expect(code.filter(({ text }) => text.includes("sourceMappingURL=data:"))).toEqual([]);
  for (const { path } of code) expect(outputFiles.map((file) => file.path)).toContain(`${path}.map`);
  expect(Object.keys(metafile.inputs).filter((path) => /node_modules\/pg\//.test(path))).toEqual([]);
  const bytes = code.reduce((total, { contents }) => total + contents.byteLength, 0);
  expect(bytes).toBeLessThanOrEqual(mostKb * 1024);
});
