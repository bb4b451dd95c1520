/** Tasks by filter, and one of them with its runs. */
import {
  type Audit,
  TASK_STATES,
  type TaskDetail,
  type TaskFilter,
  type TaskSummary,
  type Tasks,
} from "../operator-schema.ts";
import { duration, moment, PRIORITY_NAMES, plural, priorityName, when, whole } from "./format.ts";
import { type Html, href, html } from "./html.ts";
import { button, empty, type Showing, state, VIEW } from "./page.ts";

const LIST = `${VIEW}/tasks`;
const ACTIONS = {
  retry: ["failed", "cancelled"],
  run_now: ["scheduled", "retrying"],
  cancel: ["waiting", "scheduled", "retrying", "running"],
  delete: ["failed", "cancelled", "waiting", "scheduled", "retrying"],
  set_priority: ["waiting", "scheduled", "retrying"],
  set_due: ["waiting", "scheduled", "retrying"],
} as const;
const NAMES: Readonly<Record<keyof typeof ACTIONS, string>> = {
  retry: "Retry",
  run_now: "Run now",
  cancel: "Cancel",
  delete: "Delete",
  set_priority: "Change priority",
  set_due: "Change due time",
};
const fits = (name: keyof typeof ACTIONS, of: string): boolean => (ACTIONS[name] as readonly string[]).includes(of);

interface Asked {
  readonly filter: TaskFilter;
  readonly cursor: string | undefined;
  readonly limit: string | undefined;
}

export function taskList(found: Tasks, { filter, cursor, limit }: Asked, showing: Showing): Html {
  const { database, mayAct, at } = showing;
  const query = { ...filter, limit, database };
  const pick = (name: string | undefined): Html =>
    html`<a href="${href(LIST, { ...query, state: name })}"${filter.state === name && html` aria-current="true"`}>${name ?? "unfinished"}</a>`;
  return html`<header class="head"><h1>Tasks</h1></header>
<nav class="states" aria-label="States">${[undefined, ...TASK_STATES].map(pick)}</nav>
${filterForm(filter, database)}
${mayAct && found.tasks.length > 0 && filter.state !== "succeeded" && bulk(filter, database)}
${
  found.tasks.length === 0
    ? found.next === null
      ? empty("No task matches", nothing(filter, showing))
      : empty("None on this page", "A page looks at a bounded number of rows; there may be more further on.")
    : html`<div class="scroll" tabindex="0" role="region" aria-label="Tasks found"><table class="list tasks"><thead><tr><th scope="col">Task</th><th scope="col">State</th><th scope="col">${filter.state === "succeeded" || filter.state === "failed" || filter.state === "cancelled" ? "Ended" : "Due"}</th><th scope="col" class="n minor">Attempts</th><th scope="col" class="minor">Priority</th><th scope="col" class="minor">Key</th>${mayAct && html`<th scope="col"><span class="sr">Actions</span></th>`}</tr></thead>
<tbody>${found.tasks.map((task) => row(task, at, database, mayAct))}</tbody></table></div>`
}
<nav class="pages" aria-label="Pages">${cursor !== undefined && html`<a href="${href(LIST, query)}">Newest</a>`}<span>${plural(found.tasks.length, "task")} on this page, newest first</span>${found.next !== null && html`<a rel="next" href="${href(LIST, { ...query, cursor: found.next })}">Older</a>`}</nav>`;
}

