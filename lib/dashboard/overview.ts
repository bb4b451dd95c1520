/** The first page: is anything wrong, how much is there to do, who works on it. */
import type { IdentifierStats, SlotStats, Stats } from "../stats-schema.ts";
import { durationsChart, throughputChart } from "./charts.ts";
import { count, duration, plural, when, whole } from "./format.ts";
import { type Html, href, html } from "./html.ts";
import { button, empty, type Showing, state, VIEW } from "./page.ts";

const OLD_MS = 5 * 60_000;
const MOST_SPREADS = 8;

export function overview(stats: Stats, { mayAct, database }: Showing): Html {
  const last = stats.throughput.reduce((sum, one) => sum + one.succeeded + one.failed, 0);
  return html`<h1 class="sr">Overview</h1>
${verdict(stats)}
${totals(stats, database)}
<div class="pair">
<section aria-labelledby="h-throughput"><header><h2 id="h-throughput">Throughput</h2><p>${plural(last, "run")} in 60 minutes <span class="key"><i class="succeeded"></i>succeeded <i class="failed"></i>failed</span></p></header>
  ${throughputChart(stats.throughput)}</section>
${durations(stats)}
</div>
<section aria-labelledby="h-slots"><header><h2 id="h-slots">Slots</h2><p>Each is a seat; whoever sits there beats its heart at every exchange.</p></header>
  ${stats.slots.length === 0 ? empty("No slot has ever been taken", "Schedules take them when the processor is deployed; here, npm start or stint run-task-processor.") : html`<ol class="seats">${stats.slots.map(seat)}</ol>`}</section>
${identifiers(stats, mayAct, database)}`;
}

interface Point {
  readonly bad: boolean;
  readonly text: Html;
}

/** What a person woken by an alarm wants to read first. Only what the numbers bear out. */
function verdict(stats: Stats): Html {
  const points = attention(stats);
  const bad = points.some((one) => one.bad);
  const waiting = stats.totals.waiting.count;
  const say =
    points.length === 0
      ? waiting === 0
        ? "All quiet. Nothing waits."
        : `Working. ${count(stats.totals.waiting)} waiting, the oldest for ${duration(stats.totals.oldestWaitingMs)}.`
      : bad
        ? "Something needs you."
        : "Running, with remarks.";
  return html`<section class="verdict ${bad ? "bad" : points.length > 0 ? "fair" : "good"}" aria-label="Summary"><p class="say">${say}</p>
${points.length > 0 && html`<ul>${points.map((one) => html`<li class="${one.bad ? "bad" : "fair"}">${one.text}</li>`)}</ul>`}</section>`;
}

function attention(stats: Stats): Point[] {
  const points: Point[] = [];
  const say = (bad: boolean, text: Html): void => void points.push({ bad, text });
  const { totals, slots } = stats;
  const stuck = slots.filter((one) => one.state === "stuck");
  const late = slots.filter((one) => one.state === "late");
  if (slots.length > 0 && slots.every((one) => !one.healthy)) {
    say(true, html`<strong>Nobody is working.</strong> No slot is healthy: tasks are stored, and wait.`);
  } else if (stuck.length > 0) {
    say(
      true,
      html`<strong>${plural(stuck.length, "slot")} stuck</strong>: ${stuck.map((one) => one.slot).join(", ")}. What they held is claimed by the others.`,
    );
  }
  if (late.length > 0 && late.length < slots.length) {
    say(
      false,
      html`<strong>${plural(late.length, "slot")} late</strong>: no tick came to ${late.map((one) => one.slot).join(", ")} within two minutes.`,
    );
  }
  if ((totals.oldestWaitingMs ?? 0) > OLD_MS) {
    say(
      true,
      html`<strong>The oldest task has waited ${duration(totals.oldestWaitingMs)}</strong>, among <a href="${href(`${VIEW}/tasks`, { state: "waiting" })}">${count(totals.waiting)} waiting</a>.`,
    );
  }
  if (stats.unknownIdentifiers.length > 0) {
    say(
      false,
      html`<a href="${VIEW}/unknown">${plural(stats.unknownIdentifiers.length, "identifier")}</a> that no live release knows: the tasks wait for one that does.`,
    );
  }
  if (stats.paused.length > 0) {
    say(
      false,
      stats.paused.includes("*")
        ? html`<strong>Everything is paused</strong> by an operator.`
        : html`Paused by an operator: ${stats.paused.join(", ")}.`,
    );
  }
  const { succeeded, failed, estimated } = totals.hour;
  if (failed > 0 && failed >= (succeeded + failed) / 10) {
    say(
      false,
      html`${estimated && "~ "}${Math.round((failed / (succeeded + failed)) * 100)} % of the last hour's runs failed (${whole(failed)} of ${whole(succeeded + failed)}).`,
    );
  }
  const off = stats.recurring.filter((one) => !one.enabled);
  if (off.length > 0) say(false, html`<a href="${VIEW}/recurring">${plural(off.length, "schedule")}</a> disabled.`);
  return points;
}

