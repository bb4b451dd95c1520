/** What `serverless package` makes: built once a test file, unpacked. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join, resolve } from "node:path";
import { inflateRawSync } from "node:zlib";
import { afterAll } from "vitest";
import { root, serverlessBin } from "./command.ts";
import type { TestDatabase } from "./database.ts";
import { Sandbox } from "./runtime-api.ts";
import { startNode } from "./stint.ts";

export const GRACE_MS = 10_000;
/** The tests' own loop. */
export const LOOP = [resolve(import.meta.dirname, "../runtime/loop.mjs")];

export interface Packaged {
  /** Where the function's zip was unpacked. */
  readonly folder: string;
  readonly handler: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

/** Packages stage `local` into the folder and unpacks the processor, or the monitoring function. */
export async function packageProcessor(
  folder: string,
  name: "processor" | "monitoring" = "processor",
): Promise<Packaged> {
  const output = join(folder, "package");
  const args = [serverlessBin, "package", "--stage", "local", "--package", output];
  const { code, stdout, stderr } = await startNode(args, {}, root).ended;
  if (code !== 0) throw new Error(`serverless package: ${stdout}${stderr}`);
  const text = readFileSync(join(output, "cloudformation-template-update-stack.json"), "utf8");
  const { Properties } = JSON.parse(text).Resources[`${name[0]!.toUpperCase()}${name.slice(1)}LambdaFunction`];
  const unpacked = join(folder, name);
  unzip(join(output, `${name}.zip`), unpacked);
  return {
    folder: unpacked,
    handler: Properties.Handler,
    environment: Properties.Environment.Variables,
    timeoutMs: Properties.Timeout * 1000,
  };
}

/** A sandbox of it on this database. */
export const startPackaged = (
  { folder, handler, environment }: Packaged,
  db: TestDatabase,
  {
    client = LOOP,
    timeoutMs = 30_000,
    more = {},
  }: { client?: readonly string[]; timeoutMs?: number; more?: Record<string, string> } = {},
): Promise<Sandbox> =>
  Sandbox.start({
    folder,
    handler,
    client,
    timeoutMs,
    environment: {
      ...environment,
      AWS_ENDPOINT_URL_RDS_DATA: db.endpoint,
      DATABASE_NAME: new URL(db.url).pathname.slice(1),
      TASK_PROCESSOR_GRACE_PERIOD_MS: String(GRACE_MS),
      TASK_PROCESSOR_INVOCATION_MS: String(timeoutMs),
      WEBHOOK_SIGNING_KEY: "a-key-of-the-tests",
      ...more,
    },
  });

export interface Receiver {
  readonly url: string;
  arrived(): number;
  letGo(): void;
}

/** Takes webhooks: /hold until they are let go, /fail answers 500. */
export async function startReceiver(): Promise<Receiver> {
  const held: ServerResponse[] = [];
  let arrived = 0;
  const server = createServer((request, response) => {
    request.resume();
    arrived += 1;
    if (request.url === "/hold") held.push(response);
    else response.writeHead(request.url === "/fail" ? 500 : 204).end();
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    arrived: () => arrived,
    letGo: () => {
      for (const response of held.splice(0)) response.writeHead(204).end();
    },
  };
}

/** Stored and deflated entries, as listed at the archive's end. */
function unzip(file: string, into: string): void {
  const zip = readFileSync(file);
  const end = zip.lastIndexOf(Buffer.from("PK\x05\x06", "latin1"));
  let at = zip.readUInt32LE(end + 16);
  for (let entries = zip.readUInt16LE(end + 10); entries > 0; entries -= 1) {
    const [method, size] = [zip.readUInt16LE(at + 10), zip.readUInt32LE(at + 20)];
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((place) => zip.readUInt16LE(at + place));
    const name = zip.toString("utf8", at + 46, at + 46 + nameLength!);
    const local = zip.readUInt32LE(at + 42);
    const start = local + 30 + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28);
    const data = zip.subarray(start, start + size);
    if (!name.endsWith("/")) {
      mkdirSync(dirname(join(into, name)), { recursive: true });
      writeFileSync(join(into, name), method === 8 ? inflateRawSync(data) : data);
    }
    at += 46 + nameLength! + extraLength! + commentLength!;
  }
}
