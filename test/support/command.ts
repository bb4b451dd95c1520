import { chmodSync, mkdtempSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const root = resolve(import.meta.dirname, "../..");
export const serverlessBin = createRequire(import.meta.url).resolve("serverless/bin/serverless.js");

/** Where Postgres's own user gets to as well. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "stint-test-"));
  chmodSync(folder, 0o755);
  return folder;
}
