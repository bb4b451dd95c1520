/** A book that cannot fail proves nothing: each is shown a breach, forged. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { accountFor, type Books } from "./accounts.ts";
import { overlaps, type Run, runsAgainstLogs } from "./invariants.ts";
import { type Execution, readLogs } from "./logs.ts";
import { tooManyConnections } from "./play.ts";
import { Counts } from "./report.ts";

const folder = mkdtempSync(join(tmpdir(), "stint-books-"));
afterAll(() => rmSync(folder, { recursive: true }));

const run = (task: string, startedAt: number, believedAt: number, serial?: string): Execution => ({
  file: `process ${startedAt}`,
  task,
  identifier: "chaos.slow",
  attempt: startedAt,
  token: "t",
  serial,
  startedAt,
  believedAt,
  ended: true,
});

test("1: two runs that believe at the same moment, of one task or of one serial key", () => {
  expect(overlaps([run("1", 0, 10), run("1", 11, 20), run("2", 5, 15)])).toEqual([]);
  expect(overlaps([run("1", 0, 10), run("1", 9, 20)])).toMatchObject([{ invariant: 1, task: "1" }]);
  expect(overlaps([run("1", 0, 30), run("1", 5, 6), run("1", 20, 21)])).toHaveLength(2);
  expect(overlaps([run("1", 0, 10, "s"), run("2", 9, 20, "s")])).toMatchObject([{ invariant: 1, task: "2" }]);
});

test("2: an attempt started twice, a result without an end, what was returned lost or made up, a failure that nobody ran", () => {
  const recorded = (task: string, attempt: number, more: Partial<Run> = {}): Run => ({
    task,
    identifier: "chaos.quick",
    attempt,
    result: "SUCCESS",
    error: null,
    token: null,
    ...more,
  });
  const found = (runs: readonly Run[], executions: readonly Execution[], cancelled: readonly string[] = []): string[] =>
    runsAgainstLogs(runs, executions, new Set(cancelled)).map(({ invariant, what }) => `${invariant} ${what}`);
  const failed = { result: "FAILURE", error: "abandoned. Its invocation was lost." };
  const stopped = { result: "FAILURE", error: "StintError: The task was cancelled by an operator." };
  expect(
    found(
      [recorded("2", 1), recorded("3", 1, { token: "t" }), recorded("3", 2, failed), recorded("4", 1, stopped)],
      [run("2", 1, 1), run("3", 1, 1)],
      ["4"],
    ),
  ).toEqual([]);
  expect(found([], [run("2", 1, 1), run("2", 1, 1)])).toEqual(["2 attempt 1 was started twice"]);
  expect(found([recorded("2", 1)], [])).toEqual(["2 attempt 1 succeeded without an end"]);
  expect(found([recorded("2", 1)], [{ ...run("2", 1, 1), ended: false }])).toHaveLength(1);
  expect(found([recorded("3", 1)], [run("3", 1, 1)])).toEqual(["2 attempt 1 returned t, and null is kept"]);
  expect(found([recorded("2", 1, { token: "t" })], [run("2", 1, 1)])).toHaveLength(1);
  expect(found([recorded("2", 1, { ...failed, error: "Error" })], [])).toEqual(["2 attempt 1 failed without a start"]);
  expect(found([recorded("4", 1, stopped)], [])).toHaveLength(1);
  expect(found([recorded("4", 1, stopped)], [], ["chaos.quick"])).toEqual([]);
});

test("8: what is lost, made up, there twice, there though it was deleted, gone though nobody asked", () => {
  const stored = { id: "1", state: "SUCCEEDED", token: "a", last: null } as const;
  const intent = { token: "a", fate: "stored", id: "1" } as const;
  const books: Books = {
    stored: [stored],
    intents: new Map([["a", intent]]),
    executions: [{ task: "1", token: "a" }],
    deletions: new Map(),
    aged: new Set(),
    counted: 0,
  };
  const see = (change: Partial<Books>): [lost: number, found: string[]] => {
    const { lost, found } = accountFor({ ...books, ...change });
    expect(found.every(({ invariant }) => invariant === 8)).toBe(true);
    return [lost, found.map(({ what }) => what.replace(/:.*/, ""))];
  };
  const gone = { stored: [{ ...stored, state: null }], counted: 1 };
  const nowhere = "a task was stored, and is nowhere";
  const told = "a task was told to be stored and is not";
  expect(see({})).toEqual([0, []]);
  expect(see({ stored: [] })).toEqual([1, ["a task ran that is not in the database", told]]);
  expect(see({ stored: [], executions: [] })).toEqual([1, [told]]);
  expect(see({ ...gone, counted: 0, executions: [] })).toEqual([1, [nowhere, told]]);
  expect(
    see({ ...gone, counted: 0, executions: [], intents: new Map([["a", { token: "a", fate: "unknown" }]]) }),
  ).toEqual([1, [nowhere]]);
  expect(
    see({ stored: [], executions: [], intents: new Map([["a", { token: "a", fate: "shares_key", id: "1" }]]) }),
  ).toEqual([1, ["a keyed task was told to be stored and is not"]]);
  expect(see({ ...gone, deletions: new Map([["1", "unsure"]]) })).toEqual([0, []]);
  expect(see({ ...gone, aged: new Set(["1"]) })).toEqual([0, []]);
  expect(see({ ...gone, aged: new Set(["1"]), counted: 0 })).toEqual([
    0,
    ["1 tasks are gone, 0 of them lost; its own counters say"],
  ]);
  expect(see({ deletions: new Map([["1", "gone"]]) })).toEqual([
    0,
    ["a task was told to be deleted, and is SUCCEEDED"],
  ]);
  expect(see({ stored: [stored, { ...stored, state: "FAILED" }] })).toEqual([
    0,
    ["a task is both succeeded and FAILED"],
  ]);
  expect(see({ stored: [stored, { ...stored, id: "2" }] })).toEqual([0, ["stored 2 times"]]);
  expect(see({ intents: new Map([["a", { token: "a", fate: "not_stored" }]]) })).toEqual([
    0,
    ["rolled back, and there"],
  ]);
  expect(see({ intents: new Map() })).toEqual([0, ["nobody's"]]);
  expect(see({ executions: [{ task: "1", token: "b" }] })).toEqual([0, ["nobody's"]]);
});

