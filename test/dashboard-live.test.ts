/** The dashboard while it stays open: signing in, a database that goes away, what moves and what does not. */
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from "vitest";
import { startBrowser, violations } from "./support/browser.ts";
import { ADMIN, READER, type Site, serve } from "./support/dashboard.ts";
import { openDatabase, reset } from "./support/database.ts";
import { enqueueRaw, failure, register, Speaker } from "./support/exchange.ts";
import { administer } from "./support/postgres.ts";

/** Longer than three refreshes, or one after a failure. */
const REFRESHED = { timeout: 60_000 };
const db = await openDatabase("pg");
let browser: Browser;
let site: Site;
let context: BrowserContext | undefined;

beforeAll(async () => {
  browser = await startBrowser();
  site = await serve([db.database]);
});
afterAll(async () => {
  await browser?.close();
  await site?.close();
});
beforeEach(() => reset(db));
afterEach(() => context?.close());

async function sit(token?: string): Promise<Page> {
  context = await browser.newContext({
    viewport: { width: 1280, height: 600 },
    ...(token !== undefined && { httpCredentials: { username: "operator", password: token } }),
  });
  return await context.newPage();
}

async function fail(count: number): Promise<void> {
  await register(db, "r1", { greet: { maxAttempts: 1 } });
  await enqueueRaw(db, "greet", count);
  const speaker = new Speaker(db);
  const { tasks } = await speaker.say({ want: count });
  await speaker.say({ want: 0, results: tasks.map((task) => failure(task)) });
}

