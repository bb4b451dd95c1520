#!/usr/bin/env node
// The bin. Plain JavaScript: Node strips no types under node_modules, and an old Node strips none at all.
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

const inCheckout = existsSync(new URL("cli.ts", import.meta.url));

if (!inCheckout) await import(new URL("../dist/infra/cli.js", import.meta.url).href);
else if (stripsTypes()) await import(new URL("cli.ts", import.meta.url).href);
else runOnNewerNode();

function stripsTypes() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  return major > 22 || (major === 22 && minor >= 18);
}

/** npm has brought one with the checkout. */
function runOnNewerNode() {
  const node = fileURLToPath(new URL("../node_modules/.bin/node", import.meta.url));
  if (!existsSync(node) || realpathSync(node) === realpathSync(process.execPath)) {
    process.stderr.write(
      `stint: Node ${process.versions.node} is too old for a checkout: run npm ci here, or use Node 24.\n`,
    );
    process.exitCode = 1;
    return;
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}
