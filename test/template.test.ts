/** What `serverless package` makes of a deployed stage, without an account: each resource as CloudFormation describes it, and least privilege. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migrations } from "../lib/sql/migrations/inlined.ts";
import { problemsOf, type Resource, type Template } from "./support/cloudformation.ts";
import { root, serverlessBin, temporaryFolder } from "./support/command.ts";
import { startNode } from "./support/stint.ts";

const SLOW_MS = 120_000;
const folder = temporaryFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const CLUSTER = "arn:aws:rds:eu-west-1:111111111111:cluster:mine";
const SECRET = "arn:aws:secretsmanager:eu-west-1:111111111111:secret:mine-AbCdEf";
const KEY = "arn:aws:kms:eu-west-1:111111111111:key/mine";

async function packaged(...args: string[]): Promise<Template> {
  const output = join(folder, String(args.length));
  const ended = await startNode(
    [serverlessBin, "package", "--stage", "prod", "--package", output, ...args],
    { AWS_EC2_METADATA_DISABLED: "true" },
    root,
  ).ended;
  expect(ended.code, ended.stderr + ended.stdout).toBe(0);
  return JSON.parse(readFileSync(join(output, "cloudformation-template-update-stack.json"), "utf8"));
}

interface Statement {
  readonly Action: string | string[];
  readonly Resource: unknown;
}
const statementsOf = (resource: Resource): Statement[] =>
  resource.Properties.Policies.flatMap(
    (policy: { PolicyDocument: { Statement: Statement[] } }) => policy.PolicyDocument.Statement,
  );

describe("stage prod with its defaults", () => {
  let template: Template;
  let resources: Record<string, Resource>;
  const of = (type: string): [string, Resource][] => Object.entries(resources).filter(([, { Type }]) => Type === type);

  beforeAll(async () => {
    template = await packaged();
    resources = template.Resources;
  }, SLOW_MS);

  test("every resource is as CloudFormation describes it, and every reference resolves", async () => {
    expect(await problemsOf(template)).toEqual([]);
  });

  test("that check finds what is wrong", async () => {
    const broken: Template = JSON.parse(JSON.stringify(template));
    const schedule = broken.Resources.Slot0Schedule!.Properties;
    delete schedule.FlexibleTimeWindow;
    schedule.Target.Retry = {};
    schedule.Target.Arn = { "Fn::GetAtt": ["ProcessorLambdaFunction", "Name"] };
    schedule.State = { Ref: "Nothing" };
    broken.Resources.TickDeadLetterQueue!.Properties.MessageRetentionPeriod = "long";
    expect((await problemsOf(broken)).sort()).toEqual([
      "Resources.Slot0Schedule.Properties.State refers to Nothing, which is not there",
      "Resources.Slot0Schedule.Properties.Target.Arn: AWS::Lambda::Function has no attribute Name",
      "Slot0Schedule.FlexibleTimeWindow is required",
      "Slot0Schedule.Target.Retry is unknown",
      'TickDeadLetterQueue.MessageRetentionPeriod is "long", not a whole number',
    ]);
  });

  test("Node's heap fits into a function's memory; source maps are read when they are needed", () => {
    const functions = of("AWS::Lambda::Function").map(([, { Properties }]) => Properties);
    expect(functions).toHaveLength(4);
    for (const { MemorySize, Environment } of functions) {
      const { NODE_OPTIONS } = Environment.Variables;
      expect(Number(/--max-old-space-size=(\d+)/.exec(NODE_OPTIONS)?.[1])).toBe(MemorySize * 0.75);
      expect(NODE_OPTIONS).not.toContain("source-maps");
    }
  });

  test("a schedule a slot, none of which is repeated or comes late", () => {
    const schedules = of("AWS::Scheduler::Schedule").map(([, { Properties }]) => Properties);
    expect(schedules.map(({ Target }) => JSON.parse(Target.Input))).toEqual(
      [0, 1, 2, 3, 4].map((slot) => ({ slot, resident: slot === 0 })),
    );
    for (const { FlexibleTimeWindow, ScheduleExpression, Target } of schedules) {
      expect({ FlexibleTimeWindow, ScheduleExpression }).toEqual({
        FlexibleTimeWindow: { Mode: "OFF" },
        ScheduleExpression: "rate(1 minute)",
      });
      expect(Target).toMatchObject({
        RetryPolicy: { MaximumRetryAttempts: 0, MaximumEventAgeInSeconds: 60 },
        RoleArn: { "Fn::GetAtt": ["SchedulerRole", "Arn"] },
        DeadLetterConfig: { Arn: { "Fn::GetAtt": ["TickDeadLetterQueue", "Arn"] } },
      });
    }
    expect(statementsOf(resources.SchedulerRole!)).toEqual([
      {
        Effect: "Allow",
        Action: "lambda:InvokeFunction",
        Resource: { "Fn::GetAtt": ["ProcessorLambdaFunction", "Arn"] },
      },
      { Effect: "Allow", Action: "sqs:SendMessage", Resource: { "Fn::GetAtt": ["TickDeadLetterQueue", "Arn"] } },
    ]);
  });

  test("no role allows a wildcard, and each function has its own, with its own secret", () => {
    for (const [name, role] of of("AWS::IAM::Role"))
      for (const { Action, Resource } of statementsOf(role)) {
        expect([Action].flat().join(), name).not.toContain("*");
        expect(JSON.stringify(Resource), name).not.toContain("*");
      }
    const secrets = (role: string) =>
      statementsOf(resources[role]!)
        .filter(({ Action }) => Action === "secretsmanager:GetSecretValue")
        .map(({ Resource }) => Resource);
    expect(["ProcessorRole", "HealthRole", "MonitoringRole"].map(secrets)).toEqual([
      [{ Ref: "WorkerSecret" }],
      [{ Ref: "ProducerSecret" }],
      [{ Ref: "OperatorSecret" }],
    ]);
    for (const name of ["Processor", "Health", "Monitoring", "Migrate"]) {
      const { Properties } = resources[`${name}LambdaFunction`]!;
      expect(Properties.Role).toEqual({ "Fn::GetAtt": [`${name}Role`, "Arn"] });
      const [own] = secrets(`${name}Role`).flat();
      expect(Properties.Environment.Variables.DATABASE_SECRET_ARN).toEqual(own);
    }
    const invoked = statementsOf(resources.ProcessorRole!).find(({ Action }) => Action === "lambda:InvokeFunction")!;
    expect(JSON.stringify(invoked.Resource)).toContain(":function:stint-prod-processor");
    const wake = resources.ProcessorLambdaFunction!.Properties.Environment.Variables.TASK_PROCESSOR_WAKE_FUNCTION;
    expect(wake).toBe(resources.ProcessorLambdaFunction!.Properties.FunctionName);
  });

  test("what holds data outlives the stack, encrypted and protected", () => {
    const holding = Object.entries(resources).filter(([, { Type }]) => /^AWS::(RDS|EC2|SecretsManager)::/.test(Type));
    expect(holding.length).toBeGreaterThanOrEqual(13);
    for (const [name, { DeletionPolicy, UpdateReplacePolicy }] of holding)
      expect([name, DeletionPolicy, UpdateReplacePolicy]).toEqual([name, "RetainExceptOnCreate", "Retain"]);
    expect(resources.DatabaseCluster!.Properties).toMatchObject({
      EnableHttpEndpoint: true,
      ManageMasterUserPassword: true,
      StorageEncrypted: true,
      DeletionProtection: true,
      ServerlessV2ScalingConfiguration: { MinCapacity: 0.5, MaxCapacity: 4 },
    });
    expect(resources.DatabaseCluster!.Properties).not.toHaveProperty("MasterUserPassword");
    expect(resources.DatabaseInstance!.Properties).toMatchObject({
      DBInstanceClass: "db.serverless",
      PubliclyAccessible: false,
    });
    for (const [, { Properties }] of of("AWS::SQS::Queue")) expect(Properties.SqsManagedSseEnabled).toBe(true);
    for (const [, { Properties }] of of("AWS::Logs::LogGroup")) expect(Properties.RetentionInDays).toBe(30);
  });

  test("the schema and the roles are there before the code serves, anew with each new migration", () => {
    for (const name of ["Processor", "Health", "Monitoring"])
      expect(resources[`${name}LambdaFunction`]!.DependsOn).toContain("Migration");
    expect(resources.Migration!.DependsOn).toEqual(["DatabaseInstance"]);
    expect(resources.Migration!.Properties.ServiceToken).toEqual({ "Fn::GetAtt": ["MigrateLambdaFunction", "Arn"] });
    expect(resources.Migration!.Properties.Migrations).toMatch(/^[0-9a-f]{64}$/);
    expect(migrations.length).toBeGreaterThan(0);
  });

  test("HTTP is throttled, nothing of this machine is in it, and each alarm has its paragraph", () => {
    expect(resources.HttpApiStage!.Properties.DefaultRouteSettings).toEqual({
      ThrottlingRateLimit: 20,
      ThrottlingBurstLimit: 40,
    });
    expect(JSON.stringify(template)).not.toMatch(
      /AWS_ACCESS_KEY_ID|MONITORING_PUBLIC|127\.0\.0\.1:|AWS_ENDPOINT_URL|000000000000/,
    );
    const page = readFileSync(join(root, "infra/operations.md"), "utf8");
    const alarms = of("AWS::CloudWatch::Alarm");
    expect(alarms.length).toBeGreaterThanOrEqual(8);
    for (const [, { Properties }] of alarms) {
      expect(page).toContain(`### ${Properties.AlarmName.replace("stint-prod-", "")}\n`);
      expect(Properties.AlarmActions).toEqual([{ Ref: "AlarmTopic" }]);
    }
  });

  test("nothing depends on itself by a detour", () => {
    const needs = (value: unknown): string[] => {
      if (Array.isArray(value)) return value.flatMap(needs);
      if (value === null || typeof value !== "object") return [];
      return Object.entries(value).flatMap(([key, one]) => {
        if (key === "Ref") return [String(one)];
        if (key === "Fn::GetAtt") return [String([one].flat()[0])];
        return key === "DependsOn" ? [one].flat().map(String) : needs(one);
      });
    };
    const seen = new Set<string>();
    const visit = (name: string, path: readonly string[]): void => {
      expect(path, [...path, name].join(" -> ")).not.toContain(name);
      if (seen.has(name) || resources[name] === undefined) return;
      for (const one of new Set(needs(resources[name]))) visit(one, [...path, name]);
      seen.add(name);
    };
    for (const name of Object.keys(resources)) visit(name, []);
  });
});

test("an existing cluster, the quiet profile, a key of one's own: the same by parameters", {
  timeout: SLOW_MS,
}, async () => {
  const params = {
    databaseClusterArn: CLUSTER,
    databaseSecretArn: SECRET,
    profile: "quiet",
    kmsKeyArn: KEY,
    operate: "false",
  };
  const template = await packaged(
    ...Object.entries(params).flatMap(([name, value]) => ["--param", `${name}=${value}`]),
  );
  expect(await problemsOf(template)).toEqual([]);
  const { Resources: resources } = template;
  expect(Object.values(resources).filter(({ Type }) => /^AWS::(RDS|EC2)::/.test(Type))).toEqual([]);
  const schedules = Object.values(resources).filter(({ Type }) => Type === "AWS::Scheduler::Schedule");
  expect(
    schedules.map(({ Properties }) => [Properties.ScheduleExpression, JSON.parse(Properties.Target.Input)]),
  ).toEqual([["rate(1 hour)", { slot: 0, resident: false }]]);
  expect(resources.WakeMapping!.Properties).toMatchObject({
    BatchSize: 1,
    EventSourceArn: { "Fn::GetAtt": ["WakeQueue", "Arn"] },
  });
  const { Variables } = resources.ProcessorLambdaFunction!.Properties.Environment;
  expect(Variables).toMatchObject({
    DATABASE_RESOURCE_ARN: CLUSTER,
    TASK_PROCESSOR_WAKE_QUEUE_URL: { Ref: "WakeQueue" },
    TASK_PROCESSOR_RESIDENT_SLOTS: "0",
  });
  expect(resources.MigrateLambdaFunction!.Properties.Environment.Variables.DATABASE_SECRET_ARN).toBe(SECRET);
  expect(resources.MonitoringLambdaFunction!.Properties.Environment.Variables).not.toHaveProperty(
    "MONITORING_ADMIN_TOKEN",
  );
  expect(statementsOf(resources.MonitoringRole!)).toContainEqual({
    Effect: "Allow",
    Action: "secretsmanager:GetSecretValue",
    Resource: { Ref: "MonitorSecret" },
  });
  for (const name of ["ProcessorLogGroup", "MigrateLogGroup", "WorkerSecret"])
    expect(resources[name]!.Properties.KmsKeyId).toBe(KEY);
  expect(statementsOf(resources.ProcessorRole!)).toContainEqual({
    Effect: "Allow",
    Action: "kms:Decrypt",
    Resource: KEY,
  });
});