/** Where else it may be: what an operator was led here for is seldom gone. */
function nothing(filter: TaskFilter, { database, databases }: Showing): Html {
  const { state: of, ...rest } = filter;
  const narrowed = Object.values(rest).some((value) => value !== undefined);
  const place = database ?? databases - 1;
  const elsewhere = [
    of === "failed" &&
      html`<a href="${href(LIST, { ...filter, state: "cancelled", database })}">Look among the cancelled ones</a>, which the overview counts as failed.`,
    ...Array.from({ length: databases }, (_, other) =>
      other === place
        ? null
        : html`<a href="${href(LIST, { ...filter, database: other })}">Look in database ${other}</a>.`,
    ),
    narrowed && html`<a href="${href(LIST, { state: of, database })}">Show every ${of ?? "unfinished"} task</a>.`,
  ];
  const why = narrowed
    ? `Nothing ${of ?? "unfinished"} fits this filter; identifiers and keys match as a whole.`
    : of === undefined
      ? "Everything that was enqueued has been finished."
      : `There is no ${of} task.`;
  return html`${why}${elsewhere.map((one) => one && html` ${one}`)}`;
}

function row(task: TaskSummary, at: string, database: number | undefined, mayAct: boolean): Html {
  return html`<tr data-key="t-${task.id}"><th scope="row"><a href="${href(`${LIST}/${task.id}`, { database })}"><span class="id">${task.id}</span> ${task.identifier}</a>${task.error !== null && html`<small class="error">${task.error}</small>`}</th>
  <td>${state(task.state)}</td><td>${task.state === "running" ? html`<span>since ${when(task.heldSince, at)}</span>` : when(task.finishedAt ?? task.scheduledFor, at)}</td>
  <td class="n minor">${task.attemptsUsed ?? task.attempt}${task.maxAttempts !== null && ` of ${task.maxAttempts}`}</td>
  <td class="minor">${priorityName(task.priority)}</td><td class="minor"><span class="clip" title="${task.key ?? ""}">${task.key ?? html`<span class="none">–</span>`}</span></td>
  ${mayAct && html`<td class="acts">${actions(task, database).slice(0, 1)}</td>`}</tr>`;
}

/** What may be done with one task, the likeliest first. */
function actions(task: TaskSummary, database: number | undefined): Html[] {
  const of = `task ${task.id}`;
  const at = database !== undefined && { database };
  const does = (action: string): object => ({ action, ids: [task.id], ...at });
  const made: Html[] = [];
  if (fits("retry", task.state)) made.push(button("Retry", does("retry"), { of }));
  if (fits("run_now", task.state)) made.push(button("Run now", does("run_now"), { of }));
  if (fits("cancel", task.state)) {
    made.push(
      button("Cancel", does("cancel"), {
        of,
        ask: `Cancel ${of} of ${task.identifier}${task.state === "running" ? ", which runs now" : ""}`,
        kind: "danger",
      }),
    );
  }
  if (fits("delete", task.state))
    made.push(button("Delete", does("delete"), { of, ask: `Delete ${of} of ${task.identifier}`, kind: "danger" }));
  return made;
}

const local = (iso: string | undefined): string => (iso === undefined ? "" : new Date(iso).toISOString().slice(0, 16));

const filterForm = (filter: TaskFilter, database: number | undefined): Html =>
  html`<form class="filter" action="${LIST}" method="get" role="search" aria-label="Filter tasks">
  ${filter.state !== undefined && html`<input type="hidden" name="state" value="${filter.state}">`}${database !== undefined && html`<input type="hidden" name="database" value="${database}">`}
  <label>Identifier <input name="identifier" value="${filter.identifier ?? ""}" autocomplete="off" spellcheck="false" maxlength="200"></label>
  <label>Key <input name="key" value="${filter.key ?? ""}" autocomplete="off" spellcheck="false" maxlength="500"></label>
  <label>From, UTC <input type="datetime-local" name="from" value="${local(filter.from)}"></label>
  <label>To, UTC <input type="datetime-local" name="to" value="${local(filter.to)}"></label>
  <div class="buttons"><button class="strong">Filter</button><a href="${href(LIST, { state: filter.state, database })}">Clear</a></div>
</form>`;

