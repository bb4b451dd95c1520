/** What is wrong is said at deploy or cold start, once, with what to do; nothing is claimed. */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { startDataApi } from "../infra/local/data-api/index.ts";
import { LOCAL } from "../infra/local/stack.ts";
import { settingsOf } from "../infra/stages/settings.js";
import { createDeploymentHandler } from "../lib/deployment.ts";
import { randomPassword } from "../lib/sql/roles.ts";
import { openDatabase, type TestDatabase } from "./support/database.ts";

const DEFAULTS: Record<string, string> = {
  profile: "standard",
  slots: "5",
  residentSlots: "",
  schema: "task_processor",
  databaseClusterArn: "",
  databaseSecretArn: "",
  databaseName: "stint",
  rolePrefix: "",
  engineVersion: "17.4",
  minCapacity: "0.5",
  maxCapacity: "4",
  autoPauseSeconds: "300",
  backupDays: "7",
  kmsKeyArn: "",
  logRetentionDays: "30",
  operate: "true",
  throttleRate: "20",
  throttleBurst: "40",
  alarmTopicArn: "",
  alarmEmail: "",
  backlogAgeSeconds: "300",
};

describe("parameters of a stage", () => {
  test("the defaults are usable; a profile says how many are resident", () => {
    expect(settingsOf(DEFAULTS, "s-p")).toMatchObject({ residentSlots: 1, rolePrefix: "task_processor" });
    expect(settingsOf({ ...DEFAULTS, profile: "strict" }, "s-p")).toMatchObject({ residentSlots: 2 });
    expect(settingsOf({ ...DEFAULTS, profile: "quiet" }, "s-p")).toMatchObject({ residentSlots: 0, minCapacity: 0 });
  });

  test.each([
    [{ profile: "fast" }, 'profile is "fast"; allowed: strict, standard or quiet'],
    [{ slots: "0" }, 'slots is "0"; allowed: a whole number from 1 to 1000'],
    [{ slots: "" }, 'slots is ""; allowed: a whole number'],
    [{ slots: "2", residentSlots: "3" }, "residentSlots is 3, more than the 2 of slots"],
    [{ profile: "quiet", residentSlots: "1" }, "profile is quiet, in which nobody polls"],
    [{ databaseClusterArn: "arn:aws:rds:eu-west-1:1:cluster:c" }, "databaseSecretArn is not set. Set both"],
    [{ databaseSecretArn: "arn:aws:secretsmanager:eu-west-1:1:secret:s" }, "databaseClusterArn is not set. Set both"],
    [{ databaseClusterArn: "mine" }, 'databaseClusterArn is "mine"; allowed: empty, or the ARN of an Aurora cluster'],
    [{ minCapacity: "8" }, "minCapacity is 8, more than the 4 of maxCapacity"],
    [{ engineVersion: "17.2" }, 'engineVersion is "17.2"; allowed: 15.7, 16.3, 17.4'],
    [{ logRetentionDays: "8" }, 'logRetentionDays is "8"; allowed: 1, 3, 5'],
    [{ alarmEmail: "a@b", alarmTopicArn: "arn:aws:sns:eu-west-1:1:t" }, "alarmEmail and alarmTopicArn are both set"],
  ])("%j is refused", (wrong, said) => {
    expect(() => settingsOf({ ...DEFAULTS, ...wrong }, "s-p")).toThrow(said);
  });

  test("everything that is wrong is said at once", () => {
    expect(() => settingsOf({ ...DEFAULTS, profile: "x", slots: "y", operate: "z" }, "s-p")).toThrow(
      /profile is.*slots is.*operate is/s,
    );
  });
});

const NAMES = ["DATABASE_RESOURCE_ARN", "DATABASE_SECRET_ARN", "DATABASE_NAME", "AWS_ENDPOINT_URL_RDS_DATA"] as const;
const before = NAMES.map((name) => process.env[name]);
afterEach(() => {
  for (const [place, name] of NAMES.entries()) {
    if (before[place] === undefined) delete process.env[name];
    else process.env[name] = before[place];
  }
});

const nameOf = (db: TestDatabase): string => db.url.split("?")[0]!.split("/").at(-1)!;

/** The migrate function against a stand-in, asked by CloudFormation. What it answered. */
async function deploy(
  endpoint: string,
  database: string,
  more: Partial<Record<string, string>> = {},
  remainingMs = 20_000,
) {
  Object.assign(process.env, {
    DATABASE_RESOURCE_ARN: LOCAL.resourceArn,
    DATABASE_SECRET_ARN: more.secretArn ?? LOCAL.secretArn,
    DATABASE_NAME: database,
    AWS_ENDPOINT_URL_RDS_DATA: endpoint,
  });
  const answers: Record<string, unknown>[] = [];
  const cloudFormation = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    answers.push({ method: request.method, ...JSON.parse(body) });
    response.end();
  });
  await new Promise<void>((done) => cloudFormation.listen(0, "127.0.0.1", done));
  const handler = createDeploymentHandler({
    roleSecrets: more.roleSecrets,
    readSecret: async (arn) => more[arn] ?? "",
  });
  const event = {
    RequestType: (more.request ?? "Create") as "Create",
    ResponseURL: `http://127.0.0.1:${(cloudFormation.address() as AddressInfo).port}/`,
    StackId: "stack",
    RequestId: "request",
    LogicalResourceId: "Migration",
  };
  await handler(event, { getRemainingTimeInMillis: () => remainingMs });
  cloudFormation.close();
  expect(answers).toHaveLength(1);
  return answers[0] as { Status: string; Reason?: string };
}

