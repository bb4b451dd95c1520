/** What a cold start reads. Built as serverless.yml says; source maps lie apart. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { root } from "./support/command.ts";

const yml = readFileSync(join(root, "serverless.yml"), "utf8");
const section = yml.slice(yml.indexOf("    exclude:"), yml.indexOf("    outputFileExtension:"));
const external = [...section.matchAll(/^\s+- "?([^"\s#]+)"?/gm)].map((match) => match[1]!);

test.each([
  ["processor", 520],
  ["health", 400],
  ["monitoring", 400],
  ["migrate", 400],
])("%s is at most %i KB", async (name, mostKb) => {
  const { outputFiles, metafile } = await build({
    entryPoints: [join(root, `functions/${name}.ts`)],
    bundle: true,
    minify: true,
    format: "esm",
    platform: "node",
    target: "node24",
    mainFields: ["module", "main"],
    sourcemap: true,
    external,
    write: false,
    metafile: true,
    outdir: root,
  });
  const code = outputFiles.find(({ path }) => path.endsWith(".js"))!;
  expect(outputFiles.map(({ path }) => path.endsWith(".map"))).toContain(true);
  expect(code.text).not.toContain("sourceMappingURL=data:");
  expect(Object.keys(metafile.inputs).filter((path) => /node_modules\/pg\//.test(path))).toEqual([]);
  expect(code.contents.byteLength).toBeLessThanOrEqual(mostKb * 1024);
});
