import { readFileSync } from "node:fs";
import { build } from "esbuild";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { inlinedAssets } from "../infra/inline-assets.ts";
import { startBrowser, violations } from "./support/browser.ts";
import { ADMIN, HOSTILE, load, READER, runHostile, type Site, serve } from "./support/dashboard.ts";
import { openDatabase } from "./support/database.ts";

/** Ends when it is so. */
const LATER = { timeout: 60_000 };
const root = new URL("../", import.meta.url);
const FOLDER = process.env.STINT_SCREENSHOTS;

test("the inlined assets are the files beside them", () => {
  expect(readFileSync(new URL("lib/dashboard/assets/inlined.ts", root), "utf8")).toBe(inlinedAssets());
});

test("the monitoring function, with pages and charts, stays under 400 KB", async () => {
  const { outputFiles } = await build({
    entryPoints: [new URL("functions/monitoring.ts", root).pathname],
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    platform: "node",
    target: "node24",
    mainFields: ["module", "main"],
    external: ["pg-native", "@aws-sdk/client-rds-data"],
    metafile: true,
  });
  expect(outputFiles[0]!.contents.byteLength).toBeLessThan(400_000);
});

describe("in a browser", async () => {
  const db = await openDatabase("pg");
  let site: Site;
  let browser: Browser;
  let rest: () => Promise<void>;
  beforeAll(async () => {
    [browser, rest] = await Promise.all([startBrowser(), load(db)]);
    site = await serve([db.database]);
  });
  afterAll(async () => {
    await browser?.close();
    await rest?.();
    await site?.close();
  });

  interface Sitting {
    readonly page: Page;
    /** What the browser complained of: a violation of the policy, an error in the script. */
    readonly complaints: string[];
    readonly context: BrowserContext;
  }
  async function sit(
    options: { token?: string; dark?: boolean; width?: number; script?: boolean } = {},
  ): Promise<Sitting> {
    const { token = ADMIN, dark = false, width = 1280, script = true } = options;
    const context = await browser.newContext({
      colorScheme: dark ? "dark" : "light",
      viewport: { width, height: width < 500 ? 844 : 900 },
      httpCredentials: { username: "operator", password: token, send: "always" },
      javaScriptEnabled: script,
    });
    const complaints: string[] = [];
    const page = await context.newPage();
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error" && !/ 40[04] /.test(message.text())) complaints.push(message.text());
    });
    return { page, complaints, context };
  }
  const open = (page: Page, path: string) => page.goto(`${site.url}${path}`);
  const failedId = async (identifier = "invoices.send"): Promise<string> =>
    (
      await db.sql<{ id: string }>("SELECT id FROM failed_task WHERE identifier = $1 ORDER BY id LIMIT 1", [identifier])
    )[0]!.id;

  describe.each([
    { dark: false, width: 1280 },
    { dark: true, width: 1280 },
    { dark: false, width: 390 },
    { dark: true, width: 390 },
  ])("dark $dark, $width wide", ({ dark, width }) => {
    test("every view is whole, accessible and fits", async () => {
      const { page, complaints, context } = await sit({ dark, width });
      const views: [string, string][] = [
        ["overview", "/processor"],
        ["tasks", "/processor/view/tasks?limit=8"],
        ["failed", "/processor/view/tasks?state=failed&limit=8"],
        ["succeeded", "/processor/view/tasks?state=succeeded&limit=8"],
        ["nothing", "/processor/view/tasks?identifier=no.such"],
        ["task", `/processor/view/tasks/${await failedId("webhooks.deliver")}?payload=1`],
        ["cancelled", `/processor/view/tasks/${await failedId()}`],
        ["recurring", "/processor/view/recurring"],
        ["unknown", "/processor/view/unknown"],
        ["audit", "/processor/view/audit"],
        ["missing", "/processor/view/nothing"],
        ["refused", "/processor/view/tasks?from=yesterday"],
      ];
      for (const [name, path] of views) {
        const answered = await open(page, path);
        expect([name, answered!.status()]).toEqual([name, { missing: 404, refused: 400 }[name] ?? 200]);
        expect(answered!.headers()["content-security-policy"]).toContain("default-src 'none'");
        if (
          FOLDER !== undefined &&
          (width > 500 ? ["overview", "failed", "task", "recurring"] : ["overview", "task"]).includes(name)
        )
          await page.screenshot({
            path: `${FOLDER}/${name}-${dark ? "dark" : "light"}-${width}.png`,
            fullPage: width > 500,
          });
        expect([name, await violations(page)]).toEqual([name, []]);
        const wider = await page.evaluate(
          "Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)",
        );
        expect([name, wider]).toEqual([name, 0]);
      }
      await open(page, "/processor/view/tasks?state=failed");
      await page.getByText("Act on all that match").click();
      expect(["bulk", await violations(page)]).toEqual(["bulk", []]);
      await page.getByRole("button", { name: "Count first" }).click();
      await page.locator("#ask-title", { hasText: "Retry" }).waitFor();
      expect(["question", await violations(page)]).toEqual(["question", []]);
      expect(complaints).toEqual([]);
      await context.close();
    });
  });

  test("stored HTML is text, wherever it stands", async () => {
    const { page, complaints, context } = await sit();
    const id = await runHostile(db);
    for (const path of [
      "/processor",
      "/processor/view/tasks?state=cancelled",
      `/processor/view/tasks/${id}?payload=1`,
      `/processor/view/tasks?identifier=${encodeURIComponent(HOSTILE.slice(0, 150))}&key=${encodeURIComponent(HOSTILE)}`,
    ]) {
      await open(page, path);
      expect(await page.locator("main img, main script").count()).toBe(0);
      expect(await page.title()).toMatch(/Stint$/);
      expect(await page.content()).toContain("&lt;img src=x");
    }
    expect(complaints).toEqual([]);
    await context.close();
  });

  test("a payload is not sent before it is asked for", async () => {
    const { page, context } = await sit();
    await db.sql(`UPDATE failed_task SET payload = '{"secret": "tulip"}' WHERE id = $1`, [await failedId()]);
    await open(page, `/processor/view/tasks/${await failedId()}`);
    expect(await page.content()).not.toContain("tulip");
    await page.getByRole("link", { name: /Show payload/ }).click();
    expect(await page.locator("pre").first().textContent()).toContain("tulip");
    await context.close();
  });

  test("a reader sees no controls, and no refusal either", async () => {
    const { page, complaints, context } = await sit({ token: READER });
    for (const path of [
      "/processor",
      "/processor/view/tasks?state=failed",
      `/processor/view/tasks/${await failedId()}`,
      "/processor/view/recurring",
    ]) {
      await open(page, path);
      expect(await page.locator("[data-act], [data-bulk], [data-change], dialog").count()).toBe(0);
    }
    expect(complaints).toEqual([]);
    const refused = await page.evaluate(async () => {
      const answered = await fetch("/processor/actions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"action":"pause","identifier":"*"}',
      });
      return answered.status;
    });
    expect(refused).toBe(403);
    await context.close();
  });

  test("it works without script, by links and forms, and shows no control that would do nothing", async () => {
    const { page, context } = await sit({ script: false });
    await open(page, "/processor");
    await page.locator(".totals a", { hasText: "failed" }).last().click();
    await page.getByLabel("Identifier").fill("invoices.send");
    await page.getByRole("button", { name: "Filter" }).click();
    expect(page.url()).toContain("identifier=invoices.send");
    expect(page.url()).toContain("state=failed");
    await page.getByRole("link", { name: "Refresh" }).click();
    expect(await page.locator("button.act:visible").count()).toBe(0);
    await context.close();
  });

  const said = (page: Page, text: RegExp) => page.locator("#said", { hasText: text }).waitFor();
  const state = async (id: string): Promise<string> =>
    (
      (await (
        await fetch(`${site.url}/processor/tasks/${id}`, { headers: { authorization: `Bearer ${READER}` } })
      ).json()) as { task: { state: string } }
    ).task.state;

  test("one task: priority, due time, cancel with a question, retry, run now, delete", async () => {
    const { page, complaints, context } = await sit();
    const [{ id }] = (await db.sql<{ id: string }>(
      "SELECT id FROM task WHERE identifier = 'emails.welcome' AND attempt = 0 ORDER BY id LIMIT 1",
    )) as [{ id: string }];
    await open(page, `/processor/view/tasks/${id}`);
    await page.getByLabel("Priority").selectOption("High");
    await page.getByRole("button", { name: "Set priority" }).click();
    await said(page, /Done: 1 task/);
    await page.getByLabel("Due, UTC").fill("2999-01-01T00:00");
    await page.getByRole("button", { name: "Set due time" }).click();
    await page.getByText("2999-01-01 00:00:00 UTC").waitFor();
    expect(await db.sql("SELECT priority FROM task WHERE id = $1", [id])).toEqual([{ priority: 25 }]);

    const cancel = page.getByRole("button", { name: "Cancel task" });
    await cancel.click();
    await page.getByRole("button", { name: "Keep as it is" }).click();
    expect(await state(id)).toBe("scheduled");
    await cancel.click();
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    await page.locator(".head .state.cancelled").waitFor();
    expect(await state(id)).toBe("cancelled");
    await page.getByRole("button", { name: "Retry" }).click();
    await expect.poll(() => state(id), LATER).not.toBe("cancelled");

    const [{ other }] = (await db.sql<{ other: string }>(
      "SELECT id AS other FROM task WHERE identifier = 'emails.welcome' AND attempt = 0 AND id <> $1 AND scheduled_for > now() ORDER BY id LIMIT 1",
      [id],
    )) as [{ other: string }];
    await open(page, `/processor/view/tasks/${other}`);
    await page.getByRole("button", { name: "Run now" }).click();
    await expect.poll(() => state(other), LATER).toBe("succeeded");

    await open(page, `/processor/view/tasks/${await failedId()}`);
    const gone = await failedId();
    await page.getByRole("button", { name: "Delete task" }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await expect.poll(() => db.sql("SELECT 1 FROM failed_task WHERE id = $1", [gone]), LATER).toEqual([]);
    expect(complaints).toEqual([]);
    await context.close();
  });

  test("all that match: the count stands in the question, and is what was done", async () => {
    const { page, complaints, context } = await sit();
    await open(page, "/processor/view/tasks?state=scheduled&identifier=emails.welcome");
    await page.getByText("Act on all that match").click();
    await page.getByLabel("Action").selectOption("Cancel");
    const [{ n }] = (await db.sql<{ n: number }>(
      "SELECT count(*)::int AS n FROM task WHERE identifier = 'emails.welcome' AND attempt = 0 AND scheduled_for > clock_timestamp()",
    )) as [{ n: number }];
    await page.getByRole("button", { name: "Count first" }).click();
    await page.locator("#ask-title", { hasText: `Cancel ${n} tasks?` }).waitFor();
    await page.locator("#ask-text", { hasText: "scheduled, of emails.welcome" }).waitFor();
    expect(site.posts.filter((body) => body.includes("filter") && !body.includes('"dryRun":true'))).toEqual([]);
    await page.locator("#ask-yes").click();
    await said(page, new RegExp(`Done: ${n} tasks`));
    await page.getByText("No task matches").waitFor();
    expect(complaints).toEqual([]);
    await context.close();
  });

  test("identifiers pause and resume, schedules run and rest, and the audit log has it all", async () => {
    const { page, complaints, context } = await sit();
    await open(page, "/processor");
    await page.getByRole("button", { name: "Pause webhooks.deliver" }).click();
    await page.getByRole("button", { name: "Resume webhooks.deliver" }).click();
    await page.getByRole("button", { name: "Pause webhooks.deliver" }).waitFor();
    await open(page, "/processor/view/recurring");
    await page.getByRole("button", { name: "Disable caches.warm" }).click();
    await page.getByRole("button", { name: "Enable caches.warm" }).click();
    const nightly = () => db.sql("SELECT 1 FROM task_run WHERE identifier = 'reports.nightly'");
    const before = (await nightly()).length;
    await page.getByRole("button", { name: "Run now reports.nightly" }).click();
    await expect.poll(nightly, LATER).toHaveLength(before + 1);
    await open(page, "/processor/view/unknown");
    await page.getByRole("button", { name: "Delete all of legacy.sync" }).click();
    await page.locator("#ask-title", { hasText: "Delete 3 tasks?" }).waitFor();
    await page.locator("#ask-yes").click();
    await page.getByText("Every task is known").waitFor();
    await open(page, "/processor/view/audit");
    const log = await page.locator("main").innerText();
    for (const word of [
      "ada",
      "pause",
      "resume",
      "recurring run",
      "recurring disable",
      "recurring enable",
      "delete",
      "legacy.sync",
    ])
      expect(log).toContain(word);
    expect(complaints).toEqual([]);
    await context.close();
  });

  test("the page keeps itself fresh, and leaves focus, open parts and what is typed alone", async () => {
    const { page, complaints, context } = await sit();
    await open(page, "/processor/view/tasks?identifier=webhooks.deliver");
    await page.getByText("No task matches").waitFor();
    await page.getByLabel("Key").fill("half-typed");
    await db.sql(
      "INSERT INTO task (identifier, payload, scheduled_for) VALUES ('webhooks.deliver', '{}', now() + interval '1 day')",
    );
    await page.locator("tbody tr").first().waitFor(LATER);
    expect(await page.getByLabel("Key").inputValue()).toBe("half-typed");
    expect(await page.evaluate("document.activeElement.name")).toBe("key");
    await open(page, "/processor");
    const table = page.locator("#throughput-numbers");
    await table.locator("summary").click();
    const first = await page.locator("main").getAttribute("data-at");
    await expect.poll(() => page.locator("main").getAttribute("data-at"), LATER).not.toBe(first);
    expect(await table.getAttribute("open")).toBe("");
    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.locator("#live", { hasText: "paused" }).waitFor();
    expect(complaints).toEqual([]);
    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.route("**/processor", (route) => route.abort());
    await page.locator("#stale", { hasText: "The server does not answer." }).waitFor(LATER);
    await page.unroute("**/processor");
    await page.locator("#stale").waitFor({ state: "hidden", ...LATER });
    await context.close();
  });
});
