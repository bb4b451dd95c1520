/** Every stage but `local`: all that `serverless deploy` makes, from the parameters in parameters.yml. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { alarmsOf, dashboardOf } from "../resources/alarms.js";
import { databaseOf, ROLES, secretsOf } from "../resources/database.js";
import { allow, functionRole } from "../resources/roles.js";
import { schedulesOf } from "../resources/schedules.js";
import { nodeOptions } from "./node-options.js";
import { readSettings } from "./settings.js";

const INLINED = new URL("../../lib/sql/migrations/inlined.ts", import.meta.url);

export async function stage(variables) {
  const memoryMb = await variables.resolveVariable("self:provider.memorySize");
  return stageOf(await readSettings(variables), { memoryMb });
}

const join = (...parts) => ({ "Fn::Join": ["", parts] });
const secretText = (logicalId) => join("{{resolve:secretsmanager:", { Ref: logicalId }, "}}");

function stageOf(settings, { memoryMb }) {
  const { name, slots, residentSlots, schema, databaseName, profile, kmsKeyArn } = settings;
  const database = databaseOf(settings);
  const quiet = profile === "quiet";
  const processor = `${name}-processor`;
  const watcher = settings.operate ? "OperatorSecret" : "MonitorSecret";
  const connecting = (secretArn) => ({ DATABASE_SECRET_ARN: secretArn });
  return {
    logRetentionInDays: settings.logRetentionDays,
    roles: Object.fromEntries(
      ["processor", "health", "monitoring", "migrate"].map((one) => [
        one,
        `${one[0].toUpperCase()}${one.slice(1)}Role`,
      ]),
    ),
    environment: {
      NODE_ENV: "production",
      NODE_OPTIONS: nodeOptions(memoryMb),
      DATABASE_RESOURCE_ARN: database.clusterArn,
      DATABASE_NAME: databaseName,
      TASK_PROCESSOR_SCHEMA: schema,
      TASK_RUN_METHOD: "TASK_PROCESSOR",
      TASK_PROCESSOR_NUM_THREADS: String(slots),
      TASK_PROCESSOR_RESIDENT_SLOTS: String(residentSlots),
      TASK_PROCESSOR_INVOCATION_MS: "900000",
      POWERTOOLS_SERVICE_NAME: name,
    },
    processorEnvironment: {
      ...connecting({ Ref: "WorkerSecret" }),
      TASK_PROCESSOR_WAKE_FUNCTION: processor,
      ...(quiet && { TASK_PROCESSOR_WAKE_QUEUE_URL: { Ref: "WakeQueue" } }),
      WEBHOOK_SIGNING_KEY: { Ref: "WebhookSigningKey" },
    },
    healthEnvironment: connecting({ Ref: "ProducerSecret" }),
    monitoringEnvironment: {
      ...connecting({ Ref: watcher }),
      MONITORING_TOKEN: secretText("MonitoringTokenSecret"),
      ...(settings.operate && { MONITORING_ADMIN_TOKEN: secretText("MonitoringAdminTokenSecret") }),
    },
    migrateEnvironment: {
      ...connecting(database.ownerSecretArn),
      STINT_ROLE_SECRETS: join(
        ...ROLES.flatMap((role, place) => [`${place ? "," : ""}${role.toLowerCase()}=`, { Ref: `${role}Secret` }]),
      ),
    },
    stackParameters: [{ ParameterKey: "WebhookSigningKey", ParameterValue: process.env.WEBHOOK_SIGNING_KEY ?? "" }],
    resources: {
      Parameters: { WebhookSigningKey: { Type: "String", NoEcho: true, Default: "" } },
      Resources: {
        ...database.resources,
        ...secretsOf(settings),
        ...rolesOf(settings, database, { processor, watcher, quiet }),
        Migration: {
          Type: "Custom::StintMigration",
          DependsOn: database.dependsOn,
          Properties: {
            ServiceToken: { "Fn::GetAtt": ["MigrateLambdaFunction", "Arn"] },
            ServiceTimeout: 300,
            // Runs again when one of these is another.
            Migrations: createHash("sha256").update(readFileSync(INLINED)).digest("hex"),
            Cluster: database.clusterArn,
            Schema: schema,
            RolePrefix: settings.rolePrefix,
          },
        },
        ...schedulesOf(settings),
        ...alarmsOf(settings),
        ...dashboardOf(settings),
      },
      extensions: extensionsOf(settings, kmsKeyArn),
      Outputs: {
        DatabaseClusterArn: { Value: database.clusterArn },
        ...Object.fromEntries(ROLES.map((role) => [`${role}SecretArn`, { Value: { Ref: `${role}Secret` } }])),
        MonitoringTokenSecretArn: { Value: { Ref: "MonitoringTokenSecret" } },
      },
    },
  };
}

function rolesOf({ kmsKeyArn }, { clusterArn, ownerSecretArn }, { processor, watcher, quiet }) {
  const one = (logGroup, secrets, more) => functionRole({ logGroup, clusterArn, secrets, kmsKeyArn, more });
  const itself = join(
    "arn:",
    { Ref: "AWS::Partition" },
    ":lambda:",
    { Ref: "AWS::Region" },
    ":",
    { Ref: "AWS::AccountId" },
    `:function:${processor}`,
  );
  return {
    ProcessorRole: one("ProcessorLogGroup", { Ref: "WorkerSecret" }, [
      allow("lambda:InvokeFunction", itself),
      ...(quiet
        ? [
            allow(["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], {
              "Fn::GetAtt": ["WakeQueue", "Arn"],
            }),
          ]
        : []),
    ]),
    HealthRole: one("HealthLogGroup", { Ref: "ProducerSecret" }),
    MonitoringRole: one("MonitoringLogGroup", { Ref: watcher }),
    MigrateRole: one("MigrateLogGroup", [ownerSecretArn, ...ROLES.map((role) => ({ Ref: `${role}Secret` }))]),
  };
}

function extensionsOf({ throttleRate, throttleBurst }, kmsKeyArn) {
  const functions = ["Processor", "Health", "Monitoring"];
  const key = kmsKeyArn === "" ? {} : { Properties: { KmsKeyId: kmsKeyArn } };
  return {
    // The schema and the roles are there before the code that needs them serves.
    ...Object.fromEntries(functions.map((one) => [`${one}LambdaFunction`, { DependsOn: ["Migration"] }])),
    ...(kmsKeyArn !== "" && Object.fromEntries([...functions, "Migrate"].map((one) => [`${one}LogGroup`, key]))),
    HttpApiStage: {
      Properties: { DefaultRouteSettings: { ThrottlingRateLimit: throttleRate, ThrottlingBurstLimit: throttleBurst } },
    },
  };
}
