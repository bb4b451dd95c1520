/** Clients that know nothing of Stint, unchanged, in processes of their own. Each sees what it would see on Aurora. */
import { execFile, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { openDatabase } from "./support/database.ts";

const run = promisify(execFile);
const folder = resolve(import.meta.dirname, "clients");
const credentials = { accessKeyId: "AKIDCLIENTS", secretAccessKey: "of/the+clients" };

const db = await openDatabase("data-api", { migrated: false });
// The pair is configured: whatever signs a request otherwise than AWS wants it is refused.
const api = await startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url: db.url }], credentials });
const target = {
  endpoint: api.endpoint,
  region: LOCAL.region,
  resourceArn: LOCAL.resourceArn,
  secretArn: LOCAL.secretArn,
  database: decodeURIComponent(db.url.split("?")[0]!.split("/").at(-1)!),
};
const env = {
  ...process.env,
  AWS_ACCESS_KEY_ID: credentials.accessKeyId,
  AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
  AWS_EC2_METADATA_DISABLED: "true",
  AWS_CONFIG_FILE: "/dev/null",
  AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
  DATA_API: JSON.stringify(target),
};

afterAll(() => api.close());

beforeEach(async () => {
  await db.sql("DROP TABLE IF EXISTS public.invoice");
  await db.sql(`CREATE TABLE public.invoice (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL UNIQUE, amount numeric(10,2),
    paid boolean NOT NULL DEFAULT false, issued_at timestamptz, due date, reference uuid, details jsonb, weight float8,
    number bigint, tags text[])`);
});

const seenBy = async (command: string, file: string) =>
  JSON.parse((await run(command, [file], { cwd: folder, env })).stdout);

const reference = "9b0f3c5e-0000-4000-8000-000000000000";
const details = { lines: [{ text: "it's ünïcode" }] };
const created = { id: 1, customer: "Ada", amount: "12.50", paid: false, reference, weight: 1.5, tags: null };
const onPurpose = { name: "Error", message: "on purpose" };
const databaseError = (state: string) => ({
  name: "DatabaseErrorException",
  message: expect.stringMatching(new RegExp(`^ERROR: .*; SQLState: ${state}$`)),
});
const duplicate = databaseError("23505");
const refusals = { syntax: databaseError("42601"), missingCast: databaseError("42883") };

