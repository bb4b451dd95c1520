import { type ChildProcessByStdio, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";

type Demo = ChildProcessByStdio<null, Readable, Readable>;

const started: Demo[] = [];

afterEach(() => {
  for (const demo of started.splice(0)) demo.kill("SIGKILL");
});

function startDemo(): { demo: Demo; output: () => string } {
  const demo = spawn(process.execPath, ["infra/local/demo.ts"], {
    stdio: ["ignore", "pipe", "pipe"],
    // Never touched: nothing answers there. Nor does a profile of the caller's matter.
    env: { ...process.env, DATABASE_URL: "postgres://nobody@127.0.0.1:1/none", AWS_PROFILE: "no-such-profile" },
  });
  started.push(demo);
  let text = "";
  for (const stream of [demo.stdout, demo.stderr]) stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
  return { demo, output: () => text };
}

async function runDemo(): Promise<{ output: string; result: Record<string, number> }> {
  const { demo, output } = startDemo();
  const [code] = await once(demo, "close");
  expect(code, output()).toBe(0);
  return { output: output(), result: JSON.parse(output().trimEnd().split("\n").at(-1)!) };
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly command: string;
}

/** A zombie has ended; whether it is reaped is not the demo's affair. */
function processes(): Process[] {
  const lines = execFileSync("ps", ["-eo", "pid=,ppid=,stat=,args="], { encoding: "utf8" }).trim().split("\n");
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , state]) => !state!.startsWith("Z"))
    .map(([pid, parent, , ...words]) => ({ pid: Number(pid), parent: Number(parent), command: words.join(" ") }));
}

function descendantsOf(pid: number, all = processes()): Process[] {
  const children = all.filter(({ parent }) => parent === pid);
  return children.flatMap((child) => [child, ...descendantsOf(child.pid, all)]);
}

test("the demo finishes every task, loses none, and says so in its last line", { timeout: 180_000 }, async () => {
  const { output, result } = await runDemo();
  expect(Object.keys(result)).toEqual(["enqueued", "succeeded", "failed", "retried", "waiting", "lost", "durationMs"]);
  expect(result).toMatchObject({ waiting: 0, lost: 0 });
  expect(result.enqueued).toBe(result.succeeded! + result.failed!);
  expect(result.enqueued).toBeGreaterThanOrEqual(1000);
  expect(result.failed).toBeGreaterThanOrEqual(2);
  expect(result.retried).toBeGreaterThan(0);
  // A line of progress, the table, and the order's side of it.
  expect(output).toMatch(/ s {2}enqueued +[\d,]+ {2}succeeded/);
  const row = (kind: string): number[] =>
    new RegExp(`^${kind} ([ \\d,]+)`, "m")
      .exec(output)![1]!
      .trim()
      .split(/ +/)
      .map((text) => Number(text.replace(",", "")));
  const [flaky, oldKey, silent, reminders, usage] = [
    "webhooks.flaky",
    "webhooks.old_key",
    "webhooks.silent",
    "reminders.send",
    "usage.report",
  ].map(row);
  expect(flaky).toEqual([60, 60, 0, 60, 180]);
  expect(oldKey).toEqual([20, 0, 20, 20, 60]);
  expect(silent).toEqual([10, 0, 10, 10, 20]);
  expect(reminders!.slice(0, 3)).toEqual([40, 40, 0]);
  expect(usage![0]).toBeGreaterThan(0);
  expect(output).toContain("40 paid and 20 rolled back; stored: 40, and 0 webhooks of the others");
});

test("a demo killed in the middle leaves no process behind, and the next one passes", {
  timeout: 180_000,
}, async () => {
  const { demo, output } = startDemo();
  while (!/succeeded +[1-9]/.test(output())) {
    expect(demo.exitCode, output()).toBeNull();
    await sleep(20);
  }
  const family = descendantsOf(demo.pid!);
  expect(family.filter(({ command }) => command.includes("invocation.ts")).length, output()).toBeGreaterThan(0);
  demo.kill("SIGKILL");
  await once(demo, "exit");

  const pids = new Set(family.map(({ pid }) => pid));
  let left = family;
  // Postgres writes its checkpoint first.
  for (let looks = 0; left.length > 0 && looks < 300; looks += 1) {
    await sleep(100);
    left = processes().filter(
      ({ pid, command }) => pids.has(pid) && family.some((one) => one.pid === pid && one.command === command),
    );
  }
  expect(left).toEqual([]);

  const { result } = await runDemo();
  expect(result).toMatchObject({ waiting: 0, lost: 0 });
});
