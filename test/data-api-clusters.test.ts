/** Two clusters and two secrets behind one stand-in: nothing of one reaches the other. */
import {
  BeginTransactionCommand,
  CommitTransactionCommand,
  ExecuteStatementCommand,
  RDSDataClient,
  RollbackTransactionCommand,
} from "@aws-sdk/client-rds-data";
import { afterAll, describe, expect, test } from "vitest";
import { startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { openDatabase } from "./support/database.ts";

const [first, second] = [await openDatabase("pg", { migrated: false }), await openDatabase("pg", { migrated: false })];
const nameOf = ({ url }: { url: string }) => url.split("?")[0]!.split("/").at(-1)!;
const user = decodeURIComponent(new URL(first.url.replace("@/", "@localhost/")).username);
const password = decodeURIComponent(new URL(first.url.replace("@/", "@localhost/")).password);
const secretArn = LOCAL.secretArn;
const otherSecret = `${LOCAL.secretArn}-other`;
const one = `${LOCAL.resourceArn}-one`;
const two = `${LOCAL.resourceArn}-two`;
const secrets = { [secretArn]: { user, password }, [otherSecret]: { user, password } };
const api = await startDataApi({
  clusters: [
    { resourceArn: one, url: first.url, secrets },
    { resourceArn: two, url: second.url, secrets },
  ],
});
const client = new RDSDataClient({ endpoint: api.endpoint, maxAttempts: 1 });
afterAll(async () => {
  client.destroy();
  await api.close();
});

const execute = (resourceArn: string, sql: string, more: { transactionId?: string; secretArn?: string } = {}) =>
  client.send(new ExecuteStatementCommand({ resourceArn, secretArn, sql, ...more }));
const begin = async (resourceArn: string) =>
  (await client.send(new BeginTransactionCommand({ resourceArn, secretArn }))).transactionId!;

test("each ARN has the database of its cluster", async () => {
  for (const [arn, db] of [
    [one, first],
    [two, second],
  ] as const) {
    const { records } = await execute(arn, "SELECT current_database()::text");
    expect(records).toEqual([[{ stringValue: nameOf(db) }]]);
  }
  await execute(one, "CREATE TABLE mine (n int)");
  await expect(execute(two, "SELECT n FROM mine")).rejects.toMatchObject({
    name: "DatabaseErrorException",
    message: expect.stringContaining("42P01"),
  });
});

describe.each([
  ["the other cluster", { resourceArn: two, secretArn }],
  ["another secret of the same user", { resourceArn: one, secretArn: otherSecret }],
])("a transaction asked for through %s", (_, arns) => {
  test("is not known there, and goes on where it was begun", async () => {
    const transactionId = await begin(one);
    await execute(one, "CREATE TABLE begun (n int)", { transactionId });
    const gone = { name: "TransactionNotFoundException", $metadata: { httpStatusCode: 404 } };
    await expect(
      client.send(new ExecuteStatementCommand({ ...arns, sql: "SELECT 1", transactionId })),
    ).rejects.toMatchObject(gone);
    await expect(client.send(new CommitTransactionCommand({ ...arns, transactionId }))).rejects.toMatchObject(gone);
    await expect(client.send(new RollbackTransactionCommand({ ...arns, transactionId }))).rejects.toMatchObject(gone);
    await execute(one, "SELECT n FROM begun", { transactionId });
    await client.send(new RollbackTransactionCommand({ resourceArn: one, secretArn, transactionId }));
  });
});
