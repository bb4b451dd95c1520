// The page works without this: it keeps it fresh, and sends actions. No state of its own beyond the page.
const EVERY_MS = 3000;
const ACTIONS = "/processor/actions";
const byId = (id) => document.getElementById(id);
const main = byId("main");
let paused = false;
let failing = false;
let refreshing;
let acting = 0;

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
const held = () => paused || document.hidden || acting > 0 || byId("ask")?.open || selecting();

async function refresh() {
  refreshing ??= (async () => {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.getElementById("main");
      if (!answer.ok || !next) throw new Error(String(answer.status));
      morph(main, next);
      failing = false;
      status(`live, ${next.dataset.at.slice(11, 19)} UTC`);
    } catch {
      failing = true;
      status(`No answer; the numbers are of ${main.dataset.at.slice(11, 19)} UTC`);
    } finally {
      refreshing = undefined;
    }
  })();
  await refreshing;
}

function status(text) {
  const element = byId("live");
  // Only trouble is read aloud, not every refresh.
  element.setAttribute("aria-live", failing ? "polite" : "off");
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
  });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error?.message ?? `The server answered ${answer.status}.`);
  return told;
}

const tasks = (count) => `${count.toLocaleString("en-US")} ${count === 1 ? "task" : "tasks"}`;

async function confirmed(title, text, yes) {
  const dialog = byId("ask");
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue === "yes";
}

/** All that match, in as many requests as it takes. The count is shown first. */
async function sendAll(body, title) {
  const { count, done } = await send({ ...body, dryRun: true });
  if (count === 0) return say("No task matches this action.");
  const text = `${done ? "" : "At least "}${tasks(count)}. What changes its state meanwhile is passed over.`;
  if (
    !(await confirmed(
      `${title}?`,
      text,
      `${title.split(" ")[0]} ${done ? "" : "all "}${done ? count.toLocaleString("en-US") : ""}`.trim(),
    ))
  )
    return;
  let sum = 0;
  for (;;) {
    const step = await send(body);
    sum += step.count;
    if (step.done) break;
    say(`${tasks(sum)} so far ...`);
  }
  say(`Done: ${tasks(sum)}.`);
}

async function act(work) {
  acting += 1;
  try {
    await work();
  } catch (error) {
    say(`Not done: ${error.message}`, true);
  } finally {
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
  if (
    ask &&
    !(await confirmed(`${ask}?`.replace(/\?(.+)\?$/, "?$1."), "This cannot be taken back.", ask.split(" ")[0]))
  )
    return;
  const { count } = await send(body);
  say(DONE[body.action] ?? (count === 0 ? "Nothing changed: someone was faster." : `Done: ${tasks(count)}.`));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  const body = JSON.parse(button.dataset.act);
  act(() => (body.filter ? sendAll(body, button.dataset.ask) : sendOne(body, button.dataset.ask)));
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
  act(() => (bulk ? sendAll(body, `${name}: ${form.dataset.words}`) : sendOne(body)));
});

status(`live, ${main.dataset.at.slice(11, 19)} UTC`);
setTimeout(keepFresh, EVERY_MS);
