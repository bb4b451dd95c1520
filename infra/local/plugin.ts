/** Our side of serverless.yml: stage `local` never leaves this machine, and each command builds in a folder of its own. */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../../lib/errors.ts";
import { borrowStack } from "./borrowed-stack.ts";
import type { Told } from "./offline.ts";
import type { Stack } from "./stack.ts";

/** The part of osls that is used here. */
interface Serverless {
  serviceDir: string;
  processedInput: { commands: string[] };
  classes: { Error: new (message: string, code?: string) => Error };
  service: {
    provider: { stage: string; environment: Record<string, unknown> };
    custom: { esbuild: Record<string, unknown> & { watch: { pattern: string[] } } };
  };
}

export default class StintPlugin {
  readonly hooks: Record<string, (error?: unknown) => Promise<void> | void>;
  readonly #serverless: Serverless;
  #stack: Stack | undefined;

  constructor(serverless: Serverless) {
    this.#serverless = serverless;
    this.hooks = {
      initialize: () => this.#initialize(),
      "before:invoke:local:invoke": () => this.#findDatabase(),
      "after:offline:start:init": () => tell("ready"),
      finalize: () => this.#stop(),
      error: (error) => this.#fail(error),
    };
  }

  get #local(): boolean {
    return this.#serverless.service.provider.stage === "local";
  }

  #initialize(): void {
    const [command, subcommand] = this.#serverless.processedInput.commands;
    if (command === "deploy") this.#refuseDeployment();
    if (this.#local) forgetTheWorld();
    if (command === "offline") endWithParent();
    const { esbuild } = this.#serverless.service.custom;
    esbuild.outputWorkFolder = buildFolder(this.#serverless.serviceDir);
    // A change in a source file takes the place of what runs, tasks included; with this, it waits for the next start.
    if (process.env.STINT_WATCH === "false") esbuild.watch.pattern = [];
    // `invoke local` finds no handler under the extension that Lambda needs for a module.
    if (command === "invoke" && subcommand === "local") esbuild.outputFileExtension = ".js";
  }

  #refuseDeployment(): void {
    const refuse = (message: string): never => {
      throw new this.#serverless.classes.Error(message, "STINT_DEPLOYMENT_REFUSED");
    };
    if (this.#local) refuse("Stage local lives on this machine only: deploy with --stage prod.");
  }

  async #findDatabase(): Promise<void> {
    const { environment } = this.#serverless.service.provider;
    // Named by `-e`: that one it is.
    if (!this.#local || process.env.AWS_ENDPOINT_URL_RDS_DATA !== environment.AWS_ENDPOINT_URL_RDS_DATA) return;
    const found = await borrowStack(this.#serverless.serviceDir).catch((error: Error) => {
      // Of these osls prints the message alone; of others a stack.
      throw codeOf(error) === undefined ? error : new this.#serverless.classes.Error(error.message, codeOf(error));
    });
    if ("stack" in found) this.#stack = found.stack;
    process.env.AWS_ENDPOINT_URL_RDS_DATA = found.endpoint;
  }

  /** osls prints it, and goes on as long as esbuild or a channel is open. */
  async #fail(error: unknown): Promise<void> {
    await tell({ failed: error instanceof Error ? error.message : String(error) });
    await this.#stop();
  }

  async #stop(): Promise<void> {
    const stack = this.#stack;
    this.#stack = undefined;
    await stack?.stop();
  }
}

/** Real credentials and databases of the shell must not get near stage local, nor may looking for them cost time. */
function forgetTheWorld(): void {
  for (const name of Object.keys(process.env))
    if (/^(TASK_PROCESSOR_)?DATABASE|^AWS_(DEFAULT_)?PROFILE$|^AWS_SESSION_TOKEN$/.test(name)) delete process.env[name];
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: "local",
    AWS_SECRET_ACCESS_KEY: "local",
    AWS_EC2_METADATA_DISABLED: "true",
  });
}

/** What `npm start` hears (infra/local/offline.ts). Once it is on its way the process may end. */
async function tell(what: Told): Promise<void> {
  if (process.env.STINT_TELLS === "true" && process.connected)
    await new Promise<void>((done) => process.send!(what, () => done()));
}

/** `npm start` holds the other end of the channel, and may be killed. */
function endWithParent(): void {
  process.on("disconnect", () => process.exit(1));
}

/** One a process, so that no two commands share one and nothing stale is packaged. Those of the dead are swept. */
function buildFolder(serviceDir: string): string {
  const name = join(".esbuild", String(process.pid));
  const parent = join(serviceDir, ".esbuild");
  mkdirSync(parent, { recursive: true });
  for (const one of readdirSync(parent))
    if (!isAlive(Number(one)) || Number(one) === process.pid)
      rmSync(join(parent, one), { recursive: true, force: true });
  process.on("exit", () => rmSync(join(serviceDir, name), { recursive: true, force: true }));
  return name;
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
