/** What serverless.yml promises: its functions run offline, its templates are as they should be, stage local stays here. */
import { readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { deliverWebhook } from "../functions/tasks/definitions.ts";
import { isSigned } from "../infra/local/demo/signature.ts";
import { freePort, LOCAL_WEBHOOK_KEY } from "../infra/local/places.ts";
import { LOCAL, localSecretOf, type Stack, startStack } from "../infra/local/stack.ts";
import { connectDatabase, createTaskClient } from "../lib/index.ts";
import { root, serverlessBin, temporaryFolder } from "./support/command.ts";
import { type Ended, startNode } from "./support/stint.ts";

const SLOW_MS = 180_000;
const folder = temporaryFolder();
let environment: Record<string, string>;

beforeAll(async () => {
  environment = { STINT_DATA_DIR: join(folder, "postgres"), DATA_API_PORT: String(await freePort()) };
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const serverless = (args: readonly string[]): Promise<Ended> =>
  startNode([serverlessBin, ...args], environment, root).ended;

const invoke = (name: string, event: unknown = {}): Promise<Ended> =>
  serverless(["invoke", "local", "-f", name, "--data", JSON.stringify(event)]);

/** All of stdout is one JSON text. */
function answered({ code, stdout, stderr }: Ended): unknown {
  expect({ code, stderr: code === 0 ? "" : stderr, stdout: code === 0 ? "" : stdout }).toEqual({
    code: 0,
    stderr: "",
    stdout: "",
  });
  return JSON.parse(stdout);
}

describe("invoke local", () => {
  describe("while the local stack runs", () => {
    let stack: Stack;
    beforeAll(async () => {
      stack = await startStack({
        dataDir: environment.STINT_DATA_DIR!,
        dataApiPort: Number(environment.DATA_API_PORT),
      });
    }, SLOW_MS);
    afterAll(() => stack.stop());

    test("the processor takes its slot, runs what is due, and leaves with a report on stdout", {
      timeout: SLOW_MS,
    }, async () => {
      const received: boolean[] = [];
      const receiver = createServer(async (request, response) => {
        let body = "";
        for await (const chunk of request.setEncoding("utf8")) body += chunk;
        received.push(isSigned(LOCAL_WEBHOOK_KEY, request.headers, body));
        response.writeHead(204).end();
      });
      await new Promise<void>((done) => receiver.listen(0, "127.0.0.1", done));
      const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;
      const database = await connectDatabase({ kind: "data-api", ...LOCAL }, { endpoint: stack.dataApi.endpoint });
      try {
        await createTaskClient({ database }).enqueue(deliverWebhook, { url, event: "order.paid", body: { order: 1 } });
        expect(answered(await invoke("monitoring"))).toEqual({ waiting: 1 });
        const ended = await invoke("processor", { slot: 0 });
        const report = answered(ended);
        expect(report).toMatchObject({
          slot: 0,
          epoch: expect.any(Number),
          failed: 0,
          durationMs: expect.any(Number),
          left: "nothing_due",
        });
        expect((report as { succeeded: number }).succeeded).toBeGreaterThanOrEqual(1);
        expect(ended.stderr).toContain("webhook answered");
        expect(received).toEqual([true]);
        expect(answered(await invoke("monitoring"))).toEqual({ waiting: 0 });
      } finally {
        await database.close();
        receiver.closeAllConnections();
        receiver.close();
      }
    });

    test.each([
      [{ slot: 99 }, "slot_invalid", "0 to 4"],
      [{}, "event_invalid", '"slot": 0'],
      [{ slot: 0, resident: "yes" }, "event_invalid", '"resident"'],
    ])("the event %j is refused with a code", { timeout: SLOW_MS }, async (event, code, hint) => {
      const ended = await invoke("processor", event);
      expect(ended.code).toBe(1);
      const { errorMessage } = JSON.parse(ended.stdout) as { errorMessage: string };
      expect(errorMessage).toMatch(new RegExp(`^${code}: `));
      expect(errorMessage).toContain(hint);
    });
  });

  describe("while nothing runs", () => {
    test("a database or an account of the shell is left alone", { timeout: SLOW_MS }, async () => {
      const shell = {
        DATABASE_URL: "postgres://127.0.0.1:1/precious",
        TASK_PROCESSOR_DATABASE_URL: "postgres://127.0.0.1:1/precious",
        AWS_PROFILE: "precious",
      };
      const ended = startNode(
        [serverlessBin, "invoke", "local", "-f", "monitoring", "--data", "{}"],
        { ...environment, ...shell },
        root,
      ).ended;
      expect(answered(await ended)).toEqual({ waiting: 0 });
    });

    test("health brings its own database, with the data folder of `npm start`", { timeout: SLOW_MS }, async () => {
      expect(answered(await invoke("health"))).toEqual({
        DatabaseBackend: "working",
        MigrationsHealthCheck: "working",
      });
    });

    test("two at a time take turns", { timeout: SLOW_MS }, async () => {
      const [first, second] = await Promise.all([invoke("processor", { slot: 1 }), invoke("processor", { slot: 2 })]);
      expect(answered(first!)).toMatchObject({ slot: 1, left: "nothing_due" });
      expect(answered(second!)).toMatchObject({ slot: 2, left: "nothing_due" });
    });
  });
});

interface Resource {
  readonly Type: string;
  // biome-ignore lint/suspicious/noExplicitAny: a template is whatever CloudFormation takes
  readonly Properties: any;
}

async function template(
  stage: string,
  ...more: string[]
): Promise<{ resources: Resource[]; named: Record<string, Resource>; text: string }> {
  const output = join(folder, `package-${stage}-${more.length}`);
  const ended = await serverless(["package", "--stage", stage, "--package", output, ...more]);
  expect(ended.code, ended.stderr + ended.stdout).toBe(0);
  const text = readFileSync(join(output, "cloudformation-template-update-stack.json"), "utf8");
  const { Resources } = JSON.parse(text) as { Resources: Record<string, Resource> };
  return { resources: Object.values(Resources), named: Resources, text };
}

const inputs = (resources: readonly Resource[]): unknown[] =>
  resources
    .filter(({ Type }) => Type === "AWS::Scheduler::Schedule")
    .map(({ Properties }) => JSON.parse(Properties.Target.Input));

describe("package", () => {
  test("stage local: the literals of the stand-in; another count of slots is one variable", {
    timeout: SLOW_MS,
  }, async () => {
    const { resources, named } = await template("local", "--param", "slots=3", "--param", "residentSlots=2");
    expect(inputs(resources)).toEqual([
      { slot: 0, resident: true },
      { slot: 1, resident: true },
      { slot: 2, resident: false },
    ]);
    expect(named.ProcessorLambdaFunction!.Properties.Environment.Variables).toMatchObject({
      DATABASE_RESOURCE_ARN: LOCAL.resourceArn,
      DATABASE_SECRET_ARN: localSecretOf("worker"),
      DATABASE_NAME: LOCAL.database,
      AWS_REGION: LOCAL.region,
      AWS_ENDPOINT_URL_RDS_DATA: `http://127.0.0.1:${environment.DATA_API_PORT}`,
      TASK_PROCESSOR_NUM_THREADS: "3",
      TASK_PROCESSOR_RESIDENT_SLOTS: "2",
      WEBHOOK_SIGNING_KEY: LOCAL_WEBHOOK_KEY,
    });
  });
});

describe("deploy", () => {
  test("stage local is refused in one line", { timeout: SLOW_MS }, async () => {
    const { code, stdout } = await serverless(["deploy"]);
    expect({ code, stdout }).toEqual({
      code: 1,
      stdout: "Error:\nStage local lives on this machine only: deploy with --stage prod.\n",
    });
  });
});
