import { execFile } from "node:child_process";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { compare, points, type Target, tableOf } from "../infra/local/conformance.ts";
import { startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { openDatabase } from "./support/database.ts";

/** Where any secret will do, the points of a wrong one show nothing. */
async function openStandIn(resourceArn: string = LOCAL.resourceArn) {
  const db = await openDatabase("pg", { migrated: false });
  const { username, password } = new URL(db.url.replace("@/", "@localhost/"));
  const secrets = {
    [LOCAL.secretArn]: { user: decodeURIComponent(username), password: decodeURIComponent(password) },
  };
  const api = await startDataApi({ clusters: [{ resourceArn, url: db.url, secrets }] });
  afterAll(() => api.close());
  return { url: db.url, sql: db.sql, endpoint: api.endpoint };
}

const [here, there] = [await openStandIn(), await openStandIn()];
const targetOf = (db: { url: string; endpoint: string }): Target => ({
  ...LOCAL,
  endpoint: db.endpoint,
  database: db.url.split("?")[0]!.split("/").at(-1)!,
});
const schemas = async () =>
  await there.sql<{ nspname: string }>("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'stint_conformance%'");

/** Passes calls on, and changes what comes back. */
async function startLiar(endpoint: string, change: (body: string) => string): Promise<Server> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const headers = Object.entries(request.headers).filter(
      ([name]) => !/^(host|connection|content-length)$/.test(name),
    );
    const answer = await fetch(`${endpoint}${request.url}`, {
      method: "POST",
      headers: headers as [string, string][],
      body: Buffer.concat(chunks),
    });
    const body = change(await answer.text());
    const errorType = answer.headers.get("x-amzn-errortype");
    response.writeHead(answer.status, {
      "content-type": "application/json",
      ...(errorType && { "x-amzn-errortype": errorType }),
    });
    response.end(body);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return server;
}

const liars: Server[] = [];
afterAll(() => {
  for (const liar of liars) liar.close();
});
async function liarOf(change: (body: string) => string): Promise<Target> {
  const liar = await startLiar(there.endpoint, change);
  liars.push(liar);
  return { ...targetOf(there), endpoint: `http://127.0.0.1:${(liar.address() as AddressInfo).port}` };
}

test("every number of the checklist but the faults has a point, and no name stands twice", () => {
  const numbers = new Set(points.map(({ number }) => number));
  expect([...numbers]).toEqual(Array.from({ length: 18 }, (_, place) => place + 1));
  const names = points.map(({ number, name }) => `${number} ${name}`);
  expect(new Set(names).size).toBe(names.length);
});

const alike = await compare(targetOf(here), targetOf(there));

test("two stand-ins answer alike, and nothing is left behind", async () => {
  expect(alike.filter(({ same }) => !same)).toEqual([]);
  expect(alike.length).toBeGreaterThan(100);
  // A point that breaks by itself would be alike on both sides.
  expect(alike.filter(({ standIn }) => JSON.stringify(standIn).includes('"failed"'))).toEqual([]);
  expect(await schemas()).toEqual([]);
});

