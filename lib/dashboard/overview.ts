/** The first page: is anything wrong, how much is there to do, who works on it. By name and not by size, so that nothing jumps. */
import type { IdentifierStats, SlotStats, Stats } from "../stats-schema.ts";
import { durationsChart, throughputChart } from "./charts.ts";
import { count, duration, plural, runs, whole } from "./format.ts";
import { type Html, href, html } from "./html.ts";
import { button, empty, type Showing, state, VIEW } from "./page.ts";
import { at, verdict } from "./verdict.ts";

const MOST_SPREADS = 8;

export function overview(stats: Stats, showing: Showing): Html {
  const last = runs(stats.throughput);
  return html`<h1 class="sr">Overview</h1>
${verdict(stats, showing)}
${totals(stats, showing.database)}
<div class="pair">
<section aria-labelledby="h-throughput"><header><h2 id="h-throughput">Throughput</h2><p>${count(last)} ${last.count === 1 ? "run" : "runs"} in 60 minutes <span class="key"><i class="succeeded"></i>succeeded <i class="failed"></i>failed</span></p></header>
  ${throughputChart(stats.throughput)}</section>
${durations(stats)}
</div>
<section aria-labelledby="h-slots"><header><h2 id="h-slots">Slots</h2><p>Each is a seat; whoever sits there beats its heart at every exchange.</p></header>
  ${stats.slots.length === 0 ? empty("No slot has ever been taken", "Schedules take them when the processor is deployed; here, npm start or stint run-task-processor.") : html`<ol class="seats">${stats.slots.map((one) => seat(one, showing.databases > 1))}</ol>`}</section>
${identifiers(stats, showing)}`;
}

function totals({ totals: sums }: Stats, database: number | undefined): Html {
  const link = (name: "waiting" | "running" | "scheduled" | "retrying" | "failed", note: string): Html =>
    html`<li><a href="${href(`${VIEW}/tasks`, { state: name, database })}"><span class="label ${name}">${name.charAt(0).toUpperCase() + name.slice(1)}</span><span class="value${name === "failed" && sums.failed.count > 0 && " bad"}">${count(sums[name])}</span><span class="note">${note}</span></a></li>`;
  return html`<ul class="totals">
  ${link("waiting", "due, held by nobody")}${link("running", "held by an invocation")}${link("retrying", "failed before, due later")}${link("scheduled", "due later")}${link("failed", "out of attempts or cancelled")}
  <li class="still"><div><span class="label">Oldest waiting</span><span class="value">${duration(sums.oldestWaitingMs)}</span><span class="note">${sums.oldestWaitingMs === null ? "nothing is due" : "since it was due"}</span></div></li>
</ul>`;
}

function durations({ identifiers: all, totals: sums }: Stats): Html {
  const rows = all
    .flatMap(({ identifier, hour }) => {
      const { p50Ms, p95Ms, p99Ms } = hour;
      return p50Ms === null || p95Ms === null || p99Ms === null
        ? []
        : [{ label: identifier, runs: runs([hour]), p50Ms, p95Ms, p99Ms }];
    })
    .sort((a, b) => b.runs.count - a.runs.count);
  return html`<section aria-labelledby="h-durations"><header><h2 id="h-durations">Durations</h2><p>${rows.length > MOST_SPREADS ? `The ${MOST_SPREADS} busiest, last hour` : "Last hour"}${sums.hour.p95Ms !== null && html`; 95 % within ${duration(sums.hour.p95Ms)}`}</p></header>
  ${rows.length === 0 ? empty("No runs in the last hour", "Durations appear with the first one.") : html`<div class="scroll" tabindex="0" role="region" aria-label="Table of durations">${durationsChart(rows.slice(0, MOST_SPREADS))}</div>`}</section>`;
}

const ago = (ms: number | null): Html => ((ms ?? 0) < 1000 ? html`<b>just now</b>` : html`<b>${duration(ms)}</b> ago`);

