/** What stands around every view: head, navigation, the state of the live refresh, the dialog that asks before an action. */
import { assetPath } from "./assets.ts";
import { moment } from "./format.ts";
import { type Html, href, html, type Value } from "./html.ts";

export const ROOT = "/processor";
export const VIEW = `${ROOT}/view`;
/** In the overview's query: asks a browser for an admin token. */
export const SIGN_IN = "sign-in";
export const PLACES = [
  { id: "overview", name: "Overview", path: ROOT },
  { id: "tasks", name: "Tasks", path: `${VIEW}/tasks` },
  { id: "recurring", name: "Recurring", path: `${VIEW}/recurring` },
  { id: "unknown", name: "Unknown", path: `${VIEW}/unknown` },
  { id: "audit", name: "Audit", path: `${VIEW}/audit` },
] as const;
export type PlaceId = (typeof PLACES)[number]["id"];

/** What a view is shown with. */
export interface Showing {
  /** The moment its numbers are of. */
  readonly at: string;
  readonly mayAct: boolean;
  /** There is an admin token that one could sign in with. */
  readonly actingPossible: boolean;
  /** Place in TASK_PROCESSOR_DATABASES; undefined: none was chosen. */
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
  <nav id="views" aria-label="Views">${PLACES.map((one) => html`<a href="${href(one.path, { database })}"${one.id === place ? html` aria-current="page"` : null}>${one.name}</a>`)}</nav>
  <div class="live"><span id="live">as of <time datetime="${at}">${moment(at).slice(11)}</time></span>
    <button type="button" id="pause" hidden aria-pressed="false">Pause</button><a id="reload" href="${self}">Refresh</a></div>
</header>
<p id="stale" role="alert" hidden></p>
<main id="main" tabindex="-1" data-at="${at}"${place === undefined && html` data-error`}>
${showing.databases > 1 && databases(showing, place)}
${body}
</main>
<footer id="foot"><span>${rights(showing)}</span><span>Times are UTC, by the database's clock.</span></footer>
${mayAct && dialog}
<div id="said" role="status" aria-live="polite"></div>
</body>
</html>
`.text;
}

const rights = ({ mayAct, actingPossible }: Showing): Html =>
  mayAct
    ? html`You may act here: every action is in the audit log.`
    : actingPossible
      ? html`Read only. <a href="${href(ROOT, { [SIGN_IN]: 1 })}">Sign in to act</a> with an admin token.`
      : html`Read only: no MONITORING_ADMIN_TOKEN is set.`;

/** Of a view that is of one database, or may be. The other views tell of each row where it is. */
function databases({ databases: number, database }: Showing, place: PlaceId | undefined): Html | null {
  if (place !== "overview" && place !== "tasks" && place !== "audit") return null;
  const path = PLACES.find((one) => one.id === place)!.path;
  const link = (name: string, index: number | undefined, current: boolean): Html =>
    html`<a href="${href(path, { database: index })}"${current && html` aria-current="true"`}>${name}</a>`;
  const shown = database ?? (place === "overview" ? undefined : number - 1);
  return html`<nav class="databases" aria-label="Database">${place === "overview" && link("All databases", undefined, shown === undefined)}${Array.from(
    { length: number },
    (_, index) => link(`Database ${index}${index === number - 1 ? ", of new tasks" : ""}`, index, shown === index),
  )}</nav>`;
}

const dialog = html`<dialog id="ask" aria-labelledby="ask-title"><form method="dialog">
  <h2 id="ask-title">Are you sure?</h2><p id="ask-text"></p>
  <div class="buttons"><button value="no" class="plain">Keep as it is</button><button value="yes" id="ask-yes" class="strong">Yes</button></div>
</form></dialog>`;

/** A button that posts an action; the script shows it. `ask` is the question before, for what cannot be taken back. */
export const button = (label: string, action: object, more: { ask?: string; of?: string; kind?: string } = {}): Html =>
  html`<button type="button" class="act ${more.kind ?? ""}" data-key="${label}" data-act="${JSON.stringify(action)}"${more.ask !== undefined && html` data-ask="${more.ask}"`}>${label}${more.of !== undefined && html`<span class="sr"> ${more.of}</span>`}</button>`;

export const empty = (title: string, text: Value): Html =>
  html`<div class="empty"><p><strong>${title}</strong></p><p>${text}</p></div>`;

/** A state as a word with a mark: never by colour alone. */
export const state = (name: string): Html => html`<span class="state ${name}">${name}</span>`;

export function errorPage(code: string, text: string, self: string, showing: Showing): string {
  const { database } = showing;
  const elsewhere = html`<a href="${href(`${VIEW}/tasks`, { database })}">All unfinished tasks</a>`;
  const body = html`<h1 class="sr">This view cannot be shown</h1>
<section class="verdict bad"><p class="say">${text}</p><p>Code <code>${code}</code>. ${
    code === "not_found"
      ? elsewhere
      : html`<a href="${self}">Try again</a>${code !== "request_invalid" && code !== "unauthorized" && " The function's log has the cause; this page looks again by itself."}`
  }</p></section>
${code.startsWith("database_") && html`<p class="hint">Nothing is known until the database answers: neither that all is well, nor that something is lost. Tasks that are stored stay stored.</p>`}`;
  return page({ title: "Error", place: undefined, body, self, showing: { ...showing, databases: 1 } });
}
