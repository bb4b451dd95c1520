/** What the overview's first lines say of the numbers. */
import { expect, test } from "vitest";
import { overview } from "../lib/dashboard/overview.ts";
import type { Showing } from "../lib/dashboard/page.ts";
import type { IdentifierStats, RecurringStats, SlotStats, Stats } from "../lib/stats-schema.ts";

const none = { count: 0, estimated: false };
const noRuns = { succeeded: 0, failed: 0, estimated: false, p50Ms: null, p95Ms: null, p99Ms: null };
const counts = {
  waiting: none,
  running: none,
  scheduled: none,
  retrying: none,
  failed: none,
  oldestWaitingMs: null,
  hour: noRuns,
  day: noRuns,
};
const kind = (identifier: string, more: Partial<IdentifierStats> = {}): IdentifierStats => ({
  identifier,
  known: true,
  paused: false,
  ...counts,
  ...more,
});
const seat = (slot: number, state: SlotStats["state"]): SlotStats => ({
  database: 0,
  slot,
  epoch: 1,
  holder: null,
  release: null,
  startedAt: null,
  lastSeenAt: null,
  seenAgoMs: 5000,
  state,
  healthy: state === "working" || state === "left",
  held: 0,
  succeeded: 0,
  failed: 0,
});
const of = (waiting: number, oldestWaitingMs: number) => ({
  waiting: { count: waiting, estimated: false },
  oldestWaitingMs,
});
const ran = (succeeded: number, failed: number, estimated = false) => ({
  hour: { ...noRuns, succeeded, failed, estimated },
});
const showing: Showing = { at: "", mayAct: true, actingPossible: true, database: undefined, databases: 1 };
const HOUR_MS = 3_600_000;

const quiet: Stats = {
  at: "2030-01-01T00:00:00.000Z",
  identifiers: [],
  truncated: false,
  totals: counts,
  throughput: [],
  slots: [seat(0, "working")],
  recurring: [],
  unknownIdentifiers: [],
  paused: [],
};

/** Its kind, its head and its points, as text. */
function read(more: Partial<Stats>, shown: Partial<Showing> = {}): { kind: string; text: string } {
  const stats: Stats = { ...quiet, ...more };
  const [, found, inside] = /<section class="verdict (\w+)"[^>]*>(.*?)<\/section>/s.exec(
    overview(stats, { ...showing, ...shown }).text,
  )!;
  return {
    kind: found!,
    text: inside!
      .replaceAll(/<[^>]*>/g, " ")
      .replaceAll("&#39;", "'")
      .replaceAll(/\s+/g, " "),
  };
}

test.each<[string, Partial<Stats>, string, RegExp]>([
  ["nothing", {}, "good", /All quiet. Nothing waits/],
  ["work at hand", { totals: { ...counts, ...of(7, 900) } }, "good", /Working. 7 waiting, the oldest for 900 ms/],
  ["a slot is stuck", { slots: [seat(0, "working"), seat(3, "stuck")] }, "bad", /Stuck: slot 3\. .* log has the cause/],
  ["a slot is late", { slots: [seat(0, "working"), seat(2, "late")] }, "fair", /Late: slot 2\. .* schedule is on/],
  ["nobody works", { slots: [seat(0, "stuck"), seat(1, "late")] }, "bad", /Nobody is working/],
  ["nobody ever came", { slots: [], totals: { ...counts, ...of(4, 900) } }, "bad", /Nobody has ever worked here/],
  ["old ones", { identifiers: [kind("a", of(3, HOUR_MS))] }, "bad", /waited 1 h , among 3 of a \. .* more slots/],
  ["old, but paused", { identifiers: [kind("a", { ...of(3, HOUR_MS), paused: true })] }, "good", /All quiet/],
  ["old, but unknown", { identifiers: [kind("a", { ...of(3, HOUR_MS), known: false })] }, "good", /All quiet/],
  ["some fail", { identifiers: [kind("a", ran(80, 20)), kind("b", ran(99, 1))] }, "fair", /: 20 % of a \. Their/],
  ["most fail", { identifiers: [kind("a", ran(1, 9))] }, "bad", /: 90 % of a \. Their errors say why/],
  ["an estimate, barely", { identifiers: [kind("a", ran(88, 12, true))] }, "good", /All quiet/],
  ["an estimate, clearly", { identifiers: [kind("a", ran(80, 20, true))] }, "fair", /: ~ 20 % of a \. Their/],
  ["an estimate, more than half", { identifiers: [kind("a", ran(40, 60, true))] }, "fair", /: ~ 60 % of a \./],
  ["an estimate, nearly all", { identifiers: [kind("a", ran(10, 90, true))] }, "bad", /: ~ 90 % of a \./],
  ["too few ran to tell", { identifiers: [kind("a", ran(0, 4))] }, "good", /All quiet/],
  ["all is paused", { paused: ["*"] }, "bad", /Everything is paused .* Resume everything/],
  ["one is paused", { paused: ["a"] }, "fair", /Paused by an operator: a \./],
  ["one is unknown", { unknownIdentifiers: ["old.one"] }, "fair", /1 identifier .*old\.one \. .* deploy it/],
  ["a schedule is off", { recurring: [{ enabled: false } as RecurringStats] }, "fair", /1 schedule disabled/],
])("%s", (_, stats, expected, text) => {
  const found = read(stats);
  expect(found.text).toMatch(text);
  expect(found.kind).toBe(expected);
});

test("what needs somebody stands first, and no more than three are named", () => {
  const identifiers = ["a", "b", "c", "d", "e"].map((name) => kind(name, ran(80, 20)));
  const { text } = read({ identifiers, slots: [seat(0, "working"), seat(1, "late"), seat(2, "stuck")] });
  expect(text).toMatch(/needs you\. Stuck: .* Late: /);
  expect(text).toMatch(/20 % of a , 20 % of b , 20 % of c and 2 more\./);
});

test("failures are counted as the chart of the last hour counts them", () => {
  const minute = { minute: "2030-01-01T00:00:00.000Z", succeeded: 40, failed: 10, estimated: false };
  const identifiers = [kind("a", ran(79, 21))];
  expect(read({ identifiers, throughput: [minute, minute] }).text).toContain("20 of the last hour's 100 runs failed");
});

test("an estimate is marked as one wherever it stands", () => {
  const minute = { minute: "2030-01-01T00:00:00.000Z", succeeded: 123_456, failed: 16, estimated: true };
  const hour = { ...minute, p50Ms: 1, p95Ms: 2, p99Ms: 3 };
  const stats: Stats = { ...quiet, identifiers: [kind("a", { hour, day: hour })], throughput: [minute] };
  const page = overview(stats, showing).text.replaceAll(/<\/?(small|em|b)>/g, "");
  expect(page).toContain("~ 120,000 runs in 60 minutes");
  expect(page).toContain("~ 120,000 in all, ~ 16 of them failed, ~ 120,000 in the busiest minute");
  expect(page).toContain("00:00 ~ 123,456 ok, ~ 16 failed");
  expect(page).toContain("~ 120,000 runs</th>");
  expect(page.match(/~ 120,000<\/td>/g)).toHaveLength(2);
});

test("with two databases a slot is told with its database", () => {
  const slots = [seat(0, "working"), { ...seat(0, "stuck"), database: 1 }];
  expect(read({ slots }, { databases: 2 }).text).toContain("slot 0 of database 1");
});