function seat(one: SlotStats, several: boolean): Html {
  const beat = {
    working: html`seen ${ago(one.seenAgoMs)}`,
    left: html`left in order, ${ago(one.seenAgoMs)}`,
    late: html`no tick for <b>${duration(one.seenAgoMs)}</b>`,
    stuck: html`silent for <b>${duration(one.seenAgoMs)}</b>`,
  }[one.state];
  return html`<li class="seat ${one.state}" data-key="seat-${one.database}-${one.slot}">
  <div class="seat-top"><span class="number"><span class="sr">Slot </span>${one.slot}${several && html`<small>database ${one.database}</small>`}</span>${state(one.state)}</div>
  <p class="beat">${beat}</p>
  <dl><div><dt>holds</dt><dd>${whole(one.held)}</dd></div><div><dt>ran</dt><dd>${whole(one.succeeded)}</dd></div><div><dt>failed</dt><dd>${whole(one.failed)}</dd></div></dl>
  <p class="fine" title="${one.holder ?? ""}">epoch ${whole(one.epoch)}${one.release !== null && html`, release <code>${one.release.slice(0, 8)}</code>`}</p></li>`;
}

function identifiers({ identifiers: all, truncated, paused }: Stats, { mayAct, database }: Showing): Html {
  const everything = paused.includes("*");
  const head = html`<header><h2 id="h-identifiers">Identifiers</h2><p>${plural(all.length, "kind")} of task${truncated && ": the first 200, there are more"}${mayAct && !everything && all.length > 0 && html` ${button("Pause everything", { action: "pause", identifier: "*", ...at(database) }, { ask: "Pause everything: no task is claimed any more, until it is resumed" })}`}</p></header>`;
  if (all.length === 0) {
    return html`<section aria-labelledby="h-identifiers">${head}${empty("No tasks yet", "They appear here once something has been enqueued.")}</section>`;
  }
  const cell = (
    one: IdentifierStats,
    name: "waiting" | "running" | "retrying" | "scheduled" | "failed",
    minor: string,
  ): Html =>
    html`<td class="n ${minor}">${one[name].count === 0 ? html`<span class="none">0</span>` : html`<a class="${name}" href="${href(`${VIEW}/tasks`, { state: name, identifier: one.identifier, database })}">${count(one[name])}</a>`}</td>`;
  const act = (label: "Pause" | "Resume", identifier: string): Html =>
    button(label, { action: label.toLowerCase(), identifier, ...at(database) }, { of: identifier });
  const row = (one: IdentifierStats): Html => html`<tr data-key="i-${one.identifier}">
  <th scope="row"><a href="${href(`${VIEW}/tasks`, { identifier: one.identifier, database })}">${one.identifier}</a>${one.paused && html` <span class="flag">paused</span>`}${!one.known && html` <span class="flag">unknown</span>`}</th>
  ${cell(one, "waiting", "")}${cell(one, "running", "minor")}${cell(one, "retrying", "minor")}${cell(one, "scheduled", "minor")}${cell(one, "failed", "")}
  <td class="n minor">${duration(one.oldestWaitingMs)}</td>
  <td class="n minor">${count(runs([one.hour]))}</td>
  <td class="n minor">${count(runs([one.day]))}</td>
  <td class="n minor">${duration(one.day.p95Ms)}</td>
  ${mayAct && html`<td class="acts">${paused.includes(one.identifier) ? act("Resume", one.identifier) : !everything && act("Pause", one.identifier)}</td>`}</tr>`;
  return html`<section aria-labelledby="h-identifiers">${head}
<div class="scroll" tabindex="0" role="region" aria-label="Table of identifiers"><table class="list"><thead><tr><th scope="col">Identifier</th><th scope="col" class="n">Waiting</th><th scope="col" class="n minor">Running</th><th scope="col" class="n minor">Retrying</th><th scope="col" class="n minor">Scheduled</th><th scope="col" class="n">Failed</th><th scope="col" class="n minor">Oldest</th><th scope="col" class="n minor">Runs, 1 h</th><th scope="col" class="n minor">Runs, 24 h</th><th scope="col" class="n minor">p95, 24 h</th>${mayAct && html`<th scope="col"><span class="sr">Actions</span></th>`}</tr></thead>
<tbody>${all.map(row)}</tbody></table></div></section>`;
}