function totals({ totals: sums }: Stats, database: number | undefined): Html {
  const link = (name: "waiting" | "running" | "scheduled" | "retrying" | "failed", note: string): Html =>
    html`<li><a href="${href(`${VIEW}/tasks`, { state: name, database })}"><span class="label ${name}">${name}</span><span class="value">${count(sums[name])}</span><span class="note">${note}</span></a></li>`;
  return html`<ul class="totals">
  ${link("waiting", "due, held by nobody")}${link("running", "held by an invocation")}${link("retrying", "failed before, due later")}${link("scheduled", "due later")}${link("failed", "out of attempts or cancelled")}
  <li class="still"><div><span class="label">oldest waiting</span><span class="value">${duration(sums.oldestWaitingMs)}</span><span class="note">${sums.oldestWaitingMs === null ? "nothing is due" : "since it was due"}</span></div></li>
</ul>`;
}

function durations({ identifiers: all, totals: sums }: Stats): Html {
  const rows = all
    .flatMap(({ identifier, hour }) => {
      const { p50Ms, p95Ms, p99Ms, succeeded, failed } = hour;
      return p50Ms === null || p95Ms === null || p99Ms === null
        ? []
        : [{ label: identifier, runs: succeeded + failed, p50Ms, p95Ms, p99Ms }];
    })
    .sort((a, b) => b.runs - a.runs);
  return html`<section aria-labelledby="h-durations"><header><h2 id="h-durations">Durations</h2><p>${rows.length > MOST_SPREADS ? `The ${MOST_SPREADS} busiest, last hour` : "Last hour"}${sums.hour.p95Ms !== null && html`; 95 % within ${duration(sums.hour.p95Ms)}`}</p></header>
  ${rows.length === 0 ? empty("No runs in the last hour", "Durations appear with the first one.") : html`<div class="scroll" tabindex="0" role="region" aria-label="Table of durations">${durationsChart(rows.slice(0, MOST_SPREADS))}</div>`}</section>`;
}

function seat(one: SlotStats): Html {
  const beat =
    one.state === "working"
      ? html`seen <b>${duration(one.seenAgoMs)}</b> ago`
      : one.state === "left"
        ? html`left in order, <b>${duration(one.seenAgoMs)}</b> ago`
        : one.state === "late"
          ? html`no tick for <b>${duration(one.seenAgoMs)}</b>`
          : html`silent for <b>${duration(one.seenAgoMs)}</b>`;
  return html`<li class="seat ${one.state}" data-key="seat-${one.database}-${one.slot}">
  <div class="seat-top"><span class="number"><span class="sr">Slot </span>${one.slot}</span>${state(one.state)}</div>
  <p class="beat">${beat}</p>
  <dl><div><dt>holds</dt><dd>${whole(one.held)}</dd></div><div><dt>ran</dt><dd>${whole(one.succeeded)}</dd></div><div><dt>failed</dt><dd>${whole(one.failed)}</dd></div></dl>
  <p class="fine" title="${one.holder ?? ""}">epoch ${whole(one.epoch)}${one.database > 0 && `, database ${one.database}`}${one.release !== null && html`, release <code>${one.release.slice(0, 8)}</code>`}</p></li>`;
}