describe("from npm", () => {
  beforeAll(() => {
    if (existsSync(resolve(folder, "node_modules/.package-lock.json"))) return;
    const args = ["ci", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund"];
    const { status, stderr } = spawnSync("npm", args, { cwd: folder, encoding: "utf8" });
    if (status !== 0) throw new Error(`npm ci in test/clients: ${stderr}`);
  }, 300_000);

  test("drizzle-orm/aws-data-api/pg", async () => {
    expect(await seenBy(process.execPath, "drizzle.js")).toEqual({
      created: {
        ...created,
        issuedAt: "2026-01-02T03:04:05.678Z",
        due: "2026-02-01",
        details,
        number: Number.MAX_SAFE_INTEGER,
      },
      paid: expect.objectContaining({ id: 2, customer: "Bob", paid: true, amount: null, details: null }),
      found: 1,
      rolledBack: onPurpose,
      customers: ["Ada", "Bob", "committed"],
      tags: [{ tags: ["a", "b,c"] }],
      duplicate,
      ...refusals,
    });
  });

  test("kysely-data-api", async () => {
    expect(await seenBy(process.execPath, "kysely.js")).toEqual({
      created: {
        ...created,
        issued_at: "2026-01-02T03:04:05.678Z",
        due: "2026-02-01T00:00:00.000Z",
        details,
        number: Number.MAX_SAFE_INTEGER,
      },
      updated: 1,
      found: 1,
      rolledBack: onPurpose,
      customers: ["Ada", "Bob", "committed"],
      tags: [{ tags: ["a", "b,c"] }],
      duplicate,
      ...refusals,
    });
  });

  test("data-api-client, over version 2 of the SDK", async () => {
    const seen = await seenBy(process.execPath, "data-api-client.js");
    expect(JSON.parse(seen.created.details)).toEqual(details);
    expect(seen).toEqual({
      created: {
        ...created,
        issued_at: "2026-01-02T03:04:05.678Z",
        due: "2026-02-01T00:00:00.000Z",
        details: expect.any(String),
        number: Number.MAX_SAFE_INTEGER,
      },
      batch: [{}, {}],
      updated: 1,
      found: 1,
      committed: { transactionStatus: "Transaction Committed" },
      rollback: "Rollback Complete",
      rolledBack: duplicate,
      customers: ["Ada", "Bob", "committed"],
      ...refusals,
    });
  });
});

const works = (command: string, args: string[]) => spawnSync(command, args, { timeout: 20_000 }).status === 0;

if (works("python3", ["-c", "import boto3"]))
  test("boto3", async () => {
    const seen = await seenBy("python3", "boto3_exercise.py");
    expect(seen).toMatchObject({
      created: {
        amount: { stringValue: "12.50" },
        issued_at: { stringValue: "2026-01-02 03:04:05.678" },
        due: { stringValue: "2026-02-01" },
        reference: { stringValue: reference },
        weight: { doubleValue: 1.5 },
        tags: { isNull: true },
      },
      batch: [{ generatedFields: [] }, { generatedFields: [] }],
      updated: 1,
      committed: "Transaction Committed",
      rolledBack: "Rollback Complete",
      gone: "TransactionNotFoundException",
      customers: [{ customer: "Ada" }, { customer: "Bob" }, { customer: "committed" }],
      duplicate,
      ...refusals,
    });
    // Python's whole numbers have no end: the digits came through.
    expect(await db.sql("SELECT number::text FROM public.invoice WHERE id = 1")).toEqual([
      { number: "9223372036854775807" },
    ]);
  });

if (works("aws", ["--version"]))
  test("the AWS CLI with --endpoint-url", async () => {
    const aws = async (operation: string, ...more: string[]) => {
      const { resourceArn, secretArn, endpoint, region } = target;
      const where = ["--endpoint-url", endpoint, "--region", region, "--output", "json"];
      const arns = ["--resource-arn", resourceArn, "--secret-arn", secretArn];
      const { stdout } = await run("aws", ["rds-data", operation, ...where, ...arns, ...more], { env });
      return JSON.parse(stdout);
    };
    const sql = "INSERT INTO invoice (customer, amount) VALUES (:customer, :amount) RETURNING id, amount";
    const parameters = (customer: string) =>
      JSON.stringify([
        { name: "customer", value: { stringValue: customer } },
        { name: "amount", value: { stringValue: "12.50" }, typeHint: "DECIMAL" },
      ]);
    const execute = (text: string, ...more: string[]) =>
      aws("execute-statement", "--database", target.database, "--sql", text, ...more);

    expect(await execute(sql, "--parameters", parameters("Ada"))).toEqual({
      records: [[{ longValue: 1 }, { stringValue: "12.50" }]],
      numberOfRecordsUpdated: 0,
    });
    const { transactionId } = await aws("begin-transaction", "--database", target.database);
    await execute(sql, "--parameters", parameters("rolled back"), "--transaction-id", transactionId);
    expect(await aws("rollback-transaction", "--transaction-id", transactionId)).toEqual({
      transactionStatus: "Rollback Complete",
    });
    await expect(execute(sql, "--parameters", parameters("Ada"))).rejects.toMatchObject({
      stderr: expect.stringMatching(/\(DatabaseErrorException\).*SQLState: 23505/),
    });
    expect(await execute("SELECT customer FROM invoice", "--format-records-as", "JSON")).toMatchObject({
      formattedRecords: '[{"customer":"Ada"}]',
    });
  });
