import { createHash } from "node:crypto";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { ExecuteStatementCommand, RDSDataClient } from "@aws-sdk/client-rds-data";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DataApi, startDataApi } from "../infra/local/data-api/index.ts";
import { type LocalPostgres, startPostgres } from "../infra/local/postgres.ts";

const arns = {
  resourceArn: "arn:aws:rds:eu-west-1:123456789012:cluster:local",
  secretArn: "arn:aws:secretsmanager:eu-west-1:123456789012:secret:local",
};
const credentials = { accessKeyId: "AKIDLOCAL", secretAccessKey: "secret" };

let postgres: LocalPostgres;
let api: DataApi;
let guarded: DataApi;

beforeAll(async () => {
  postgres = await startPostgres({ settings: { fsync: "off" } });
  const clusters = [{ resourceArn: arns.resourceArn, url: postgres.url }];
  api = await startDataApi({ clusters, requestTimeoutMs: 5000 });
  guarded = await startDataApi({ clusters, credentials });
});

afterAll(async () => {
  await api.close();
  await guarded.close();
  await postgres.stop("immediate");
});

const signed = {
  "x-amz-date": "20260101T000000Z",
  authorization: `AWS4-HMAC-SHA256 Credential=any/20260101/eu-west-1/rds-data/aws4_request, SignedHeaders=host;x-amz-date, Signature=${"0".repeat(64)}`,
};

async function post(path: string, body: string, headers: Record<string, string> = signed, method = "POST") {
  const response = await fetch(`${api.endpoint}${path}`, { method, headers, ...(method !== "GET" && { body }) });
  const { message } = (await response.json()) as { message: string };
  return { status: response.status, error: response.headers.get("x-amzn-errortype"), message };
}

const well = async () => {
  const answer = await fetch(`${api.endpoint}/Execute`, {
    method: "POST",
    headers: signed,
    body: JSON.stringify({ ...arns, sql: "SELECT 1" }),
  });
  expect(await answer.json()).toMatchObject({ records: [[{ longValue: 1 }]] });
};