function identifiers({ identifiers: all, truncated }: Stats, mayAct: boolean, database: number | undefined): Html {
  const head = html`<header><h2 id="h-identifiers">Identifiers</h2><p>${plural(all.length, "kind")} of task${truncated && ": the first 200, there are more"}</p></header>`;
  if (all.length === 0) {
    return html`<section aria-labelledby="h-identifiers">${head}${empty("No tasks yet", "They appear here once something has been enqueued.")}</section>`;
  }
  const cell = (
    one: IdentifierStats,
    name: "waiting" | "running" | "retrying" | "scheduled" | "failed",
    minor: string,
  ): Html =>
    html`<td class="n ${minor}">${one[name].count === 0 ? html`<span class="none">0</span>` : html`<a class="${name}" href="${href(`${VIEW}/tasks`, { state: name, identifier: one.identifier, database })}">${count(one[name])}</a>`}</td>`;
  const row = (one: IdentifierStats): Html => html`<tr data-key="i-${one.identifier}">
  <th scope="row"><a href="${href(`${VIEW}/tasks`, { identifier: one.identifier, database })}">${one.identifier}</a>${one.paused && html` <span class="flag">paused</span>`}${!one.known && html` <span class="flag">unknown</span>`}</th>
  ${cell(one, "waiting", "")}${cell(one, "running", "minor")}${cell(one, "retrying", "minor")}${cell(one, "scheduled", "minor")}${cell(one, "failed", "")}
  <td class="n minor">${duration(one.oldestWaitingMs)}</td>
  <td class="n minor">${one.hour.estimated && "~ "}${whole(one.hour.succeeded + one.hour.failed)}</td>
  <td class="n minor">${one.day.estimated && "~ "}${whole(one.day.succeeded + one.day.failed)}</td>
  <td class="n minor">${duration(one.day.p95Ms)}</td>
  ${mayAct && html`<td class="acts">${one.paused ? button("Resume", { action: "resume", identifier: one.identifier }, { of: one.identifier }) : button("Pause", { action: "pause", identifier: one.identifier }, { of: one.identifier })}</td>`}</tr>`;
  return html`<section aria-labelledby="h-identifiers">${head}
<div class="scroll" tabindex="0" role="region" aria-label="Table of identifiers"><table class="list"><thead><tr><th scope="col">Identifier</th><th scope="col" class="n">Waiting</th><th scope="col" class="n minor">Running</th><th scope="col" class="n minor">Retrying</th><th scope="col" class="n minor">Scheduled</th><th scope="col" class="n">Failed</th><th scope="col" class="n minor">Oldest</th><th scope="col" class="n minor">Runs, 1 h</th><th scope="col" class="n minor">Runs, 24 h</th><th scope="col" class="n minor">p95, 24 h</th>${mayAct && html`<th scope="col"><span class="sr">Actions</span></th>`}</tr></thead>
<tbody>${all.map(row)}</tbody></table></div></section>`;
}

