/** A smoke test of the bench: it runs, and its own checks (each task once, history complete) hold. Never of speed. */
import { expect, test } from "vitest";
import { bench as requests } from "./bench/requests.ts";
import { bench as small } from "./bench/small.ts";

test("both sides of the bench run every task once, and the figures are there", { timeout: 60_000 }, async () => {
  const figures = await small({ quick: true });
  expect(Object.keys(figures)).toEqual(["ours", "graphile-worker", "ratio"]);
  for (const figure of Object.values(figures)) expect(figure).toBeGreaterThan(0);
});

test("a batch of 1,000 costs little more than one request, also in a short drain", { timeout: 60_000 }, async () => {
  // 10 full batches, and the first, the last and empty looks: a count, so no clock is in it.
  expect((await requests({ quick: true }))["requests per 1,000 tasks, batch 1000"]).toBeLessThanOrEqual(2);
});
