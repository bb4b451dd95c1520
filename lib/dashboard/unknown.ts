/** Tasks that wait for a release which knows them. */
import type { IdentifierStats, Stats } from "../stats-schema.ts";
import { count, duration } from "./format.ts";
import { type Html, href, html } from "./html.ts";
import { button, empty, type Showing, VIEW } from "./page.ts";

/** @param all one for each database, by its place */
export function unknown(all: readonly Stats[], { mayAct }: Showing): Html {
  const several = all.length > 1;
  const rows = all.flatMap((stats, place) =>
    stats.unknownIdentifiers.flatMap((name) => {
      const one = stats.identifiers.find(({ identifier }) => identifier === name);
      return one === undefined ? [] : [row(one, several ? place : undefined, mayAct)];
    }),
  );
  return html`<header class="head"><h1>Unknown identifiers</h1><p>They have unfinished tasks, and no release seen within 30 minutes has a handler. Nothing is lost: the tasks wait. Deploy a release that has the handler, or delete them.</p></header>
${
  rows.length === 0
    ? empty("Every task is known", "Each identifier with unfinished tasks has a handler in a release that is alive.")
    : html`<div class="scroll" tabindex="0" role="region" aria-label="Unknown identifiers"><table class="list"><thead><tr><th scope="col">Identifier</th>${several && html`<th scope="col">Database</th>`}<th scope="col" class="n">Waiting</th><th scope="col" class="n">Due later</th><th scope="col" class="n">Oldest</th>${mayAct && html`<th scope="col"><span class="sr">Actions</span></th>`}</tr></thead><tbody>${rows}</tbody></table></div>`
}`;
}

function row(one: IdentifierStats, database: number | undefined, mayAct: boolean): Html {
  const { identifier, waiting, scheduled, retrying } = one;
  const later = { count: scheduled.count + retrying.count, estimated: scheduled.estimated || retrying.estimated };
  const deletion = { action: "delete", filter: { identifier }, ...(database !== undefined && { database }) };
  return html`<tr data-key="u-${database}-${identifier}"><th scope="row"><a href="${href(`${VIEW}/tasks`, { identifier, database })}">${identifier}</a></th>${database !== undefined && html`<td>${database}</td>`}<td class="n">${count(waiting)}</td><td class="n">${count(later)}</td><td class="n">${duration(one.oldestWaitingMs)}</td>
  ${mayAct && html`<td class="acts">${button("Delete all", deletion, { of: `of ${identifier}`, ask: `every unfinished one of ${identifier}`, kind: "danger" })}</td>`}</tr>`;
}