describe("a deployment", () => {
  test("makes the schema and the roles of the secrets, twice if need be; a removal leaves both", async () => {
    const db = await openDatabase("data-api", { migrated: false });
    const username = `r${randomUUID().slice(0, 8)}`;
    const secret = JSON.stringify({ username, password: randomPassword() });
    const options = { roleSecrets: "worker=arn-w", "arn-w": secret };
    for (const request of ["Create", "Update", "Delete"])
      expect(await deploy(db.endpoint, nameOf(db), { ...options, request })).toEqual({
        method: "PUT",
        Status: "SUCCESS",
        StackId: "stack",
        RequestId: "request",
        LogicalResourceId: "Migration",
        PhysicalResourceId: "stint-schema",
      });
    expect(await db.sql("SELECT kind, name FROM task_processor.database_role")).toEqual([
      { kind: "worker", name: username },
    ]);
    await db.sql(`DROP OWNED BY ${username}`);
    await db.sql(`DROP ROLE ${username}`);
  });

  test("waits for a paused cluster to wake up", async () => {
    const db = await openDatabase("data-api", { migrated: false });
    db.dataApi!.faults.set({ resumingForMs: 1500 });
    expect(await deploy(db.endpoint, nameOf(db))).toMatchObject({ Status: "SUCCESS" });
    expect(Object.keys(db.dataApi!.faults.injected).join()).toContain("resuming");
  });

  test("gives up on one that does not in time, and says so to CloudFormation", async () => {
    const db = await openDatabase("data-api", { migrated: false });
    db.dataApi!.faults.set({ resumingForMs: 60_000 });
    const answer = await deploy(db.endpoint, nameOf(db), {}, 11_000);
    expect(answer).toMatchObject({ Status: "FAILED", Reason: expect.stringMatching(/^database_unavailable: /) });
    db.dataApi!.faults.clear();
    expect(await db.sql("SELECT to_regnamespace('task_processor') AS there")).toEqual([{ there: null }]);
  });

  test("with a secret that may not log in, may not create, or is not there, says which and what to do", async () => {
    const db = await openDatabase("data-api", { migrated: false });
    const user = `r${randomUUID().slice(0, 8)}`;
    await db.sql(`CREATE ROLE ${user} LOGIN PASSWORD 'correct-horse-battery'`);
    const secrets = { [LOCAL.secretArn]: { user, password: "correct-horse-battery" } };
    const api = await startDataApi({
      clusters: [{ resourceArn: LOCAL.resourceArn, url: db.url, database: nameOf(db), secrets }],
    });
    try {
      const powerless = await deploy(api.endpoint, nameOf(db));
      expect(powerless.Status).toBe("FAILED");
      expect(powerless.Reason).toMatch(/^database_failed: The login lacks a right/);
      const unknown = await deploy(api.endpoint, nameOf(db), { secretArn: `${LOCAL.secretArn}-other` });
      expect(unknown.Status).toBe("FAILED");
      expect(unknown.Reason).toMatch(/secret/i);
      const lost = await deploy(api.endpoint, "no_such_database");
      expect(lost.Reason).toContain(
        "look at DATABASE_RESOURCE_ARN and DATABASE_NAME (databaseClusterArn and databaseName of a stage)",
      );
    } finally {
      await api.close();
      await db.sql(`DROP ROLE ${user}`);
    }
  });

  test("with a role's secret that is none, says whose", async () => {
    const db = await openDatabase("data-api", { migrated: false });
    const answer = await deploy(db.endpoint, nameOf(db), { roleSecrets: "worker=arn-w", "arn-w": "not JSON" });
    expect(answer.Reason).toContain("config_invalid: The secret of the worker is not");
  });

  test("a cluster without a Data API is named with the command that enables it", async () => {
    const refusing = createServer((_, response) => {
      response.writeHead(400, { "x-amzn-errortype": "HttpEndpointNotEnabledException" });
      response.end(JSON.stringify({ message: "HttpEndpoint is not enabled for resource" }));
    });
    await new Promise<void>((done) => refusing.listen(0, "127.0.0.1", done));
    const answer = await deploy(`http://127.0.0.1:${(refusing.address() as AddressInfo).port}`, "any");
    refusing.closeAllConnections();
    refusing.close();
    expect(answer.Reason).toContain("The cluster has no Data API. Enable it: `aws rds enable-http-endpoint");
  });
});
