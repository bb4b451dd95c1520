/** The monitoring function as it is packaged, in a sandbox of Lambda, with a separate database for tasks: seen in a browser. */
import { rmSync } from "node:fs";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import type { HttpAnswer, HttpRequest } from "../lib/http.ts";
import { startBrowser, violations } from "./support/browser.ts";
import { temporaryFolder } from "./support/command.ts";
import { ADMIN, listen, type Site } from "./support/dashboard.ts";
import { openDatabase, reset, type TestDatabase } from "./support/database.ts";
import { enqueueRaw, register, Speaker } from "./support/exchange.ts";
import { LOOP, packageProcessor } from "./support/package.ts";
import { Sandbox } from "./support/runtime-api.ts";

const main = await openDatabase("pg");
const separate = await openDatabase("pg");
const nameOf = ({ url }: TestDatabase): string => new URL(url.replace("@/", "@localhost/")).pathname.slice(1);
const SLOW_MS = 120_000;
const folder = temporaryFolder();
let site: Site;
let browser: Browser;
let context: BrowserContext;
let page: Page;

/** API Gateway: one request after the other, as there is one sandbox. */
function gateway(sandbox: Sandbox): (request: HttpRequest) => Promise<HttpAnswer> {
  let turn: Promise<unknown> = Promise.resolve();
  return ({ method, path, query, headers, body }) => {
    const rawQueryString = new URLSearchParams(query as Record<string, string>).toString();
    const event = {
      version: "2.0",
      rawPath: path,
      rawQueryString,
      headers,
      queryStringParameters: query,
      requestContext: { http: { method, path } },
      ...(body !== "" && { body }),
      isBase64Encoded: false,
    };
    const answered = turn.then(async () => {
      const { status, body: answer } = await sandbox.invoke(event);
      if (status !== "succeeded") throw new Error(`${status}: ${JSON.stringify(answer)}\n${sandbox.output}`);
      return { status: answer.statusCode, headers: answer.headers, body: answer.body };
    });
    turn = answered.catch(() => {});
    return answered;
  };
}

beforeAll(async () => {
  const [dataApi, started, packaged] = await Promise.all([
    startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url: main.url }] }),
    startBrowser(),
    packageProcessor(folder, "monitoring"),
  ]);
  browser = started;
  const cluster = { RESOURCE_ARN: LOCAL.resourceArn, SECRET_ARN: LOCAL.secretArn };
  const connecting = (prefix: string, db: TestDatabase) =>
    Object.entries({ ...cluster, NAME: nameOf(db) }).map(([part, value]) => [`${prefix}DATABASE_${part}`, value]);
  const sandbox = await Sandbox.start({
    folder: packaged.folder,
    handler: packaged.handler,
    client: LOOP,
    timeoutMs: 30_000,
    environment: {
      ...packaged.environment,
      AWS_ENDPOINT_URL_RDS_DATA: dataApi.endpoint,
      ...Object.fromEntries([...connecting("", main), ...connecting("TASK_PROCESSOR_", separate)]),
      MONITORING_PUBLIC: "false",
      MONITORING_ADMIN_TOKEN: `ada:${ADMIN}`,
    },
  });
  site = await listen(gateway(sandbox));
  afterAll(() => dataApi.close());
}, SLOW_MS);
afterAll(async () => {
  await browser?.close();
  await site?.close();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  await Promise.all([reset(main), reset(separate)]);
  context = await browser.newContext({
    httpCredentials: { username: "operator", password: ADMIN, send: "always" },
  });
  page = await context.newPage();
});
afterEach(() => context.close());

const open = (path: string) => page.goto(`${site.url}${path}`);
const audit = (db: TestDatabase) => db.sql("SELECT who, action, count FROM audit ORDER BY id");

test("nothing of it answers without a token", async () => {
  for (const path of ["", "/view/tasks", "/stats", "/metrics", "/assets/style.css"])
    expect([path, (await fetch(`${site.url}/processor${path}`)).status]).toEqual([path, 401]);
});