test("what the stand-in says to wrong names and to no signature, to a field, to a time zone and to a COMMIT", () => {
  const seen = (number: number, name: string) =>
    alike.find((finding) => finding.number === number && finding.name === name)!.standIn;
  expect(seen(5, "a cluster that is not there")).toMatchObject({ error: "NotFoundException", status: 404 });
  expect(seen(5, "a secret that is not there")).toMatchObject({ error: "SecretsErrorException", status: 400 });
  expect(seen(5, "a request that is not signed")).toMatchObject({
    error: "MissingAuthenticationTokenException",
    status: 403,
  });
  const { records } = seen(3, "one field a value, on the wire") as { records: object[][] };
  expect(records[0]!.filter((field) => Object.keys(field).length !== 1)).toEqual([]);
  expect(records[0]!.slice(0, 6)).toEqual([
    { longValue: 1 },
    { longValue: "9007199254740993" },
    { doubleValue: 1.5 },
    { doubleValue: "NaN" },
    { booleanValue: true },
    { isNull: true },
  ]);
  expect(seen(4, "in a transaction with a time zone of its own")).toMatchObject([
    {},
    { records: [[{ stringValue: "2026-01-02 03:04:05.500" }]] },
    {},
  ]);
  expect(seen(4, "timestamptz '2026-01-02 00:30:00+05:30'")).toMatchObject({
    records: [[{ stringValue: "2026-01-01 19:00:00" }]],
  });
  for (const sql of ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"])
    expect(seen(6, `${sql} as a statement`)).toMatchObject([
      { numberOfRecordsUpdated: 0 },
      { error: "TransactionNotFoundException" },
      { error: "TransactionNotFoundException" },
    ]);
  expect(seen(8, "$1 beside a name")).toMatchObject({ message: expect.stringMatching(/SQLState: 08P01$/) });
  expect(seen(8, "$1 in the body of a function")).toMatchObject({ numberOfRecordsUpdated: 0 });
});

test("a cluster of another name, account and region is not different for that", async () => {
  const resourceArn = "arn:aws:rds:eu-west-1:123456789012:cluster:another";
  const elsewhere = await openStandIn(resourceArn);
  const findings = await compare(targetOf(here), { ...targetOf(elsewhere), resourceArn });
  expect(findings.filter(({ same }) => !same)).toEqual([]);
});

test("the points of the time limits, on stand-ins with short ones", async () => {
  const limits = { statementMs: 3000, idleMs: 3000 };
  const clusterOf = (db: { url: string }) => [{ resourceArn: LOCAL.resourceArn, url: db.url }];
  const short = { statementTimeoutMs: limits.statementMs, transactionIdleMs: limits.idleMs };
  const api = await startDataApi({ clusters: clusterOf(here), ...short });
  const other = await startDataApi({ clusters: clusterOf(there), ...short });
  try {
    const findings = await compare(
      { ...targetOf(here), endpoint: api.endpoint },
      { ...targetOf(there), endpoint: other.endpoint },
      { slow: true, limits },
    );
    expect(findings.filter(({ same }) => !same)).toEqual([]);
    expect(findings.filter(({ number }) => number === 15)).toMatchObject([
      { standIn: { error: "StatementTimeoutException" } },
      { standIn: { error: "StatementTimeoutException" } },
      { standIn: { error: "TransactionNotFoundException" } },
    ]);
  } finally {
    await api.close();
    await other.close();
  }
});

test("what differs is found, and the rest is not blamed", async () => {
  const lie = (body: string) =>
    body
      .replace('{"stringValue":"infinity"}', '{"isNull":true}')
      .replace("division by zero; SQLState: 22012", "division by nothing; SQLState: 22012")
      .replace("bm9ib2R5 is not found", "bm9ib2R5 was closed");
  const findings = await compare(targetOf(here), await liarOf(lie));
  const different = findings.filter(({ same }) => !same).map(({ number, name }) => `${number} ${name}`);
  expect(different).toEqual([
    "4 timestamptz 'infinity'",
    "5 a division by zero",
    "6 a transaction that failed",
    "6 the commit of one that failed",
    "6 an id nobody gave",
  ]);
  const table = tableOf(findings);
  expect(table).toMatch(/a division by zero +DIFFERENT\n +stand-in .*by zero.*\n +other .*by nothing/);
  expect(table).toMatch(/\d+ the same, 5 different$/);
  expect(await schemas()).toEqual([]);
});

describe("the command", () => {
  const run = (target: Target, ...more: string[]) =>
    new Promise<{ code: number; stdout: string; stderr: string }>((done) => {
      const script = resolve(import.meta.dirname, "../infra/local/conformance.ts");
      const where = ["--endpoint", target.endpoint!, "--resource-arn", target.resourceArn];
      const secret = ["--secret-arn", target.secretArn, "--database", target.database];
      execFile(process.execPath, [script, ...where, ...secret, ...more], (error, stdout, stderr) =>
        done({ code: Number(error?.code ?? 0), stdout, stderr }),
      );
    });

  test("prints a table and ends with 0 where nothing differs", async () => {
    const { code, stdout } = await run(targetOf(there));
    expect(stdout).toMatch(/^ 1 {2}uuid = text +same$/m);
    expect(stdout.trimEnd().split("\n").at(-1)).toMatch(/^\d+ the same, 0 different$/);
    expect(code).toBe(0);
  });

  test("ends with 1 where something does, with --json too", async () => {
    const { code, stdout } = await run(await liarOf((body) => body.replace('"x"', '"y"')), "--json");
    const findings = JSON.parse(stdout) as { name: string; same: boolean }[];
    expect(findings.filter(({ same }) => !same).map(({ name }) => name)).toEqual(["metadata of expressions"]);
    expect(code).toBe(1);
  });

  test("ends with 2 where it cannot ask", async () => {
    const { code, stderr } = await run({ ...targetOf(there), endpoint: "http://127.0.0.1:1" });
    expect(stderr).toMatch(/ECONNREFUSED/);
    expect(code).toBe(2);
  });
});
