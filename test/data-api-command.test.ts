/** `stint data-api`: what its flags change. That it serves and stops is in cli.test.ts. */
import { ExecuteStatementCommand, RDSDataClient } from "@aws-sdk/client-rds-data";
import { expect, test } from "vitest";
import { LOCAL } from "../infra/local/stack.ts";
import { openDatabase } from "./support/database.ts";
import { startStint, stint, until } from "./support/stint.ts";

const db = await openDatabase("pg", { migrated: false });
const serve = ["data-api", "--port", "0", "--url", db.url];

const ask = (endpoint: string, accessKeyId: string, secretAccessKey: string) =>
  new RDSDataClient({ endpoint, credentials: { accessKeyId, secretAccessKey }, maxAttempts: 1 }).send(
    new ExecuteStatementCommand({ resourceArn: LOCAL.resourceArn, secretArn: LOCAL.secretArn, sql: "SELECT 1" }),
  );

test.each([
  ["--credentials", [...serve, "--credentials", "AKID:se:cret/+"], {}],
  ["STINT_DATA_API_CREDENTIALS", serve, { STINT_DATA_API_CREDENTIALS: "AKID:se:cret/+" }],
])("%s: that pair is accepted and no other, and its secret is not printed", async (_, args, env) => {
  const server = startStint(args, env as Record<string, string>);
  await until("it listens", () => /http:\/\/127\.0\.0\.1:\d+/.test(server.output()), server);
  const [endpoint] = /http:\/\/127\.0\.0\.1:\d+/.exec(server.output())!;
  expect((await ask(endpoint, "AKID", "se:cret/+")).records).toEqual([[{ longValue: 1 }]]);
  await expect(ask(endpoint, "AKID", "guess")).rejects.toMatchObject({ name: "InvalidSignatureException" });
  await expect(ask(endpoint, "guess", "se:cret/+")).rejects.toMatchObject({ name: "UnrecognizedClientException" });
  expect(server.output()).toContain("AWS_ACCESS_KEY_ID=AKID ");
  expect(server.output()).not.toContain("se:cret");
  server.child.kill("SIGTERM");
  expect((await server.ended).code).toBe(0);
});

test("--credentials without a secret: one clear line, exit 2", async () => {
  const { code, stderr } = await stint([...serve, "--credentials", "AKID"]);
  expect(code).toBe(2);
  expect(stderr).toMatch(/^error: .*AKID:SECRET\.\n$/);
});

test("--record with a file that cannot be opened: one clear line, exit 1", async () => {
  const { code, stdout, stderr } = await stint([...serve, "--record", "/nowhere/calls.jsonl"]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toMatch(/^record_failed: Calls cannot be recorded in \/nowhere\/calls\.jsonl: ENOENT.*\n$/);
});
