import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Floors } from "../lib/floors.ts";
import type { ClaimedTask } from "../lib/messages.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
afterEach(() => void vi.useRealTimers());

const claimed = (id: number, more: Partial<ClaimedTask> = {}): ClaimedTask => ({
  id: String(id),
  identifier: "a",
  attempt: 1,
  used: 1,
  maxAttempts: 3,
  priority: 50,
  scheduledFor: "2026-11-24T12:00:00+00:00",
  suspect: false,
  occurrence: null,
  traceParent: null,
  payload: {},
  ...more,
});

/** Exchanges of these durations in milliseconds, with floors and without: how many of them looked at everything in so long a time. */
function fullScansOf(floors: Floors, overMs: number, ms: { floored: number; full: number }): number {
  let scans = 0;
  const endAt = performance.now() + overMs;
  for (let id = 1; performance.now() < endAt; id += 1) {
    const isFull = floors.forNext().length === 0;
    if (isFull) scans += 1;
    vi.advanceTimersByTime(isFull ? ms.full : ms.floored);
    floors.learn([claimed(id)]);
  }
  return scans;
}

test("a claim starts behind the last claimed of its identifier and priority; none where nothing came", () => {
  const floors = new Floors();
  expect(floors.forNext()).toEqual([]);
  floors.learn([claimed(1), claimed(2), claimed(9, { priority: 75, suspect: true }), claimed(3, { identifier: "b" })]);
  const due = "2026-11-24T12:00:00+00:00";
  expect(floors.forNext()).toEqual([
    { identifier: "a", priority: 50, due, id: "2" },
    { identifier: "b", priority: 50, due, id: "3" },
  ]);
  floors.learn([]);
  expect(floors.forNext()).toEqual([]);
});

test("looks at everything once a second while that is cheap, and for a twentieth of the time where it is dear", () => {
  expect(fullScansOf(new Floors(), 60_000, { floored: 10, full: 12 })).toBeGreaterThan(50);
  const dear = fullScansOf(new Floors(), 600_000, { floored: 10, full: 410 });
  expect((dear * 400) / 600_000).toBeLessThan(0.06);
  expect(dear).toBeGreaterThan(600_000 / 9000);
  expect(fullScansOf(new Floors(), 600_000, { floored: 10, full: 5000 })).toBeGreaterThan(600_000 / 22_000);
});
