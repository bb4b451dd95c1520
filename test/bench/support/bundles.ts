/** Functions as Lambda gets them: bundled as serverless.yml says, each started in a fresh process. */
import { type ChildProcess, fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { parse } from "yaml";
import { LOCAL } from "../../../infra/local/stack.ts";
import { nodeOptions } from "../../../infra/stages/node-options.js";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const { custom, provider } = parse(readFileSync(join(root, "serverless.yml"), "utf8"));

/** The processor with no task but `bench.nothing`, and the least that can be: the SDK's client and one request. */
const SOURCES = {
  processor: `import { createProcessorHandler } from "./lib/processor.ts";
    import { defineTask } from "./lib/task.ts";
    import * as z from "zod/mini";
    const nothing = defineTask({ identifier: "bench.nothing", payload: z.object({ n: z.number() }) });
    export const handler = createProcessorHandler({ handlers: [nothing.handle(() => {})] });`,
  bare: `import { ExecuteStatementCommand, RDSDataClient } from "@aws-sdk/client-rds-data";
    export const handler = () => new RDSDataClient({}).send(new ExecuteStatementCommand({
      resourceArn: process.env.DATABASE_RESOURCE_ARN, secretArn: process.env.DATABASE_SECRET_ARN,
      database: process.env.DATABASE_NAME, sql: "SELECT 1" }));`,
} as const;

export type Bundle = keyof typeof SOURCES;

export async function withBundles<T>(work: (paths: Readonly<Record<Bundle, string>>) => Promise<T>): Promise<T> {
  const { exclude, outputFileExtension, plugins, skipRebuild, watch, ...settings } = custom.esbuild;
  const folder = await mkdtemp(join(tmpdir(), "stint-bench-"));
  const bundled = async (name: Bundle): Promise<string> => {
    const outdir = join(folder, name);
    await build({
      ...settings,
      external: exclude,
      stdin: { contents: SOURCES[name], resolveDir: root, loader: "ts" },
      outdir,
      outExtension: { ".js": outputFileExtension },
    });
    return join(outdir, `stdin${outputFileExtension}`);
  };
  try {
    return await work({ processor: await bundled("processor"), bare: await bundled("bare") });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** One call of the bundle's handler in a fresh process with the environment of the deployed processor. */
export const startFunction = (
  path: string,
  { endpoint, database, more = {} }: { endpoint: string; database: string; more?: Record<string, string> },
): ChildProcess =>
  fork(fileURLToPath(new URL("function.mjs", import.meta.url)), [path], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    env: {
      PATH: process.env.PATH,
      NODE_OPTIONS: nodeOptions(provider.memorySize),
      AWS_LAMBDA_RUNTIME_API: "127.0.0.1:1",
      AWS_LAMBDA_FUNCTION_NAME: "stint-bench-processor",
      AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(provider.memorySize),
      AWS_REGION: LOCAL.region,
      AWS_ACCESS_KEY_ID: "bench",
      AWS_SECRET_ACCESS_KEY: "bench",
      AWS_ENDPOINT_URL_RDS_DATA: endpoint,
      DATABASE_RESOURCE_ARN: LOCAL.resourceArn,
      DATABASE_SECRET_ARN: LOCAL.secretArn,
      DATABASE_NAME: database,
      TASK_RUN_METHOD: "TASK_PROCESSOR",
      LOG_LEVEL: "ERROR",
      ...more,
    },
  });
