/** Releases of before, as the upgrade run needs them: `node test/chaos/release.ts NAME REF` keeps a commit's lib/ in test/fixtures/releases. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { brotliCompressSync, brotliDecompressSync } from "node:zlib";

const root = join(import.meta.dirname, "../..");
const fileOf = (name: string): string => join(root, "test/fixtures/releases", `${name}.json.br`);

function packRelease(name: string, ref: string): void {
  const git = (...args: string[]): string =>
    execFileSync("git", args, { cwd: root, encoding: "utf8", maxBuffer: 2 ** 27 });
  const paths = git("ls-tree", "-r", "--name-only", ref, "lib").trim().split("\n");
  const files = Object.fromEntries(paths.map((path) => [path, git("show", `${ref}:${path}`)]));
  mkdirSync(dirname(fileOf(name)), { recursive: true });
  writeFileSync(fileOf(name), brotliCompressSync(JSON.stringify(files)));
}

/** Writes the release's lib/ below `folder`. */
export function unpackRelease(name: string, folder: string): void {
  const files = JSON.parse(brotliDecompressSync(readFileSync(fileOf(name))).toString()) as Record<string, string>;
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
}

if (process.argv[1] === import.meta.filename) packRelease(process.argv[2]!, process.argv[3]!);