/** Tasks that wait for a release which knows them. */
export function unknown(stats: Stats, { mayAct, database }: Showing): Html {
  const known = new Map(stats.identifiers.map((one) => [one.identifier, one]));
  return html`<header class="head"><h1>Unknown identifiers</h1><p>They have unfinished tasks, and no release seen within 30 minutes has a handler. Nothing is lost: the tasks wait for one that does.</p></header>
${
  stats.unknownIdentifiers.length === 0
    ? empty("Every task is known", "Each identifier with unfinished tasks has a handler in a release that is alive.")
    : html`<div class="scroll" tabindex="0" role="region" aria-label="Unknown identifiers"><table class="list"><thead><tr><th scope="col">Identifier</th><th scope="col" class="n">Waiting</th><th scope="col" class="n">Oldest</th>${mayAct && html`<th scope="col"><span class="sr">Actions</span></th>`}</tr></thead><tbody>${stats.unknownIdentifiers.map(
        (identifier) => {
          const one = known.get(identifier);
          return html`<tr data-key="u-${identifier}"><th scope="row"><a href="${href(`${VIEW}/tasks`, { identifier, database })}">${identifier}</a></th><td class="n">${one ? count(one.waiting) : "–"}</td><td class="n">${one ? duration(one.oldestWaitingMs) : "–"}</td>
        ${mayAct && html`<td class="acts">${button("Delete all", { action: "delete", filter: { identifier }, ...(database !== undefined && { database }) }, { of: `of ${identifier}`, ask: `Delete every unfinished task of ${identifier}`, kind: "danger" })}</td>`}</tr>`;
        },
      )}</tbody></table></div>`
}`;
}

/** Schedules: when they come next, how they went last. */
export function recurring(all: Stats["recurring"], { mayAct, at }: Showing): Html {
  const row = (one: Stats["recurring"][number]): Html => {
    const does = (action: string): object => ({ action, identifier: one.identifier, database: one.database });
    return html`<tr data-key="r-${one.database}-${one.identifier}"><th scope="row"><a href="${href(`${VIEW}/tasks`, { identifier: one.identifier, state: "succeeded" })}">${one.identifier}</a><small>${scheduleText(one.schedule)}</small></th>
  <td>${one.enabled ? state("enabled") : html`${state("disabled")}<small>${one.disabledWhy === "UNKNOWN" ? "no live release knows it" : "by an operator"}</small>`}</td>
  <td>${one.enabled ? when(one.nextAt, at) : html`<span class="none">–</span>`}</td>
  <td>${when(one.lastRunAt, at)}${one.lastResult !== null && html`<small>${one.lastResult === "SUCCESS" ? "succeeded" : html`<span class="failed">failed</span>`} in ${duration(one.lastDurationMs)}</small>`}</td>
  <td class="n minor">${whole(one.skipped)}</td>
  ${mayAct && html`<td class="acts">${one.enabled ? html`${button("Run now", does("recurring_run"), { of: one.identifier })}${button("Disable", does("recurring_disable"), { of: one.identifier })}` : button("Enable", does("recurring_enable"), { of: one.identifier })}</td>`}</tr>`;
  };
  return html`<header class="head"><h1>Recurring schedules</h1><p>Exactly one task for each due time, whatever the number of slots.</p></header>
${
  all.length === 0
    ? empty("No schedules", "A release that defines recurring tasks stores them with its first exchange.")
    : html`<div class="scroll" tabindex="0" role="region" aria-label="Schedules"><table class="list"><thead><tr><th scope="col">Schedule</th><th scope="col">State</th><th scope="col">Next</th><th scope="col">Last run</th><th scope="col" class="n minor">Skipped</th>${mayAct && html`<th scope="col"><span class="sr">Actions</span></th>`}</tr></thead><tbody>${all.map(row)}</tbody></table></div>`
}`;
}

/** Stored as the JSON of its definition: `every 5m`, `0 3 * * * in Europe/Berlin`. */
function scheduleText(stored: string): string {
  try {
    const { every, cron, timeZone } = JSON.parse(stored) as { every?: unknown; cron?: unknown; timeZone?: unknown };
    if (every !== undefined) return `every ${every}`;
    if (cron !== undefined) return timeZone === undefined ? String(cron) : `${cron} in ${timeZone}`;
  } catch {
    // Text already.
  }
  return stored;
}
