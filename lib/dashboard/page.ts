/** What stands around every view: head, navigation, the state of the live refresh, the dialog that asks before an action. */
import { assetPath } from "./assets.ts";
import { moment } from "./format.ts";
import { type Html, href, html, type Value } from "./html.ts";

export const ROOT = "/processor";
export const VIEW = `${ROOT}/view`;
export const PLACES = [
  { id: "overview", name: "Overview", path: ROOT },
  { id: "tasks", name: "Tasks", path: `${VIEW}/tasks` },
  { id: "recurring", name: "Recurring", path: `${VIEW}/recurring` },
  { id: "unknown", name: "Unknown", path: `${VIEW}/unknown` },
  { id: "audit", name: "Audit log", path: `${VIEW}/audit` },
] as const;
export type PlaceId = (typeof PLACES)[number]["id"];

/** What a view is shown with. */
export interface Showing {
  /** The moment its numbers are of. */
  readonly at: string;
  readonly mayAct: boolean;
  /** Place in TASK_PROCESSOR_DATABASES; undefined with one database. */
  readonly database: number | undefined;
  readonly databases: number;
}

export interface Page {
  readonly title: string;
  readonly place: PlaceId | undefined;
  readonly body: Html;
  /** Path and query of this very page. */
  readonly self: string;
  readonly showing: Showing;
}

export function page({ title, place, body, self, showing }: Page): string {
  const { at, mayAct, database } = showing;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>${title} · Stint</title>
<link rel="icon" href="${assetPath("icon.svg")}" type="image/svg+xml">
<link rel="stylesheet" href="${assetPath("style.css")}">
<script src="${assetPath("script.js")}" defer></script>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header class="top">
  <a class="mark" href="${href(ROOT)}" aria-label="Stint, overview"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 5v14M10 5v14M15 5v14M3 16.5 20 7.5" /></svg>Stint</a>
  <nav aria-label="Views">${PLACES.map((one) => html`<a href="${href(one.path, { database })}"${one.id === place ? html` aria-current="page"` : null}>${one.name}</a>`)}</nav>
  <div class="live"><span id="live" role="status">as of <time datetime="${at}">${moment(at).slice(11)}</time></span>
    <button type="button" id="pause" hidden aria-pressed="false">Pause</button><a id="reload" href="${self}">Refresh</a></div>
</header>
<main id="main" tabindex="-1" data-at="${at}">
${showing.databases > 1 && databases(showing, place)}
${body}
</main>
<footer><span>${mayAct ? "You may act here: every action is in the audit log." : "Read only: acting needs an admin token."}</span><span>Times are UTC, by the database's clock.</span></footer>
${mayAct && dialog}
<div id="said" role="status" aria-live="polite"></div>
</body>
</html>
`.text;
}

const databases = ({ databases: number, database }: Showing, place: PlaceId | undefined): Html | null =>
  place === "tasks" || place === "audit"
    ? html`<nav class="databases" aria-label="Database">${Array.from({ length: number }, (_, index) => {
        const path = PLACES.find((one) => one.id === place)!.path;
        return html`<a href="${href(path, { database: index })}"${index === (database ?? number - 1) ? html` aria-current="page"` : null}>Database ${index}</a>`;
      })}</nav>`
    : null;

const dialog = html`<dialog id="ask" aria-labelledby="ask-title"><form method="dialog">
  <h2 id="ask-title">Are you sure?</h2><p id="ask-text"></p>
  <div class="buttons"><button value="no" class="plain">Keep as it is</button><button value="yes" id="ask-yes" class="strong">Yes</button></div>
</form></dialog>`;

/** A button that posts an action; the script shows it. `ask` is the question before, for what cannot be taken back. */
export const button = (label: string, action: object, more: { ask?: string; of?: string; kind?: string } = {}): Html =>
  html`<button type="button" class="act ${more.kind ?? ""}" data-act="${JSON.stringify(action)}"${more.ask !== undefined && html` data-ask="${more.ask}"`}>${label}${more.of !== undefined && html`<span class="sr"> ${more.of}</span>`}</button>`;

export const empty = (title: string, text: Value): Html =>
  html`<div class="empty"><p><strong>${title}</strong></p><p>${text}</p></div>`;

/** A state as a word with a mark: never by colour alone. */
export const state = (name: string): Html => html`<span class="state ${name}">${name}</span>`;

export function errorPage(code: string, text: string, self: string): string {
  const at = new Date().toISOString();
  const body = html`<h1>This view cannot be shown</h1>
<section class="verdict bad"><p class="say">${text}</p><p>Code <code>${code}</code>. The function's log has the cause. <a href="${self}">Try again</a></p></section>
<p class="hint">Numbers that are not there are not zero: nothing is known until the database answers.</p>`;
  return page({
    title: "Error",
    place: undefined,
    body,
    self,
    showing: { at, mayAct: false, database: undefined, databases: 1 },
  });
}