test("11: one that leaves in order and has neither started nor given back what it was told", () => {
  const found = (...lines: object[]): string[] => {
    writeFileSync(join(folder, "invocation-1.log"), lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    return readLogs({ folder }, new Counts()).broken.map(({ invariant, what }) => `${invariant} ${what}`);
  };
  const told = { message: "told", tasks: [["7", 1]] };
  const left = { message: "left", left: "superseded" };
  expect(found(told, { message: "start", task: "7", attempt: 1 }, left)).toEqual([]);
  expect(found(told, { message: "gave back", tasks: [["7", 1]] }, left)).toEqual([]);
  // The database has taken them from it.
  expect(found(told, { message: "left", left: "lease_lost" })).toEqual([]);
  expect(found(told)).toEqual([]);
  expect(found(told, { message: "start", task: "7", attempt: 2 }, left)).toEqual([
    "11 7 1 was told, and neither started nor given back",
  ]);
});

test("more connections than slots allow", () => {
  const seen = (all: number, ofOne: number): unknown[] => {
    const counts = new Counts();
    counts.most("pg_connections_max", all);
    counts.most("pg_connections_of_one_max", ofOne);
    return tooManyConnections(counts, 5);
  };
  expect(seen(10, 3)).toEqual([]);
  expect(seen(11, 3)).toMatchObject([{ invariant: "connections" }]);
  expect(seen(10, 4)).toMatchObject([{ invariant: "connections" }]);
});