test("the overview is of both, or of each; slots tell where they are", async () => {
  for (const [db, count] of [
    [main, 2],
    [separate, 3],
  ] as const) {
    await register(db, "r1", { greet: {} });
    await new Speaker(db, { slot: 0 }).say({ want: 0 });
    await enqueueRaw(db, "greet", count);
  }
  const waiting = page.locator(".totals .value").first();
  await open("/processor");
  expect(await waiting.innerText()).toBe("5");
  expect(await page.locator(".seat .number small").allInnerTexts()).toEqual(["database 0", "database 1"]);
  expect(await violations(page)).toEqual([]);
  await page.getByRole("link", { name: "Database 1" }).click();
  expect(await waiting.innerText()).toBe("3");
  expect(await page.locator(".seat .number small").allInnerTexts()).toEqual(["database 1"]);
  await page.getByRole("link", { name: "Database 0" }).click();
  expect(await waiting.innerText()).toBe("2");
  // A number leads to the tasks that it counted.
  await page.locator(".totals a", { hasText: "waiting" }).first().click();
  expect(await page.locator("tbody tr").count()).toBe(2);
  await page.getByRole("link", { name: "Database 1" }).click();
  expect(await page.locator("tbody tr").count()).toBe(3);
});

test("an action on a task of the second database, and its row in the audit log, are in that database", async () => {
  for (const db of [main, separate]) await enqueueRaw(db, "greet", 3);
  await open("/processor/view/tasks?database=1");
  await page.locator("tbody a").first().click();
  const id = /\d+$/.exec(await page.getByRole("heading", { level: 1 }).innerText())![0];
  await page.getByRole("button", { name: "Cancel task" }).click();
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  await page.locator(".head .state.cancelled").waitFor();
  expect(await separate.sql("SELECT CAST(id AS text) AS id, outcome FROM failed_task")).toEqual([
    { id, outcome: "CANCELLED" },
  ]);
  expect(await main.sql("SELECT FROM failed_task")).toEqual([]);
  expect([await audit(main), await audit(separate)]).toEqual([[], [{ who: "ada", action: "cancel", count: 1 }]]);
  await open("/processor/view/audit");
  expect(await page.locator("tbody tr").count()).toBe(1);
  await page.getByRole("link", { name: "Database 0" }).click();
  await page.getByText("Nobody has acted yet").waitFor();
});

test("all that match, of the first database: of that one alone", async () => {
  for (const db of [main, separate]) await enqueueRaw(db, "greet", 4);
  await open("/processor/view/tasks?database=0&identifier=greet");
  await page.getByText("Act on all that match").click();
  await page.getByLabel("Action").selectOption("Cancel");
  await page.getByRole("button", { name: "Count first" }).click();
  await page.getByRole("button", { name: "Cancel 4" }).click();
  await page.locator("#said", { hasText: "Done: 4 tasks" }).waitFor();
  expect(await separate.sql("SELECT FROM task")).toHaveLength(4);
  expect([await audit(main), await audit(separate)]).toEqual([[{ who: "ada", action: "cancel", count: 4 }], []]);
  // Whoever looks in the wrong place is told of the other.
  await page.getByText("No task matches").waitFor();
  await page.getByRole("link", { name: "Look in database 1" }).click();
  expect(await page.locator("tbody tr").count()).toBe(4);
});

test("an identifier that no release knows is deleted where it is", async () => {
  await enqueueRaw(main, "legacy.sync", 2);
  await open("/processor/view/unknown");
  await page.getByRole("button", { name: "Delete all of legacy.sync" }).click();
  await page.getByRole("button", { name: "Delete 2" }).click();
  await page.getByText("Every task is known").waitFor();
  expect([await audit(main), await audit(separate)]).toEqual([[{ who: "ada", action: "delete", count: 2 }], []]);
});

test("a pause from the overview of both holds in both", async () => {
  for (const db of [main, separate]) await enqueueRaw(db, "greet");
  await open("/processor");
  await page.getByRole("button", { name: "Pause greet" }).click();
  await page.getByRole("button", { name: "Resume greet" }).waitFor();
  for (const db of [main, separate])
    expect(await db.sql("SELECT identifier FROM paused_identifier")).toEqual([{ identifier: "greet" }]);
});
