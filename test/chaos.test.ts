import { describe, expect, test } from "vitest";
import { play } from "./chaos/play.ts";

/** Each of these comes in a fifth of a minute, whatever the seed. What does not: a wake that is lost, a process that meets its time limit. */
const CERTAIN = [
  ...["connections_cut", "disk_full", "failover", "immediate_restart", "old_snapshot", "one_connection_cut"].map(
    (name) => `database.${name}`,
  ),
  "database.statement_cancelled",
  ...["commitThenDrop", "commitThenError", "dropBefore", "latencyMs", "partition", "resumingForMs", "serverError"].map(
    (name) => `data_api.${name}`,
  ),
  ...["data_api.statementTimeout", "data_api.throttle"],
  ...["blocks", "blocks_for_ever", "cancels_itself", "eats_memory", "exits", "kills_its_process", "leaves_promise"].map(
    (name) => `handler.${name}`,
  ),
  ...["never_settles", "outstays_grace", "throws", "throws_no_error"].map((name) => `handler.${name}`),
  ...["cancel", "clean_up_failed", "clean_up_runs", "delete", "retry"].map((name) => `operator.${name}`),
  ...["kill.any_moment", "tick.duplicate", "tick.late", "tick.lost", "wakes"],
];

/** A run in which nothing happened proves nothing. */
function expectFire({ faults, kills, measured }: Awaited<ReturnType<typeof play>>): void {
  expect(CERTAIN.filter((name) => !((faults[name] ?? 0) > 0))).toEqual([]);
  expect(Object.keys(faults)).toContainEqual(expect.stringMatching(/^freeze\./));
  expect(kills).toBeGreaterThan(5);
  for (const name of ["returned_nothing", "returned_something", "holds_seen"])
    expect(measured[name], name).toBeGreaterThan(50);
  expect(measured.occurrences).toBeGreaterThan(3);
}

describe("under every fault", () => {
  test.each([
    20261124,
    20261127,
    Math.floor(Math.random() * 2 ** 31),
  ])("nothing is lost and no invariant is broken: seed %i", async (seed) => {
    const told: string[] = [];
    const outcome = await play({
      seed,
      tasks: 2100,
      minutes: 0.35,
      slots: 5,
      everyMs: 2000,
      write: (line) => void told.push(line),
    });
    const { broken, lost, invariants, states } = outcome;
    expect(broken, told.join("\n")).toEqual([]);
    expect(lost).toBe(0);
    expect(Object.values(invariants)).toEqual(Array.from({ length: 13 }, () => 0));
    expectFire(outcome);
    expect(states.succeeded).toBeGreaterThan(500);
    expect(states.deleted).toBeGreaterThan(0);
    expect(states.purged).toBeGreaterThan(0);
  }, 300_000);
});

test("nothing is lost while the schema is migrated and two releases work side by side", async () => {
  const told: string[] = [];
  const { broken, lost, faults, states } = await play({
    seed: 20261125,
    tasks: 900,
    minutes: 0.25,
    slots: 5,
    everyMs: 2000,
    upgradeFrom: "0.1.0",
    write: (line) => void told.push(line),
  });
  expect(broken, told.join("\n")).toEqual([]);
  expect(lost).toBe(0);
  expect(faults).toMatchObject({ "upgrade.migrated": 1 });
  const before = faults["invocations.release_before"]!;
  expect(before).toBeGreaterThan(5);
  expect(faults.invocations! - before).toBeGreaterThan(5);
  // Those that only this release knows among them: the run ends when nothing is unfinished.
  expect(states.succeeded).toBeGreaterThan(100);
}, 300_000);

test("all at once and no fault: everything is run, by invocations of which none fails", async () => {
  const told: string[] = [];
  const { broken, lost, faults, states, measured } = await play({
    seed: 20261126,
    tasks: 3000,
    minutes: 0,
    slots: 4,
    everyMs: 4000,
    graceMs: 15_000,
    queuePopSize: 100,
    write: (line) => void told.push(line),
  });
  expect(broken, told.join("\n")).toEqual([]);
  expect(lost).toBe(0);
  expect(states.succeeded).toBeGreaterThan(2000);
  const names = [...Object.keys(faults), ...Object.keys(measured)];
  expect(
    names.filter((name) => /^(kill\.any|freeze|database\.|data_api\.|left\.refused|ended\.code_3)/.test(name)),
  ).toEqual([]);
}, 300_000);
