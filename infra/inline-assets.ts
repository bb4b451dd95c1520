/** Writes lib/dashboard/assets/inlined.ts from the files beside it: bundlers lose files. `npm run assets`. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { type Loader, transformSync } from "esbuild";

const folder = new URL("../lib/dashboard/assets/", import.meta.url);
const TYPES: Readonly<Record<string, string>> = {
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  svg: "image/svg+xml",
};

const kind = (name: string): Loader => (name.endsWith("css") ? "css" : "js");

/** The module's text, for the files as they are now. */
export function inlinedAssets(): string {
  const assets = readdirSync(folder)
    .filter((name) => Object.hasOwn(TYPES, name.split(".").at(-1)!))
    .sort()
    .map((name) => {
      const text = readFileSync(new URL(name, folder), "utf8");
      const body = name.endsWith("svg") ? text : transformSync(text, { loader: kind(name), minify: true }).code;
      const hash = createHash("sha256").update(body).digest("hex").slice(0, 12);
      return { name, hash, type: TYPES[name.split(".").at(-1)!], body };
    });
  return [
    "// Made by `npm run assets` from the files beside it. A test holds the two equal.",
    "export interface Asset {\n  readonly name: string;\n  readonly hash: string;\n  readonly type: string;\n  readonly body: string;\n}",
    "",
    `export const assets: readonly Asset[] = ${JSON.stringify(assets, null, 2)};`,
    "",
  ].join("\n");
}

if (import.meta.main) writeFileSync(new URL("inlined.ts", folder), inlinedAssets());
