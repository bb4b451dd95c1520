// The page works without this: it keeps it fresh, and sends actions. No state of its own beyond the page.
const EVERY_MS = 3000;
const ANSWER_MS = 10_000;
/** As long as the gateway in front of the function waits. */
const ACT_MS = 30_000;
/** For so long after the pointer came to rest on a link or button, nothing moves from under it. */
const AIM_MS = 4000;
const ACTIONS = "/processor/actions";
const byId = (id) => document.getElementById(id);
const main = byId("main");
let paused = false;
let failing = false;
let refreshing;
let acting = 0;
let pointedAt = -AIM_MS;

// Came in by a link with a token in it: that stays the base of every address here. fetch refuses such, and for such a browser sends
// no token unless asked, which nobody does where reading is open. The same page again, without it.
if (new URL(document.baseURI).username !== "") location.replace(location.href);

document.documentElement.classList.add("js");
byId("reload").hidden = true;
byId("pause").hidden = false;

// Morphing: what has not changed stays the same element, so that focus, selection, scrolling and open details stay.
const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || node.id : "");

function morph(from, to) {
  for (const { name } of [...from.attributes])
    if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
  for (const { name, value } of [...to.attributes])
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  // What somebody is filling in is theirs.
  if (from.matches("form")) return;
  const keyed = new Map([...from.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  let place = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const key = keyOf(wanted);
    let match = key ? keyed.get(key) : place;
    if (!key) while (match && keyOf(match)) match = match.nextSibling;
    if (!match || match.nodeName !== wanted.nodeName) {
      from.insertBefore(document.importNode(wanted, true), place);
      continue;
    }
    if (match === place) place = place.nextSibling;
    else from.insertBefore(match, place);
    if (match.nodeType === 1) morph(match, wanted);
    else if (match.nodeValue !== wanted.nodeValue) match.nodeValue = wanted.nodeValue;
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

const selecting = () => {
  const selection = getSelection();
  return selection && !selection.isCollapsed && main.contains(selection.anchorNode);
};
const aiming = () =>
  performance.now() - pointedAt < AIM_MS && main.querySelector("a:hover, button:hover, summary:hover") !== null;
const held = () => paused || document.hidden || acting > 0 || byId("ask")?.open || selecting() || aiming();
main.addEventListener("pointermove", () => {
  pointedAt = performance.now();
});

/** To be called after a morph: what had the focus may be gone, and what is beside it gets it then. */
function keepFocus() {
  const focused = document.activeElement;
  if (focused === main || !main.contains(focused)) return () => {};
  const row = focused.closest("tr, li, .toolbar");
  const near = [focused.parentElement, row, row?.nextElementSibling, row?.previousElementSibling];
  return () => {
    if (focused.isConnected) return;
    const place = near.find((one) => one?.isConnected && one.querySelector("button, a"));
    const next = place?.querySelector("button") ?? place?.querySelector("a") ?? main;
    next.focus({ preventScroll: true });
  };
}

async function refresh() {
  refreshing ??= (async () => {
    try {
      const { answer, page } = await load();
      const next = page.getElementById("main");
      // What is not there any more is shown as that. A database that cannot answer does not take away what was known.
      if (!next || (answer.status >= 500 && !("error" in main.dataset)))
        throw new Error(next?.querySelector(".say")?.textContent ?? UNANSWERED[answer.status]);
      const focus = keepFocus();
      for (const id of ["main", "views", "foot"]) morph(byId(id), page.getElementById(id));
      if (!byId("ask") && page.getElementById("ask"))
        document.body.append(document.importNode(page.getElementById("ask"), true));
      document.title = page.title;
      focus();
      failing = false;
      stale("");
      status(`live, ${main.dataset.at.slice(11, 19)} UTC`);
    } catch (error) {
      failing = true;
      stale(`${error.message || UNANSWERED[0]} What stands here is of ${main.dataset.at.slice(11, 19)} UTC.`);
      status("not live, trying again");
    } finally {
      refreshing = undefined;
    }
  })();
  await refreshing;
}

const UNANSWERED = {
  0: "The server does not answer.",
  401: "Your token is not accepted any more: load the page again.",
};

async function load() {
  const signal = AbortSignal.timeout(ANSWER_MS);
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store", signal });
    return { answer, page: new DOMParser().parseFromString(await answer.text(), "text/html") };
  } catch {
    throw new Error(UNANSWERED[0]);
  }
}

/** Read aloud when it comes, not with every refresh. */
function stale(text) {
  const element = byId("stale");
  element.hidden = text === "";
  main.classList.toggle("old", text !== "");
  if (element.textContent !== text) element.textContent = text;
}

function status(text) {
  const element = byId("live");
  element.classList.toggle("failing", failing);
  if (element.textContent !== text) element.textContent = text;
}

async function keepFresh() {
  if (!held()) await refresh();
  setTimeout(keepFresh, failing ? EVERY_MS * 3 : EVERY_MS);
}

byId("pause").addEventListener("click", ({ currentTarget }) => {
  paused = !paused;
  currentTarget.setAttribute("aria-pressed", String(paused));
  if (paused) status(`paused at ${main.dataset.at.slice(11, 19)} UTC`);
  else refresh();
});
document.addEventListener("visibilitychange", () => {
  if (!held()) refresh();
});

// Actions.
function say(text, bad = false) {
  const element = byId("said");
  element.classList.toggle("bad", bad);
  element.textContent = text;
  clearTimeout(say.timer);
  if (!bad) say.timer = setTimeout(() => (element.textContent = ""), 8000);
}

async function send(body) {
  const answer = await fetch(ACTIONS, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(ACT_MS),
  }).catch(() => {
    throw new Error("The server did not answer. Whether it was done, the audit log knows.");
  });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(`Not done: ${told.error?.message ?? `the server answered ${answer.status}.`}`);
  return told;
}

const tasks = (count) => `${count.toLocaleString("en-US")} ${count === 1 ? "task" : "tasks"}`;

const AFTERWARDS = {
  cancel: "It is kept as cancelled, and may be retried.",
  delete: "This cannot be taken back.",
  pause: "What runs now goes on.",
};

async function confirmed(title, text, yes, action) {
  const dialog = byId("ask");
  byId("ask-yes").classList.toggle("danger", action === "delete" || action === "cancel");
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue === "yes";
}

/** All that match, in as many requests as it takes. The count is shown first. */
async function sendAll(body, name, words) {
  const { count, done } = await send({ ...body, dryRun: true });
  if (count === 0) return say(`Nothing of it is in a state for this: ${words}.`);
  const [verb, ...rest] = name.split(" ");
  const title = `${[verb, ...rest, ...(rest.length > 0 ? ["of"] : [])].join(" ")} ${done ? "" : "at least "}${tasks(count)}?`;
  const text = [
    `All that match: ${words}.`,
    AFTERWARDS[body.action],
    "What changes its state meanwhile is passed over.",
  ];
  const yes = `${verb} ${done ? count.toLocaleString("en-US") : "all"}`;
  say("");
  if (!(await confirmed(title, text.filter(Boolean).join(" "), yes, body.action))) return;
  let sum = 0;
  for (;;) {
    const step = await send(body);
    sum += step.count;
    if (step.done) break;
    say(`${tasks(sum)} so far ...`);
  }
  say(`Done: ${tasks(sum)}.`);
}

/** One at a time: a second click while the first is under way is none. */
async function act(work) {
  if (acting > 0) return;
  acting += 1;
  const patience = setTimeout(() => byId("ask")?.open || say("Working ..."), 500);
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    clearTimeout(patience);
    acting -= 1;
    if (!paused) await refresh();
  }
}

