/** What a person woken by an alarm wants to read first: what is wrong, where, and what to do. Only what the numbers bear out. */
import type { IdentifierStats, Stats } from "../stats-schema.ts";
import { count, duration, plural, runs, whole } from "./format.ts";
import { type Html, href, html } from "./html.ts";
import { button, type Showing, VIEW } from "./page.ts";

const OLD_MS = 5 * 60_000;
/** Of the last hour's runs: worth a remark, and worth being woken. */
const SOME_FAIL = 0.1;
const MOST_FAIL = 0.5;
/** An estimate is believed as far as it would also bear half as many runs again. */
const DOUBT = 1.5;
/** Fewer runs say nothing of a share. */
const FEWEST_RUNS = 5;
const MOST_NAMED = 3;

interface Point {
  readonly bad: boolean;
  readonly text: Html;
}
type Say = (bad: boolean, text: Html) => void;

export function verdict(stats: Stats, showing: Showing): Html {
  const points: Point[] = [];
  const say: Say = (bad, text) => void points.push({ bad, text });
  ofSlots(stats, showing, say);
  ofAge(stats, showing, say);
  ofFailures(stats, showing, say);
  ofWhatRests(stats, showing, say);
  points.sort((a, b) => Number(b.bad) - Number(a.bad));
  const kind = points.some((one) => one.bad) ? "bad" : points.length > 0 ? "fair" : "good";
  return html`<section class="verdict ${kind}" aria-label="Summary"><p class="say">${HEADS[kind](stats)}</p>
${points.length > 0 && html`<ul>${points.map((one) => html`<li class="${one.bad ? "bad" : "fair"}">${one.text}</li>`)}</ul>`}</section>`;
}

const HEADS = {
  bad: () => "Something needs you.",
  fair: () => "Running, with remarks.",
  good: ({ totals: { waiting, oldestWaitingMs } }: Stats) =>
    waiting.count === 0
      ? "All quiet. Nothing waits."
      : `Working. ${count(waiting)} waiting, the oldest for ${duration(oldestWaitingMs)}.`,
};

function ofSlots({ slots, totals }: Stats, { databases }: Showing, say: Say): void {
  const named = (state: "stuck" | "late"): string =>
    slots
      .filter((one) => one.state === state)
      .map((one) => (databases > 1 ? `${one.slot} of database ${one.database}` : one.slot))
      .join(", ");
  const [stuck, late] = [named("stuck"), named("late")];
  if (slots.length === 0) {
    if (totals.waiting.count === 0) return;
    say(
      true,
      html`<strong>Nobody has ever worked here.</strong> ${plural(totals.waiting.count, "task")} waiting: start a processor, or deploy its schedules.`,
    );
  } else if (slots.every((one) => !one.healthy)) {
    say(
      true,
      html`<strong>Nobody is working.</strong> No slot is healthy: tasks are stored, and wait. See whether its schedules or containers run, and what the processor's log says.`,
    );
  } else {
    if (stuck !== "")
      say(
        true,
        html`<strong>Stuck: slot ${stuck}.</strong> What it held is claimed by the others. The next tick takes the seat; if it stays so, the processor's log has the cause.`,
      );
    if (late !== "")
      say(
        false,
        html`<strong>Late: slot ${late}.</strong> No tick came within two minutes: see whether its schedule is on.`,
      );
  }
}

/** What waits for an operator or for a release is told apart, and is no sign of too few slots. */
function ofAge({ identifiers }: Stats, { database }: Showing, say: Say): void {
  const old = identifiers
    .filter((one) => one.known && !one.paused && (one.oldestWaitingMs ?? 0) > OLD_MS)
    .sort((a, b) => b.oldestWaitingMs! - a.oldestWaitingMs!);
  if (old.length === 0) return;
  say(
    true,
    html`<strong>The oldest task has waited ${duration(old[0]!.oldestWaitingMs)}</strong>, among ${links(old, "waiting", database, (one) => `${count(one.waiting)} of`)}. More comes than is done: look at durations and failures below, or give it more slots.`,
  );
}

function ofFailures({ identifiers, throughput }: Stats, { database }: Showing, say: Say): void {
  const ran = ({ hour }: IdentifierStats): number => hour.succeeded + hour.failed;
  const share = (one: IdentifierStats): number => one.hour.failed / Math.max(1, ran(one));
  const surely = (one: IdentifierStats): number => share(one) / (one.hour.estimated ? DOUBT : 1);
  const failing = identifiers
    .filter((one) => ran(one) >= FEWEST_RUNS && surely(one) >= SOME_FAIL)
    .sort((a, b) => b.hour.failed - a.hour.failed);
  if (failing.length === 0) return;
  // Of all together the minutes tell more, and the chart below tells the same.
  const failed = throughput.reduce((sum, one) => sum + one.failed, 0);
  const all = runs(throughput);
  say(
    failing.some((one) => surely(one) >= MOST_FAIL),
    html`<strong>${count({ count: failed, estimated: all.estimated })} of the last hour's ${count(all)} runs failed</strong>: ${links(failing, undefined, database, (one) => `${one.hour.estimated ? "~ " : ""}${Math.round(share(one) * 100)} % of`)}. Their errors say why; retry them once the cause is gone.`,
  );
}

function ofWhatRests(
  { unknownIdentifiers, paused, recurring, totals }: Stats,
  { mayAct, database }: Showing,
  say: Say,
): void {
  if (unknownIdentifiers.length > 0)
    say(
      false,
      html`<a href="${VIEW}/unknown">${plural(unknownIdentifiers.length, "identifier")}</a> that no live release knows: ${listed(unknownIdentifiers, (one) => html`<span class="clip" title="${one}">${one}</span>`)}. Their tasks wait for one that does: deploy it, or delete them.`,
    );
  if (paused.includes("*"))
    say(
      true,
      html`<strong>Everything is paused</strong> by an operator: ${count(totals.waiting)} waiting. ${mayAct && button("Resume everything", { action: "resume", identifier: "*", ...at(database) })}`,
    );
  const named = paused.filter((one) => one !== "*");
  if (named.length > 0)
    say(
      false,
      html`Paused by an operator: ${listed(named, (one) => html`<a class="clip" title="${one}" href="${href(`${VIEW}/tasks`, { identifier: one, database })}">${one}</a>`)}.`,
    );
  const off = recurring.filter((one) => !one.enabled);
  if (off.length > 0) say(false, html`<a href="${VIEW}/recurring">${plural(off.length, "schedule")}</a> disabled.`);
}

export const at = (database: number | undefined): object => (database === undefined ? {} : { database });

const links = (
  all: readonly IdentifierStats[],
  state: string | undefined,
  database: number | undefined,
  before: (one: IdentifierStats) => string,
): Html =>
  listed(
    all,
    (one) =>
      html`${before(one)} <a class="clip" title="${one.identifier}" href="${href(`${VIEW}/tasks`, { state: state ?? stateOfFailures(one), identifier: one.identifier, database })}">${one.identifier}</a>`,
  );

/** Where the tasks of its failed runs are now. */
const stateOfFailures = (one: IdentifierStats): string => (one.failed.count > 0 ? "failed" : "retrying");

function listed<T>(all: readonly T[], show: (one: T) => Html): Html {
  const shown = all.slice(0, MOST_NAMED).map((one, place) => html`${place > 0 && ", "}${show(one)}`);
  return html`${shown}${all.length > MOST_NAMED && ` and ${whole(all.length - MOST_NAMED)} more`}`;
}
