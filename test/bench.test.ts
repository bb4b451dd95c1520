/** A smoke test of the bench: it runs, and its own checks (each task once, history complete) hold. Never of speed. */
import { globSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { bench as requests } from "./bench/requests.ts";
import { bench as small } from "./bench/small.ts";
import { load, NAMES } from "./bench/support/figures.ts";

test("every module of the bench is in its list, loads, and says what it measures", async () => {
  const files = globSync("*.ts", { cwd: join(import.meta.dirname, "bench") }).filter((file) => file !== "run.ts");
  expect(files.map((file) => file.replace(/\.ts$/, "")).sort()).toEqual([...NAMES].sort());
  for (const name of NAMES) {
    const { bench, about } = await load(name);
    expect(bench).toBeTypeOf("function");
    expect(about.length).toBeGreaterThan(0);
  }
});

test("both sides of the bench run every task once, and the figures are there", { timeout: 60_000 }, async () => {
  const figures = await small({ quick: true });
  expect(Object.keys(figures)).toEqual(["ours", "graphile-worker", "ratio"]);
  for (const figure of Object.values(figures)) expect(figure).toBeGreaterThan(0);
});

test("a batch of 1,000 costs little more than one request, and an idle poll one", { timeout: 60_000 }, async () => {
  const figures = await requests({ quick: true });
  // 10 full batches, and the first, the last and empty looks: counts, so no clock is in them.
  expect(figures["requests per 1,000 tasks, batch 1000"]).toBeLessThanOrEqual(2);
  expect(figures["requests an idle poll"]).toBe(1);
});
