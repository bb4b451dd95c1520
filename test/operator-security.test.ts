/** Who may read and act under /processor, and what comes of those who try otherwise. */
import { beforeEach, describe, expect, test } from "vitest";
import type { MonitoringConfig } from "../lib/config.ts";
import { type HttpRequest, json } from "../lib/http.ts";
import { silentLog } from "../lib/log.ts";
import { answerOperator, operatorRoutes } from "../lib/operator-routes.ts";
import { openDatabase, reset } from "./support/database.ts";
import { enqueueRaw, GRACE_MS } from "./support/exchange.ts";

const READ = "r".repeat(24);
const ADMIN = "a".repeat(24);
const guarded: MonitoringConfig = {
  readTokens: [{ name: "grafana", token: READ }],
  adminTokens: [{ name: "ada", token: ADMIN }],
  public: false,
};
const none: MonitoringConfig = { readTokens: [], adminTokens: [], public: false };
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const acting = { "content-type": "application/json", host: "stint.example", ...bearer(ADMIN) };
const PATHS = [
  "",
  "/monitoring",
  "/stats",
  "/metrics",
  "/tasks",
  "/tasks/1",
  "/recurring",
  "/audit",
  "/actions",
  "/assets/x.js",
  "/nothing",
];

describe("under /processor", async () => {
  const db = await openDatabase("pg");
  const ask = (path: string, more: Partial<HttpRequest> = {}, monitoring = guarded) =>
    answerOperator(
      operatorRoutes({
        databases: [db.database],
        monitoring,
        settings: { graceMs: GRACE_MS, sleepIntervalMs: 2000 },
        pages: () => ({
          "/processor": async () => json(200, "page"),
          "/processor/evil": { POST: async () => json(200, "done") },
        }),
      }),
      monitoring,
      { method: "GET", path: `/processor${path}`, query: {}, headers: {}, loopback: false, ...more },
      silentLog,
    );
  const act = (
    headers: Record<string, string>,
    body: unknown = { action: "pause", identifier: "greet" },
    more = {},
    config = guarded,
  ) =>
    ask(
      "/actions",
      { method: "POST", headers, body: typeof body === "string" ? body : JSON.stringify(body), ...more },
      config,
    );
  const codeOf = ({ status, body }: { status: number; body: string }) => [status, JSON.parse(body).error?.code];
  const untouched = async () => {
    expect(await db.sql("SELECT FROM paused_identifier UNION ALL SELECT FROM audit")).toEqual([]);
  };
  beforeEach(() => reset(db));

  test("nothing answers without a token where tokens are set, not even which routes there are", async () => {
    for (const path of PATHS)
      for (const method of ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"]) {
        const answered = await ask(path, {
          method,
          queryBytes: 99_999,
          headers: { "content-type": "application/json" },
        });
        expect([answered.status, answered.headers["www-authenticate"]], `${method} ${path}`).toEqual([
          401,
          expect.stringContaining("Basic"),
        ]);
      }
    expect((await ask("/stats", { loopback: true })).status).toBe(401);
  });

  test("without any token it is closed to others, and says how to open it", async () => {
    for (const path of PATHS)
      expect(codeOf(await ask(path, {}, none)), path).toEqual([503, "monitoring_token_missing"]);
    expect((await ask("/stats", { loopback: true }, none)).status).toBe(200);
    expect((await ask("/stats", {}, { ...none, public: true })).status).toBe(200);
  });

  test.each([
    ["missing", ""],
    ["empty", "Bearer "],
    ["short", `Bearer ${READ.slice(1)}`],
    ["long", `Bearer ${READ}r`],
    ["very long", `Bearer ${"r".repeat(1_000_000)}`],
    ["in another case", `Bearer ${READ.toUpperCase()}`],
    ["of another scheme", `Digest ${READ}`],
    ["two of them", `Bearer ${READ} ${ADMIN}`],
    ["with a line break", `Bearer ${READ}\r\nx: y`],
    ["as the user", `Basic ${btoa(`${READ}:`)}`],
    ["no base64", "Basic %%%"],
    ["the name of one", "Bearer ada"],
    ["a name of every object", "Bearer __proto__"],
  ])("a token that is %s does not read", async (_, authorization) => {
    expect((await ask("/stats", { headers: { authorization } })).status).toBe(401);
  });

  test.each([
    bearer(READ),
    bearer(ADMIN),
    { authorization: `Basic ${btoa(`any:${READ}`)}` },
    { authorization: `basic ${btoa(`:${ADMIN}`)}` },
  ])("%o reads", async (headers) => {
    for (const path of PATHS.slice(0, 5)) expect((await ask(path, { headers })).status, path).toBe(200);
  });

  test("a wrong token takes as long wherever it differs", async () => {
    const timed = async (token: string) => {
      const startedAt = performance.now();
      for (let n = 0; n < 400; n++) await ask("/nothing", { headers: bearer(token) });
      return performance.now() - startedAt;
    };
    const wrong = [`x${READ.slice(1)}`, `${READ.slice(1)}x`];
    const ratios: number[] = [];
    for (let round = 0; round < 7; round++) ratios.push((await timed(wrong[0]!)) / (await timed(wrong[1]!)));
    const median = ratios.sort((a, b) => a - b)[3]!;
    expect(median).toBeGreaterThan(0.5);
    expect(median).toBeLessThan(2);
  });

  test("acting needs an admin token, also where reading is open", async () => {
    const { authorization: _, ...bare } = acting;
    expect(codeOf(await act({ ...acting, ...bearer(READ) }))).toEqual([403, "admin_token_needed"]);
    expect(codeOf(await act(bare))).toEqual([401, "unauthorized"]);
    for (const config of [none, { ...none, public: true }])
      expect(codeOf(await act(acting, undefined, { loopback: true }, config))).toEqual([403, "admin_token_missing"]);
    expect(codeOf(await act(bare, undefined, { loopback: true }, { ...guarded, public: true }))).toEqual([
      401,
      "unauthorized",
    ]);
    expect((await ask("/actions", { headers: acting })).status).toBe(405);
    await untouched();
    expect(await act(acting)).toMatchObject({
      status: 200,
      body: '{"action":"pause","dryRun":false,"count":1,"done":true}',
    });
    expect(await db.sql("SELECT who, action FROM audit")).toEqual([{ who: "ada", action: "pause" }]);
  });

  test("a page's own POST needs one too", async () => {
    expect((await ask("/evil", { method: "POST", headers: { ...acting, ...bearer(READ) } })).status).toBe(403);
    expect((await ask("/evil", { method: "POST", headers: { ...acting, "content-type": "text/plain" } })).status).toBe(
      415,
    );
    expect((await ask("/evil", { method: "POST", headers: acting })).status).toBe(200);
  });

  test.each([
    { "content-type": "text/plain" },
    { "content-type": "application/x-www-form-urlencoded" },
    { "content-type": "multipart/form-data" },
    { "content-type": "" },
    { "content-type": "text/plain; application/json" },
    { "sec-fetch-site": "cross-site" },
    { "sec-fetch-site": "same-site" },
    { origin: "https://evil.example" },
    { origin: "https://stint.example.evil.example" },
    { origin: "https://stint.example:8443" },
    { origin: "null" },
    { origin: "" },
    { origin: "file://stint.example" },
  ])("another site's post is refused: %o", async (headers) => {
    expect([403, 415]).toContain((await act({ ...acting, ...headers })).status);
    await untouched();
  });

  test.each([
    {},
    { "content-type": "application/json; charset=utf-8" },
    { "sec-fetch-site": "same-origin", origin: "https://stint.example" },
    { "sec-fetch-site": "none" },
    { origin: "http://stint.example", host: "stint.example:80" },
    { origin: "http://127.0.0.1:3000", host: "127.0.0.1:3000" },
  ])("one's own is not: %o", async (headers) => {
    expect((await act({ ...acting, ...headers } as Record<string, string>)).status).toBe(200);
  });

  test.each([
    ["", "no body"],
    ["{", "no JSON"],
    ["null", "nothing"],
    ["[]", "a list"],
    [{}, "no action"],
    [{ action: "drop_database" }, "an unknown action"],
    [{ action: "constructor" }, "a name of every object"],
    [{ action: "cancel" }, "neither ids nor filter"],
    [{ action: "cancel", ids: ["1"], filter: {} }, "both"],
    [{ action: "cancel", ids: ["1; DROP TABLE task"] }, "SQL for an id"],
    [{ action: "cancel", ids: [1] }, "a number for an id"],
    [{ action: "cancel", ids: Array.from({ length: 1001 }, () => "1") }, "too many ids"],
    [
      { action: "cancel", filter: { state: "running", x: 1 } },
      "an unknown member: a filter that is misread matches too much",
    ],
    [{ action: "delete", filter: { state: "succeeded" } }, "succeeded ones"],
    [{ action: "cancel", filter: {}, database: 7 }, "another database"],
    [{ action: "set_priority", ids: ["1"], priority: 7 }, "a priority that has no name"],
    [{ action: "set_due", ids: ["1"], due: "tomorrow" }, "a time without a zone"],
    [{ action: "set_due", ids: ["1"], due: "2026-99-99T00:00:00Z" }, "a time that is none"],
    [{ action: "pause", identifier: "" }, "no identifier"],
  ])("400 with a code and no echo: %j (%s)", async (body, _) => {
    await enqueueRaw(db, "greet");
    const answered = await act(acting, body);
    expect(codeOf(answered)).toEqual([400, "request_invalid"]);
    expect(answered.body).not.toMatch(/DROP|tomorrow|stack|node_modules/);
    expect(await db.sql("SELECT FROM task")).toHaveLength(1);
    await untouched();
  });

  test("an id or identifier that the database cannot take is the caller's mistake, not a failure", async () => {
    for (const body of [
      { action: "cancel", ids: ["9223372036854775808"] },
      { action: "pause", identifier: "a\u0000b" },
      { action: "pause", identifier: "\ud800" },
      { action: "delete", filter: { identifier: "a\u0000b" } },
    ])
      expect((await act(acting, body)).status, JSON.stringify(body)).toBe(400);
    for (const query of [{ identifier: "a\u0000b" }, { key: "\ud800" }, { cursor: "9999999999999999999" }] as Record<
      string,
      string
    >[])
      expect((await ask("/tasks", { headers: bearer(READ), query })).status, JSON.stringify(query)).toBe(400);
  });

  test.each([
    { state: "all" },
    { limit: "-1" },
    { limit: "0" },
    { from: "2026-02-31T00:00:00Z" },
    { from: "0000-01-01T00:00:00Z" },
    { to: "2026-01-01T00:00:00+23:59" },
    { limit: "101" },
    { limit: "1e9" },
    { cursor: "' OR 1=1" },
    { cursor: "x" },
    { from: "yesterday" },
    { unknown: "1" },
    { database: "1" },
    { state: "succeeded", cursor: "7" },
  ])("a query that does not fit is 400: %o", async (query) => {
    expect(codeOf(await ask("/tasks", { headers: bearer(READ), query: query as never }))).toEqual([
      400,
      "request_invalid",
    ]);
  });

  test.each([
    "/../health",
    "/%2e%2e/health",
    "/tasks/../actions",
    "/tasks/1/2",
    "/tasks/",
    "//stats",
    "/stats/x",
    "/__proto__",
    "/tasks/__proto__",
    "/*",
    "/tasks/*",
    "/tasks/0",
    "/tasks/1e3",
    "/tasks/-1",
    `/tasks/${"9".repeat(40)}`,
  ])("%s leads nowhere", async (path) => {
    const { status } = await ask(path, { headers: bearer(READ) });
    expect(path === "/tasks/" ? 200 : 404).toBe(status);
  });

  test("10 MB of query, or a body over 256 KiB, is refused before it is read", async () => {
    const query = { identifier: "x".repeat(10_000_000) };
    expect(codeOf(await ask("/tasks", { headers: bearer(READ), query }))).toEqual([414, "uri_too_long"]);
    expect(codeOf(await ask("/tasks", { headers: bearer(READ), queryBytes: 10_000_000 }))).toEqual([
      414,
      "uri_too_long",
    ]);
    expect(codeOf(await act(acting, " ".repeat(262_145)))).toEqual([413, "body_too_large"]);
  });

  test("what producers store comes back as JSON that no browser takes for a page, and in no header", async () => {
    const html = "<script>alert(1)</script>\r\nset-cookie: a=b";
    await enqueueRaw(db, html, 1, { key: html, onDuplicate: "keep" });
    for (const path of PATHS.slice(1, 8)) {
      const { headers } = await ask(path, { headers: bearer(READ) });
      expect(headers["content-type"], path).toMatch(/^(application\/json|text\/plain)/);
      expect(headers["x-content-type-options"]).toBe("nosniff");
      expect(Object.entries(headers).flat().join()).not.toMatch(/script|cookie|[\r\n]/);
    }
    expect(JSON.parse((await ask("/tasks", { headers: bearer(READ) })).body).tasks[0]).toMatchObject({
      identifier: html,
      key: html,
    });
  });

  test("payloads are not told unless asked for, and not to the log", async () => {
    const [id] = await enqueueRaw(db, "greet", 1, { payloads: [{ secret: "hush" }] });
    for (const path of ["/stats", "/tasks", `/tasks/${id}`, "/metrics", "/audit"])
      expect((await ask(path, { headers: bearer(READ) })).body, path).not.toContain("hush");
    expect((await ask(`/tasks/${id}`, { headers: bearer(READ), query: { payload: "1" } })).body).toContain("hush");
  });

  test("every answer has the strict headers, an error too", async () => {
    for (const answered of [
      await ask("/stats"),
      await ask("/stats", { headers: bearer(READ) }),
      await ask("/nothing", { headers: bearer(READ) }),
      await act(acting, "{"),
    ])
      expect(answered.headers).toMatchObject({
        "cache-control": "no-store",
        "content-security-policy": expect.stringContaining("default-src 'none'"),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
      });
  });
});
