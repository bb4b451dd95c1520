import type { Stats } from "../stats-schema.ts";
import { duration, scheduleText, when, whole } from "./format.ts";
import { type Html, href, html } from "./html.ts";
import { button, empty, type Showing, state, VIEW } from "./page.ts";

/** Schedules: when they come next, how they went last. */
export function recurring(all: Stats["recurring"], { mayAct, at, databases }: Showing): Html {
  const several = databases > 1;
  const row = (one: Stats["recurring"][number]): Html => {
    const does = (action: string): object => ({ action, identifier: one.identifier, database: one.database });
    return html`<tr data-key="r-${one.database}-${one.identifier}"><th scope="row"><a href="${href(`${VIEW}/tasks`, { identifier: one.identifier, state: one.lastResult === "FAILURE" ? "failed" : "succeeded", database: several ? one.database : undefined })}">${one.identifier}</a><small>${scheduleText(one.schedule)}${several && `, in database ${one.database}`}</small></th>
  <td>${one.enabled ? state("enabled") : html`${state("disabled")}<small>${one.disabledWhy === "UNKNOWN" ? "no live release knows it" : "by an operator"}</small>`}</td>
  <td data-label="Next">${one.enabled ? when(one.nextAt, at) : html`<span class="none">–</span>`}</td>
  <td data-label="Last run">${when(one.lastRunAt, at)}${one.lastResult !== null && html`<small>${one.lastResult === "SUCCESS" ? "succeeded" : html`<span class="failed">failed</span>`} in ${duration(one.lastDurationMs)}</small>`}</td>
  <td class="n minor">${whole(one.skipped)}</td>
  ${mayAct && html`<td class="acts">${one.enabled ? html`${button("Run now", does("recurring_run"), { of: one.identifier })}${button("Disable", does("recurring_disable"), { of: one.identifier })}` : button("Enable", does("recurring_enable"), { of: one.identifier })}</td>`}</tr>`;
  };
  return html`<header class="head"><h1>Recurring schedules</h1><p>Exactly one task for each due time, whatever the number of slots.</p></header>
${
  all.length === 0
    ? empty("No schedules", "A release that defines recurring tasks stores them with its first exchange.")
    : html`<div class="scroll" tabindex="0" role="region" aria-label="Schedules"><table class="list cards"><thead><tr><th scope="col">Schedule</th><th scope="col">State</th><th scope="col">Next</th><th scope="col">Last run</th><th scope="col" class="n minor">Skipped</th>${mayAct && html`<th scope="col"><span class="sr">Actions</span></th>`}</tr></thead><tbody>${all.map(row)}</tbody></table></div>`
}`;
}