describe("a body that is none", () => {
  test.each([
    ["not JSON", "{", "SerializationException"],
    ["no object", "[]", "SerializationException"],
    ["nothing", "", "ValidationException"],
    ["null", "null", "SerializationException"],
    ["nested without end", "[".repeat(1_000_000), "SerializationException"],
    ["no UTF-8", Buffer.from([0x7b, 0xff, 0x7d]).toString("latin1"), "SerializationException"],
  ])("%s", async (_, body, error) => {
    expect(await post("/Execute", body)).toMatchObject({ status: 400, error });
    await well();
  });

  test.each<[string, object, string]>([
    ["no sql", { ...arns }, "ValidationException"],
    ["no secret", { resourceArn: arns.resourceArn, sql: "SELECT 1" }, "ValidationException"],
    ["a short ARN", { ...arns, resourceArn: "arn", sql: "SELECT 1" }, "ValidationException"],
    ["a long database", { ...arns, sql: "SELECT 1", database: "x".repeat(65) }, "ValidationException"],
    ["sql of another type", { ...arns, sql: 1 }, "SerializationException"],
    ["parameters of another type", { ...arns, sql: "SELECT 1", parameters: {} }, "SerializationException"],
    ["a parameter of another type", { ...arns, sql: "SELECT 1", parameters: [1] }, "SerializationException"],
    [
      "a value of another type",
      { ...arns, sql: "SELECT :a", parameters: [{ name: "a", value: { longValue: "1" } }] },
      "SerializationException",
    ],
    [
      "a fraction as a long",
      { ...arns, sql: "SELECT :a", parameters: [{ name: "a", value: { longValue: 1.5 } }] },
      "SerializationException",
    ],
    [
      "a value without a field",
      { ...arns, sql: "SELECT :a", parameters: [{ name: "a", value: {} }] },
      "ValidationException",
    ],
    [
      "a value with two fields",
      { ...arns, sql: "SELECT :a", parameters: [{ name: "a", value: { longValue: 1, stringValue: "" } }] },
      "ValidationException",
    ],
    [
      "a value with an unknown field",
      { ...arns, sql: "SELECT :a", parameters: [{ name: "a", value: { dateValue: "" } }] },
      "ValidationException",
    ],
    ["an unknown format", { ...arns, sql: "SELECT 1", formatRecordsAs: "XML" }, "ValidationException"],
    ["a NUL in the SQL", { ...arns, sql: "SELECT 1\0; X" }, "DatabaseErrorException"],
    [
      "a NUL in a parameter",
      { ...arns, sql: "SELECT :a", parameters: [{ name: "a", value: { stringValue: "\0" } }] },
      "DatabaseErrorException",
    ],
    ["a NUL in the database", { ...arns, sql: "SELECT 1", database: "a\0b" }, "DatabaseErrorException"],
    [
      "a value without a field that nothing asks for",
      { ...arns, sql: "SELECT 1", parameters: [{ name: "a" }] },
      "ValidationException",
    ],
    [
      "a value with two fields that nothing asks for",
      { ...arns, sql: "SELECT 1", parameters: [{ name: "a", value: { isNull: true, stringValue: "" } }] },
      "ValidationException",
    ],
    [
      "a long out of range",
      { ...arns, sql: "SELECT :a", parameters: [{ name: "a", value: { longValue: 1e20 } }] },
      "DatabaseErrorException",
    ],
  ])("%s", async (_, body, error) => {
    expect(await post("/Execute", JSON.stringify(body))).toMatchObject({ status: 400, error });
    await well();
  });

  test.each([
    "/BeginTransaction",
    "/CommitTransaction",
    "/RollbackTransaction",
    "/BatchExecute",
  ])("an empty one to %s names what is missing", async (path) => {
    expect(await post(path, "{}")).toMatchObject({
      status: 400,
      error: "ValidationException",
      message: expect.stringContaining("'resourceArn'"),
    });
  });

  test("members named like an object's own are no members", async () => {
    const body = `{"resourceArn":"${arns.resourceArn}","secretArn":"${arns.secretArn}","sql":"SELECT :constructor","parameters":[{"name":"constructor","value":{"__proto__":1}}],"__proto__":{"sql":"x"}}`;
    expect((await post("/Execute", body)).status).toBe(400);
    await well();
  });
});

test("an unknown operation, an old one, and another method", async () => {
  expect(await post("/Nothing", "{}")).toMatchObject({ status: 404, error: "UnknownOperationException" });
  expect(await post("/ExecuteSql", "{}")).toMatchObject({ status: 400, error: "BadRequestException" });
  expect(await post("/Execute", "", signed, "GET")).toMatchObject({ status: 404 });
});