function bulk(filter: TaskFilter, database: number | undefined): Html {
  const usable = (Object.keys(ACTIONS) as (keyof typeof ACTIONS)[]).filter((name) =>
    filter.state === undefined ? name !== "retry" : fits(name, filter.state),
  );
  const words = [
    filter.state ?? "unfinished",
    filter.identifier && `of ${filter.identifier}`,
    filter.key && `with key ${filter.key}`,
    filter.from && `from ${moment(filter.from)}`,
    filter.to && `until ${moment(filter.to)}`,
  ];
  return html`<details class="bulk" id="bulk"><summary>Act on all that match</summary>
<form data-bulk="${JSON.stringify({ filter, ...(database !== undefined && { database }) })}" data-words="${words.filter(Boolean).join(", ")}">
  <label>Action <select name="action">${usable.map((name) => html`<option value="${name}">${NAMES[name]}</option>`)}</select></label>
  ${usable.includes("set_priority") && html`<label>New priority <select name="priority">${PRIORITY_NAMES.map(({ value, name }) => html`<option value="${value}"${value === 50 && html` selected`}>${name}</option>`)}</select></label><label>New due time, UTC <input type="datetime-local" name="due"></label>`}
  <div class="buttons"><button class="strong">Count first</button></div>
</form></details>`;
}

export function taskDetail({ task, runs, payload, resultValue }: TaskDetail, asked: boolean, showing: Showing): Html {
  const { at, mayAct, database } = showing;
  const self = `${LIST}/${task.id}`;
  const fact = (name: string, value: Html | string | number | null): Html | null =>
    value === null ? null : html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  return html`<header class="head"><p class="crumb"><a href="${href(LIST, { identifier: task.identifier, database })}">${task.identifier}</a></p><h1>Task ${task.id}</h1>${state(task.state)}</header>
${mayAct && html`<div class="toolbar">${actions(task, database)}${fits("set_due", task.state) && changes(task, database)}</div>`}
<div class="pair detail"><section aria-labelledby="h-facts"><h2 id="h-facts">Facts</h2><dl class="facts">
  ${fact("Due", task.scheduledFor && html`${when(task.scheduledFor, at)} <small>${moment(task.scheduledFor)}</small>`)}
  ${fact("Stored", task.createdAt && html`${when(task.createdAt, at)} <small>${moment(task.createdAt)}</small>`)}
  ${fact("Running since", task.heldSince && html`${when(task.heldSince, at)} <small>by <code>${task.holder}</code></small>`)}
  ${fact("Ended", task.finishedAt && html`${when(task.finishedAt, at)} <small>${moment(task.finishedAt)}</small>`)}
  ${fact("Attempts used", task.attemptsUsed === null ? task.attempt : `${task.attemptsUsed}${task.maxAttempts === null ? "" : ` of ${task.maxAttempts}`}${task.attempt > task.attemptsUsed ? `, and ${task.attempt - task.attemptsUsed} forgiven` : ""}`)}
  ${fact("Priority", task.priority === null ? null : priorityName(task.priority))}
  ${fact("Key", task.key)}${fact("Serial key", task.serialKey)}
  ${fact("Occurrence", task.occurrence && moment(task.occurrence))}
  ${fact("Progress", task.progress === null || task.progress === undefined ? null : html`<code>${JSON.stringify(task.progress)}</code>`)}
  ${fact("Trace", task.traceParent && html`<code>${task.traceParent}</code>`)}
</dl></section>
<section aria-labelledby="h-payload"><h2 id="h-payload">Payload</h2>
${
  asked
    ? html`${payload === undefined ? html`<p class="hint">The payload of a finished task is not kept.</p>` : html`<pre tabindex="0" aria-label="Payload">${JSON.stringify(payload, null, 2)}</pre>`}${resultValue !== undefined && resultValue !== null && html`<h3>Result</h3><pre tabindex="0" aria-label="Result">${JSON.stringify(resultValue, null, 2)}</pre>`}<p><a href="${href(self, { database })}">Hide it</a></p>`
    : html`<p class="hint">Hidden: it may hold what not everybody at this screen should see.</p><p><a class="button" href="${href(self, { payload: 1, database })}">Show payload${task.payloadBytes !== null && `, ${whole(task.payloadBytes)} bytes`}</a></p>`
}</section></div>
<section aria-labelledby="h-runs"><header><h2 id="h-runs">Attempts</h2><p>${runs.length === 50 ? "The newest 50" : plural(runs.length, "run")}</p></header>
${runs.length === 0 ? empty("Not run yet", "Each attempt is recorded when it ends.") : html`<ol class="runs">${timeline(runs)}</ol>`}</section>`;
}

