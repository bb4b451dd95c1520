import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, expect, test } from "vitest";
import { type DataApiOptions, startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { temporaryFolder } from "./support/command.ts";
import { openDatabase } from "./support/database.ts";
import { signed } from "./support/hostile-requests.ts";

const db = await openDatabase("data-api", { migrated: false });
const folder = temporaryFolder();
afterAll(() => rmSync(folder, { recursive: true }));
const arns = { resourceArn: LOCAL.resourceArn, secretArn: LOCAL.secretArn };

const start = (record: string, more: Partial<DataApiOptions> = {}) =>
  startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url: db.url }], record, ...more });

/** The lines, as text, after these calls. */
async function linesOf(work: (endpoint: string) => Promise<unknown>, more: Partial<DataApiOptions> = {}) {
  const file = join(folder, `${Math.random()}.jsonl`);
  const api = await start(file, more);
  try {
    await work(api.endpoint);
  } finally {
    await api.close();
  }
  const lines = readFileSync(file, "utf8").split("\n");
  expect(lines.pop()).toBe("");
  return lines;
}

const post = (url: string, body: string | Buffer, headers: Record<string, string> = signed) =>
  fetch(url, { method: "POST", body, headers }).then((response) => response.text());

test("one JSON line a call, those that failed too", async () => {
  const lines = await linesOf(async (endpoint) => {
    await post(`${endpoint}/Execute`, JSON.stringify({ ...arns, sql: "SELECT 1" }));
    await post(`${endpoint}/Execute`, JSON.stringify({ ...arns, sql: "SELECT 1/0" }));
  });
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    {
      at: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      operation: "ExecuteStatement",
      status: 200,
      durationMs: expect.any(Number),
      request: { sql: "SELECT 1" },
      response: { records: [[{ longValue: 1 }]] },
    },
    { operation: "ExecuteStatement", status: 400, error: "DatabaseErrorException", request: { sql: "SELECT 1/0" } },
  ]);
});

test("the request is as it came: its digits, its order, its nulls, what nobody knows; on one line", async () => {
  const body = `{ "sql": "SELECT :n, '\\u0041'",\r\n "unknown": [1.50, null],\n "schema": null, "resourceArn": "${LOCAL.resourceArn}",
    "parameters": [{"name": "n", "value": {"longValue": 9007199254740993}}], "secretArn": "${LOCAL.secretArn}" }`;
  const [line, ...more] = await linesOf((endpoint) => post(`${endpoint}/Execute`, body));
  expect(more).toEqual([]);
  expect(line).toContain(`"request":${body.replaceAll(/[\r\n]+/g, " ")},"response":{"records":`);
  expect(line).toContain('{"longValue":9007199254740993}');
  expect(JSON.parse(line!).request).toEqual(JSON.parse(body));
});

test("what was refused stands there with its body", async () => {
  const large = JSON.stringify({ ...arns, sql: "SELECT 1".padEnd(5 * 1024 * 1024) });
  const lines = await linesOf(async (endpoint) => {
    await post(`${endpoint}/Execute`, '{"a": 1', signed);
    await post(`${endpoint}/Execute`, '{"unsigned": 1}', {});
    await post(`${endpoint}/BatchExecute`, '{"wrong": 1}');
    await post(`${endpoint}/Nothing?x`, '{"nobody": 1}');
    await post(`${endpoint}/ExecuteSql`, "");
    await fetch(`${endpoint}/Execute`, { headers: signed });
    await post(`${endpoint}/Execute`, Buffer.from([0x7b, 0xff, 0x0a]));
    await post(`${endpoint}/Execute`, large);
  });
  expect(
    lines.map((line) => JSON.parse(line)).map(({ operation, status, request }) => [operation, status, request]),
  ).toEqual([
    ["ExecuteStatement", 400, '{"a": 1'],
    ["ExecuteStatement", 403, { unsigned: 1 }],
    ["BatchExecuteStatement", 400, { wrong: 1 }],
    ["POST /Nothing", 404, { nobody: 1 }],
    ["POST /ExecuteSql", 400, ""],
    ["GET /Execute", 404, ""],
    ["ExecuteStatement", 400, "{\ufffd\n"],
    ["ExecuteStatement", 413, null],
  ]);
});

test("an answer that was dropped has the status 0; who left in the middle and the control endpoint have no line", async () => {
  const body = JSON.stringify({ ...arns, sql: "SELECT 1" });
  const lines = await linesOf(
    async (endpoint) => {
      await post(`${endpoint}/__faults`, JSON.stringify({ commitThenDrop: { next: 1 } }));
      await post(`${endpoint}/Execute`, body).catch(() => {});
      const half = connect(Number(new URL(endpoint).port), "127.0.0.1");
      half.end("POST /Execute HTTP/1.1\r\nHost: local\r\nContent-Length: 1000\r\n\r\n{");
      await text(half).catch(() => {});
    },
    { control: true },
  );
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { status: 0, request: { sql: "SELECT 1" }, response: null },
  ]);
  expect(lines).toHaveLength(1);
});

test("a file that cannot be opened is an error at the start", async () => {
  const directory = join(folder, "directory");
  mkdirSync(directory);
  for (const [file, reason] of [
    [directory, "EISDIR"],
    [join(folder, "no", "such", "folder"), "ENOENT"],
  ] as const)
    await expect(start(file)).rejects.toMatchObject({
      code: "record_failed",
      message: expect.stringMatching(new RegExp(`^Calls cannot be recorded in ${file}: ${reason}`)),
    });
});