const DONE = {
  pause: "Paused.",
  resume: "Resumed.",
  recurring_run: "Due now.",
  recurring_enable: "Enabled.",
  recurring_disable: "Disabled.",
};

async function sendOne(body, ask) {
  if (ask && !(await confirmed(`${ask}?`, AFTERWARDS[body.action] ?? "", ask.split(" ")[0], body.action))) return;
  const { count } = await send(body);
  say(count === 0 ? "Nothing changed: someone was faster." : (DONE[body.action] ?? `Done: ${tasks(count)}.`));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  const body = JSON.parse(button.dataset.act);
  const { ask } = button.dataset;
  act(() => (body.filter ? sendAll(body, "Delete", ask) : sendOne(body, ask)));
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  const { bulk, change } = form.dataset;
  if (!bulk && !change) return;
  event.preventDefault();
  const values = new FormData(form);
  const action = form.dataset.action ?? values.get("action");
  const body = { action, ...JSON.parse(bulk ?? change) };
  if (action === "set_priority") body.priority = Number(values.get("priority"));
  if (action === "set_due") {
    if (!values.get("due")) return say("Choose a due time first.", true);
    body.due = `${values.get("due")}Z`;
  }
  const name = form.elements.action?.selectedOptions[0].textContent;
  act(() => (bulk ? sendAll(body, name, form.dataset.words) : sendOne(body)));
});

status(`live, ${main.dataset.at.slice(11, 19)} UTC`);
setTimeout(keepFresh, EVERY_MS);