function timeline(runs: TaskDetail["runs"]): Html[] {
  const longest = Math.max(1, ...runs.map((one) => one.durationMs));
  return runs.map((one) => {
    const good = one.result === "SUCCESS";
    return html`<li data-key="run-${one.attempt}" class="${good ? "succeeded" : "failed"}"><p><strong>Attempt ${one.attempt}</strong> ${state(good ? "succeeded" : "failed")} after <b>${duration(one.durationMs)}</b>${one.outcome !== null && html` <span class="flag">the last: task ${one.outcome.toLowerCase()}</span>`}</p>
  <svg class="bar" viewBox="0 0 1000 6" preserveAspectRatio="none" aria-hidden="true" focusable="false"><rect class="track" width="1000" height="6" /><rect class="${good ? "succeeded" : "failed"}" width="${Math.max(4, Math.round((one.durationMs / longest) * 1000))}" height="6" /></svg>
  <p class="fine">${moment(one.startedAt)} to ${moment(one.finishedAt).slice(11)}, invocation <code>${one.invocation.slice(0, 8)}</code></p>
  ${one.error !== null && html`<pre tabindex="0" aria-label="Error of attempt ${one.attempt}">${one.error}</pre>`}</li>`;
  });
}

function changes(task: TaskSummary, database: number | undefined): Html {
  const base = JSON.stringify({ ids: [task.id], ...(database !== undefined && { database }) });
  return html`<form class="change" data-change="${base}" data-action="set_priority"><label>Priority <select name="priority">${PRIORITY_NAMES.map(({ value, name }) => html`<option value="${value}"${value === task.priority && html` selected`}>${name}</option>`)}</select></label><button>Set priority</button></form>
<form class="change" data-change="${base}" data-action="set_due"><label>Due, UTC <input type="datetime-local" name="due" required value="${local(task.scheduledFor ?? undefined)}"></label><button>Set due time</button></form>`;
}

export function auditLog({ entries, next }: Audit, cursor: string | undefined, { at, database }: Showing): Html {
  const path = `${VIEW}/audit`;
  return html`<header class="head"><h1>Audit log</h1><p>Who did what, newest first. It is kept for ever.</p></header>
${
  entries.length === 0
    ? empty("Nobody has acted yet", "Every action, from here, the command line or over HTTP, leaves a row.")
    : html`<div class="scroll" tabindex="0" role="region" aria-label="Audit log"><table class="list cards"><thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">Action</th><th scope="col" class="n">Tasks</th><th scope="col">What</th></tr></thead><tbody>${entries.map((one) => html`<tr data-key="a-${one.id}"><td>${when(one.at, at)}<small>${moment(one.at)}</small></td><td>${one.who}</td><th scope="row">${one.action.replaceAll("_", " ")}</th><td class="n" data-label="Tasks">${whole(one.count)}</td><td class="wide"><code class="what">${said(one.what)}</code></td></tr>`)}</tbody></table></div>`
}
<nav class="pages" aria-label="Pages">${cursor !== undefined && html`<a href="${href(path, { database })}">Newest</a>`}<span>${whole(entries.length)} on this page</span>${next !== null && html`<a rel="next" href="${href(path, { cursor: next, database })}">Older</a>`}</nav>`;
}

const said = (what: Readonly<Record<string, unknown>>): string =>
  Object.entries(what)
    .map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