describe("signatures", () => {
  test("names of headers that are not there, or no names of headers", async () => {
    for (const names of ["host;constructor", "host;x-amz-date;x-nothing", ";;", "__proto__", "host"]) {
      const authorization = signed.authorization
        .replace("host;x-amz-date", names)
        .replace("Credential=any", `Credential=${credentials.accessKeyId}`);
      const response = await fetch(`${guarded.endpoint}/Execute`, {
        method: "POST",
        headers: { ...signed, authorization },
        body: "{}",
      });
      expect([response.status, response.headers.get("x-amzn-errortype")]).toEqual([403, "InvalidSignatureException"]);
    }
  });

  test("a date that is none", async () => {
    const headers = { ...signed, "x-amz-date": "20261399T999999Z" };
    headers.authorization = headers.authorization.replace("/20260101/", "/20261399/");
    expect(await post("/Execute", "{}", headers)).toMatchObject({ status: 403, error: "IncompleteSignatureException" });
  });

  test("none, half of one, and one for another service", async () => {
    const refused = async (headers: Record<string, string>) => post("/Execute", "{}", headers);
    expect(await refused({})).toMatchObject({ status: 403, error: "MissingAuthenticationTokenException" });
    expect(await refused({ authorization: "Bearer x" })).toMatchObject({
      status: 403,
      error: "IncompleteSignatureException",
    });
    expect(await refused({ authorization: signed.authorization })).toMatchObject({
      status: 403,
      error: "IncompleteSignatureException",
    });
    const s3 = { ...signed, authorization: signed.authorization.replace("rds-data", "s3") };
    expect(await refused(s3)).toMatchObject({ status: 403, error: "InvalidSignatureException" });
  });

  const ask = (pair: typeof credentials, sql = "SELECT 1") =>
    new RDSDataClient({ endpoint: guarded.endpoint, region: "eu-west-1", credentials: pair, maxAttempts: 1 }).send(
      new ExecuteStatementCommand({ ...arns, sql }),
    );

  test("the configured pair is accepted, every other is refused", async () => {
    expect((await ask(credentials, "SELECT 'é'")).records).toEqual([[{ stringValue: "é" }]]);
    await expect(ask({ ...credentials, secretAccessKey: "guess" })).rejects.toMatchObject({
      name: "InvalidSignatureException",
      $metadata: { httpStatusCode: 403 },
    });
    await expect(ask({ ...credentials, accessKeyId: "guess" })).rejects.toMatchObject({
      name: "UnrecognizedClientException",
    });
  });

  type SignedRequest = { body: string; headers: Record<string, string> };
  const askChanged = (change: (request: SignedRequest) => void, pair: object = credentials) => {
    const client = new RDSDataClient({
      endpoint: guarded.endpoint,
      region: "eu-west-1",
      credentials: pair as typeof credentials,
      maxAttempts: 1,
    });
    client.middlewareStack.add(
      (next) => (args) => {
        change(args.request as SignedRequest);
        return next(args);
      },
      { step: "finalizeRequest", priority: "low" },
    );
    return client.send(new ExecuteStatementCommand({ ...arns, sql: "SELECT 1" }));
  };
  const otherBody = JSON.stringify({ ...arns, sql: "SELECT 2" });

  test("one with the token of a role fits, and one beside a header that is not signed", async () => {
    await askChanged(() => {}, { ...credentials, sessionToken: "a+/ token==" });
    await askChanged(({ headers }) => {
      headers["x-unsigned"] = "any";
    });
  });

  test.each<[string, (request: SignedRequest) => void]>([
    [
      "another body",
      (request) => {
        request.body = otherBody;
      },
    ],
    [
      "another body whose hash stands in the header",
      (request) => {
        request.body = otherBody;
        request.headers["x-amz-content-sha256"] = createHash("sha256").update(otherBody).digest("hex");
      },
    ],
    [
      "another value of a header",
      (request) => {
        request.headers["content-type"] = "application/x-amz-json-1.1";
      },
    ],
    [
      "a header that was left out",
      (request) => {
        delete request.headers["content-type"];
      },
    ],
    [
      "another second",
      (request) => {
        const stated = request.headers["x-amz-date"]!;
        request.headers["x-amz-date"] = stated.replace(/\dZ$/, stated.endsWith("0Z") ? "1Z" : "0Z");
      },
    ],
    [
      "another region",
      (request) => {
        request.headers.authorization = request.headers.authorization!.replace("eu-west-1", "eu-west-2");
      },
    ],
  ])("a signature does not fit %s", async (_, change) => {
    await expect(askChanged(change)).rejects.toMatchObject({
      name: "InvalidSignatureException",
      message: expect.stringContaining("does not match"),
    });
  });

  test("a signature does not fit another day", async () => {
    const past = new RDSDataClient({
      endpoint: guarded.endpoint,
      region: "eu-west-1",
      credentials,
      maxAttempts: 1,
      systemClockOffset: -3_600_000,
    });
    await expect(past.send(new ExecuteStatementCommand({ ...arns, sql: "SELECT 1" }))).rejects.toMatchObject({
      name: "InvalidSignatureException",
      message: expect.stringContaining("Signature expired"),
    });
  });
});

