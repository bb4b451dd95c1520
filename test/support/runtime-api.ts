/** Lambda on this machine: a Runtime API server, and sandboxes whose process is started, frozen, thawed and stopped as the platform does it. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll } from "vitest";

export interface SandboxOptions {
  /** Where the zip was unpacked. */
  readonly folder: string;
  /** `functions/processor.handler` */
  readonly handler: string;
  readonly environment: Readonly<Record<string, string>>;
  /** The client's arguments to node: the tests' own loop, or Lambda's own client. */
  readonly client: readonly string[];
  /** The function's time limit, after which the process is killed. */
  readonly timeoutMs: number;
}

export interface Answered {
  /** "stopped": killed at its time limit, or by the test. */
  readonly status: "succeeded" | "failed" | "stopped";
  // biome-ignore lint/suspicious/noExplicitAny: whatever the handler answers
  readonly body: any;
  /** What the tests' own loop still saw active afterwards. */
  readonly stillActive: string;
}

const sandboxes = new Set<Sandbox>();
afterAll(() => Promise.all([...sandboxes].map((one) => one.stop())));

/** One execution environment: one process, one invocation at a time, frozen between them. */
export class Sandbox {
  readonly #options: SandboxOptions;
  readonly #server: Server;
  readonly #child: ChildProcess;
  #waiting: ServerResponse | undefined;
  #idle: () => void = () => {};
  #becameIdle: Promise<void>;
  #current: { id: string; end: (answered: Answered) => void } | undefined;
  #stdout = "";
  #stderr = "";
  initError: unknown;

  private constructor(options: SandboxOptions, server: Server) {
    this.#options = options;
    this.#server = server;
    this.#becameIdle = this.#untilIdle();
    server.on("request", (request, response) => void this.#serve(request, response));
    this.#child = spawn(process.execPath, options.client, {
      cwd: options.folder,
      env: {
        PATH: process.env.PATH,
        AWS_LAMBDA_RUNTIME_API: `127.0.0.1:${(server.address() as AddressInfo).port}`,
        LAMBDA_TASK_ROOT: options.folder,
        _HANDLER: options.handler,
        AWS_LAMBDA_FUNCTION_NAME: "stint-test-processor",
        AWS_LAMBDA_FUNCTION_VERSION: "$LATEST",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE: "512",
        AWS_LAMBDA_LOG_GROUP_NAME: "/aws/lambda/stint-test-processor",
        AWS_LAMBDA_LOG_STREAM_NAME: "2026/01/01/[$LATEST]0",
        AWS_LAMBDA_INITIALIZATION_TYPE: "on-demand",
        AWS_EXECUTION_ENV: "AWS_Lambda_nodejs24.x",
        TZ: "UTC",
        ...options.environment,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child.stdout!.on("data", (text) => {
      this.#stdout += text;
    });
    this.#child.stderr!.on("data", (text) => {
      this.#stderr += text;
    });
    this.#child.on("exit", () => {
      this.#end({ status: "stopped", body: undefined, stillActive: "" });
      this.#idle();
    });
    sandboxes.add(this);
  }

  static async start(options: SandboxOptions): Promise<Sandbox> {
    const server = createServer();
    server.keepAliveTimeout = 600_000;
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Sandbox(options, server);
  }

  get stdout(): string {
    return this.#stdout;
  }

  get output(): string {
    return this.#stdout + this.#stderr;
  }

  /** Thaws it, hands the event over, and freezes it with the answer. A process that has not answered at the time limit is killed. */
  async invoke(event: unknown): Promise<Answered> {
    this.thaw();
    await this.#becameIdle;
    if (this.#waiting === undefined) return { status: "stopped", body: this.initError, stillActive: "" };
    const id = randomUUID();
    const limit = setTimeout(() => this.kill(), this.#options.timeoutMs);
    const answered = await new Promise<Answered>((end) => {
      this.#current = { id, end };
      this.#becameIdle = this.#untilIdle();
      this.#waiting!.writeHead(200, {
        "content-type": "application/json",
        "lambda-runtime-aws-request-id": id,
        "lambda-runtime-deadline-ms": String(Date.now() + this.#options.timeoutMs),
        "lambda-runtime-invoked-function-arn": "arn:aws:lambda:us-east-1:000000000000:function:stint-test-processor",
        "lambda-runtime-trace-id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1",
      });
      this.#waiting!.end(JSON.stringify(event));
      this.#waiting = undefined;
    });
    clearTimeout(limit);
    await this.#becameIdle;
    this.freeze();
    return answered;
  }

  freeze(): void {
    this.#child.kill("SIGSTOP");
  }

  thaw(): void {
    this.#child.kill("SIGCONT");
  }

  /** The handler's event loop stands still from now on. */
  block(): void {
    this.#child.kill("SIGUSR2");
  }

  /** At once, as the platform does it: nobody is asked. */
  kill(): void {
    this.#child.kill("SIGKILL");
  }

  async stop(): Promise<void> {
    sandboxes.delete(this);
    this.kill();
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, "exit");
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #untilIdle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle = resolve;
    });
  }

  #end(answered: Answered): void {
    const current = this.#current;
    this.#current = undefined;
    current?.end(answered);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = "";
    for await (const part of request.setEncoding("utf8")) body += part;
    if (request.method === "GET") {
      this.#waiting = response;
      this.#idle();
      return;
    }
    response.writeHead(202).end();
    if (request.url!.endsWith("/init/error")) this.initError = JSON.parse(body);
    else if (request.url!.includes(`/${this.#current?.id}/`)) {
      const status = request.url!.endsWith("/response") ? "succeeded" : "failed";
      this.#end({ status, body: JSON.parse(body), stillActive: String(request.headers["x-still-active"] ?? "") });
    }
  }
}
