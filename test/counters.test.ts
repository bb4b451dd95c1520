import { expect, test } from "vitest";
import { BUCKET_BOUNDS_MS, Counters } from "../lib/counters.ts";

test("runs are counted by identifier, type and result, with the sum of their durations and the bucket of each", () => {
  const counters = new Counters();
  const run = { identifier: "greet", taskType: "standard", result: "success" } as const;
  for (const durationMs of [5, 5.1, 900_001]) counters.record({ ...run, durationMs });
  counters.record({ ...run, result: "failure", durationMs: -3 });
  counters.record({ ...run, taskType: "recurring", durationMs: Number.NaN });
  const [success, failure, recurring] = counters.toJSON();
  expect(success!.slice(0, 5)).toEqual(["greet", "standard", "success", 3, 900_011.1]);
  expect(success![5]).toEqual([1, 1, ...BUCKET_BOUNDS_MS.slice(2).map(() => 0), 1]);
  expect(failure!.slice(0, 5)).toEqual(["greet", "standard", "failure", 1, 0]);
  expect(recurring!.slice(0, 5)).toEqual(["greet", "recurring", "success", 1, 0]);
});

test("what was told does not change with what is counted later", () => {
  const counters = new Counters();
  const run = { identifier: "greet", taskType: "standard", result: "success", durationMs: 1 } as const;
  counters.record(run);
  const before = JSON.stringify(counters);
  const told = counters.toJSON();
  counters.record(run);
  expect(JSON.stringify(told)).toBe(before);
});