describe("connections", () => {
  const SLOW = "SELECT pg_sleep(2)::text";
  /** Postgres runs it, or has. */
  const underWay = async (running: Promise<unknown>): Promise<void> => {
    let over = false;
    void running.finally(() => {
      over = true;
    });
    const looking = new pg.Client({ connectionString: postgres.url });
    await looking.connect();
    const look = "SELECT FROM pg_stat_activity WHERE state = 'active' AND query = $1";
    while (!over && (await looking.query(look, [SLOW])).rowCount === 0);
    await looking.end();
  };

  const open = async (): Promise<Socket> => {
    const socket = connect(api.port, "127.0.0.1");
    socket.on("error", () => {});
    await new Promise((resolve) => socket.once("connect", resolve));
    return socket;
  };

  test("one that sends its request a byte at a time is closed", async () => {
    const socket = await open();
    socket.write("POST /Execute HTTP/1.1\r\nHost: local\r\nContent-Length: 1000\r\n\r\n");
    const drip = setInterval(() => socket.write("x"), 50);
    const answer = await text(socket);
    clearInterval(drip);
    expect(answer).toMatch(/^HTTP\/1\.1 408/);
    await well();
  });

  test("one that is no HTTP is closed", async () => {
    const socket = await open();
    socket.write("\0\0\0\x08\x04\xd2\x16\x2f");
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 400/);
  });

  test("one that leaves in the middle of its request is forgotten", async () => {
    const socket = await open();
    socket.write("POST /Execute HTTP/1.1\r\nHost: local\r\nContent-Length: 1000\r\n\r\n{");
    socket.destroy();
    await well();
  });

  test("a thousand open ones leave room for the next", async () => {
    const sockets = await Promise.all(Array.from({ length: 1000 }, open));
    await well();
    for (const socket of sockets) socket.destroy();
    await well();
  });

  test("one whose body never ends is cut off", async () => {
    const socket = await open();
    socket.write("POST /Execute HTTP/1.1\r\nHost: local\r\nTransfer-Encoding: chunked\r\n\r\n");
    const chunk = `100000\r\n${"x".repeat(0x100000)}\r\n`;
    let over = false;
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve())).then(() => {
      over = true;
    });
    while (!over) {
      if (!socket.write(chunk)) await Promise.race([closed, new Promise((resolve) => socket.once("drain", resolve))]);
    }
    await well();
  });

  test("close lets a running call finish", async () => {
    const other = await startDataApi({ clusters: [{ resourceArn: arns.resourceArn, url: postgres.url }] });
    const body = JSON.stringify({ ...arns, sql: SLOW });
    const running = fetch(`${other.endpoint}/Execute`, { method: "POST", headers: signed, body });
    await underWay(running);
    await Promise.all([other.close(), other.close()]);
    expect((await running).status).toBe(200);
    await expect(fetch(other.endpoint)).rejects.toThrow();
  });

  test("close does not wait for a body that stalls", async () => {
    const other = await startDataApi({ clusters: [{ resourceArn: arns.resourceArn, url: postgres.url }] });
    const stalled = connect(other.port, "127.0.0.1");
    stalled.on("error", () => {});
    stalled.write("POST /Execute HTTP/1.1\r\nHost: local\r\nContent-Length: 1000\r\n\r\n{");
    const body = JSON.stringify({ ...arns, sql: SLOW });
    const running = fetch(`${other.endpoint}/Execute`, { method: "POST", headers: signed, body });
    await underWay(running);
    await other.close();
    expect(stalled.destroyed || (await text(stalled)) === "").toBe(true);
    expect((await running).status).toBe(200);
  });

  test("a port that is taken is an error, not a crash", async () => {
    await expect(startDataApi({ port: api.port, clusters: [] })).rejects.toMatchObject({ code: "EADDRINUSE" });
  });
});