test("where reading is open, a link with an admin's token signs in, and acts", async () => {
  const open = await serve([db.database], { open: true });
  try {
    await enqueueRaw(db, "greet");
    const page = await sit();
    await page.goto(`${open.url}/processor`);
    expect(await page.locator("[data-act]").count()).toBe(0);
    expect(await page.getByRole("link", { name: "Sign in to act" }).getAttribute("href")).toBe("/processor?sign-in=1");
    await page.goto(`${open.url.replace("//", `//admin:${ADMIN}@`)}/processor?sign-in=1`);
    expect(await page.evaluate("location.href")).toBe(`${open.url}/processor`);
    await page.waitForFunction("new URL(document.baseURI).username === ''");
    const rights = () => page.locator("#foot").innerText();
    expect(await rights()).toContain("You may act here");
    await page.getByRole("button", { name: "Pause greet" }).click();
    await page.getByRole("button", { name: "Resume greet" }).waitFor();
    expect(await db.sql("SELECT who, action FROM audit")).toEqual([{ who: "ada", action: "pause" }]);
    await page.getByRole("link", { name: "Tasks" }).click();
    await page.waitForURL(/view\/tasks/);
    expect(await rights()).toContain("You may act here");
  } finally {
    await open.close();
  }
});

test("a reader's token does not sign in to act", async () => {
  const headers = { authorization: `Bearer ${READER}` };
  const answered = await fetch(`${site.url}/processor?sign-in=1`, { headers, redirect: "manual" });
  expect(answered.status).toBe(401);
  expect(answered.headers.get("www-authenticate")).toContain("Basic");
  expect(await answered.text()).toContain("MONITORING_ADMIN_TOKEN");
});

test("a database that goes away leaves what was known, says so, and comes back by itself", async () => {
  const other = await openDatabase("pg");
  const { pathname } = new URL(other.url.replace("@/", "@localhost/"));
  const name = pathname.slice(1);
  const away = [
    `ALTER DATABASE "${name}" ALLOW_CONNECTIONS false`,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`,
  ];
  const back = [`ALTER DATABASE "${name}" ALLOW_CONNECTIONS true`];
  const served = await serve([other.database]);
  try {
    await enqueueRaw(other, "greet", 3);
    const page = await sit(ADMIN);
    await page.goto(`${served.url}/processor`);
    const waiting = page.locator(".totals .value").first();
    await administer(inject("postgresUrl"), away);
    const stale = page.locator("#stale", { hasText: "The database cannot answer now. What stands here is of" });
    await stale.waitFor(REFRESHED);
    expect(await waiting.innerText()).toBe("3");
    expect(await violations(page)).toEqual([]);
    await page.getByRole("button", { name: "Pause greet" }).click();
    await page.locator("#said.bad", { hasText: "Not done: The database cannot serve this request now." }).waitFor();
    // Whoever comes now sees an error that is one, and that passes.
    const answered = await page.reload();
    expect(answered!.status()).toBe(503);
    await page.getByText("The database cannot answer now.").first().waitFor();
    expect(await violations(page)).toEqual([]);
    await administer(inject("postgresUrl"), back);
    await waiting.waitFor(REFRESHED);
    expect(await waiting.innerText()).toBe("3");
    expect(await page.title()).toBe("Overview · Stint");
    expect(await page.locator("#views [aria-current]").innerText()).toBe("Overview");
    await page.getByRole("button", { name: "Pause everything" }).click();
    await page.locator("#ask-yes").click();
    await page.getByText("Everything is paused").waitFor();
    await page.getByRole("button", { name: "Resume everything" }).click();
    await page.getByText("Everything is paused").waitFor({ state: "detached" });
    expect(await other.sql("SELECT action FROM audit ORDER BY id")).toEqual([
      { action: "pause" },
      { action: "resume" },
    ]);
  } finally {
    await administer(inject("postgresUrl"), back);
    await served.close();
  }
});

test("a task that is deleted while its page is open is shown as gone", async () => {
  await fail(1);
  const page = await sit(ADMIN);
  await page.goto(`${site.url}/processor/view/tasks?state=failed`);
  await page.locator("tbody a").first().click();
  await page.getByRole("button", { name: "Delete task" }).click();
  await page.locator("#ask-yes").click();
  await page.getByText(/There is no task \d+/).waitFor();
  expect(await page.locator("#stale").isHidden()).toBe(true);
  await page.getByRole("link", { name: "All unfinished tasks" }).click();
  await page.getByText("Everything that was enqueued has been finished.").waitFor();
});

test("by keyboard alone: a question, its answer, and the focus goes to the next one", async () => {
  await fail(3);
  const page = await sit(ADMIN);
  await page.goto(`${site.url}/processor/view/tasks?state=failed`);
  await page.keyboard.press("Tab");
  expect(await page.evaluate("document.activeElement.textContent")).toBe("Skip to content");
  const focused = () => page.evaluate<string>("document.activeElement.textContent");
  const press = async (wanted: string) => {
    for (let n = 0; (await focused()) !== wanted; n++) {
      if (n > 60) throw new Error(`${wanted} has no focus to be had`);
      await page.keyboard.press("Tab");
    }
    await page.keyboard.press("Enter");
  };
  const ids = await page.locator("tbody .id").allInnerTexts();
  await press(`Retry task ${ids[0]}`);
  await page.locator("#said", { hasText: "Done: 1 task" }).waitFor();
  await expect.poll(focused, REFRESHED).toBe(`Retry task ${ids[1]}`);
  await press("Act on all that match");
  await press("Count first");
  await page.locator("#ask-title", { hasText: "Retry 2 tasks?" }).waitFor();
  expect(await focused()).toBe("Keep as it is");
  await press("Retry 2");
  await page.getByText("There is no failed task.").waitFor();
  expect(await db.sql("SELECT count(*)::int AS n FROM task")).toEqual([{ n: 3 }]);
});

test("nothing moves from under the pointer, and a second click is none", async () => {
  await fail(2);
  const page = await sit(ADMIN);
  await page.goto(`${site.url}/processor/view/tasks?state=failed`);
  const rows = page.locator("tbody tr");
  const retry = page.locator("tbody button").first();
  const label = await retry.textContent();
  await fail(3);
  // On a button, and on the move: the rows that came stay away for now.
  const { x, y } = (await retry.boundingBox())!;
  for (let n = 0; n < 10; n++) {
    await page.mouse.move(x + 5 + (n % 2), y + 5);
    await page.waitForTimeout(500);
  }
  expect([await rows.count(), await retry.textContent()]).toEqual([2, label]);
  await page.mouse.dblclick(x + 5, y + 5);
  await expect.poll(() => rows.count(), REFRESHED).toBe(4);
  expect(site.posts.filter((body) => body.includes('"retry"')).slice(-1)).toHaveLength(1);
  expect(await db.sql("SELECT count(*)::int AS n FROM audit")).toEqual([{ n: 1 }]);
});
