import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { ApiError, Drop } from "./errors.ts";
import { Faults } from "./faults.ts";
import { type Answer, answerOf, readBody, send } from "./http.ts";
import { type Backend, perform } from "./operations.ts";
import type { DataApi, DataApiOptions } from "./options.ts";
import { Pool } from "./pool.ts";
import { openRecorder, type Recorder } from "./record.ts";
import { type Operation, operationNamed, pathOf, type Request, readRequest } from "./request.ts";
import { signatureCheck } from "./signature.ts";
import { Transactions } from "./transactions.ts";

interface Service {
  backend: Backend;
  faults: Faults;
  options: DataApiOptions;
  checkSignature: ReturnType<typeof signatureCheck>;
  recorder: Recorder | undefined;
  /** Requests whose body has not arrived in full. */
  arriving: Set<IncomingMessage>;
}

/**
 * The RDS Data API in front of a Postgres of one's own. It is as strict as Aurora where that is known, and refuses
 * where it is not: what runs here is meant to run there.
 */
export async function startDataApi(options: DataApiOptions): Promise<DataApi> {
  const faults = new Faults();
  faults.set(options.faults ?? {});
  const recorder = options.record ? await openRecorder(options.record) : undefined;
  const service: Service = {
    backend: backendOf(options),
    faults,
    options,
    checkSignature: signatureCheck(options.credentials),
    recorder,
    arriving: new Set(),
  };
  const running = new Set<Promise<void>>();
  const server = createServer(
    {
      // Longer than clients keep a connection, or they would now and then write into one that just closed.
      keepAliveTimeout: 65_000,
      requestTimeout: options.requestTimeoutMs ?? 60_000,
      headersTimeout: Math.min(options.requestTimeoutMs ?? 60_000, 30_000),
      connectionsCheckingInterval: Math.min(options.requestTimeoutMs ?? 60_000, 5_000),
    },
    (request, response) => {
      const work = handle(request, response, service).finally(() => running.delete(work));
      running.add(work);
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port ?? 0, options.host ?? "127.0.0.1", 2048, resolve);
  }).catch(async (error) => {
    await end();
    throw error;
  });
  const { port, address, family } = server.address() as AddressInfo;
  let closing: Promise<void> | undefined;
  return {
    port,
    endpoint: `http://${family === "IPv6" ? `[${address}]` : address}:${port}`,
    faults,
    close: () => (closing ??= close()),
  };

  async function close(): Promise<void> {
    const closed = new Promise((resolve) => server.close(resolve));
    for (const request of service.arriving) request.destroy();
    await Promise.all(running);
    server.closeAllConnections();
    await closed;
    await end();
  }

  async function end(): Promise<void> {
    service.backend.transactions.close();
    for (const { pool } of service.backend.clusters.values()) pool.close();
    await recorder?.close();
  }
}

function backendOf(options: DataApiOptions): Backend {
  const { maxConnections = 20, rotate = true, statementTimeoutMs = 45_000 } = options;
  const clusters = options.clusters.map((cluster) => {
    const pool = new Pool({ url: cluster.url, maxConnections, rotate, waitMs: statementTimeoutMs });
    return [cluster.resourceArn, { cluster, pool }] as const;
  });
  const transactions = new Transactions(options.transactionIdleMs ?? 180_000);
  return { clusters: new Map(clusters), transactions, statementTimeoutMs };
}

async function handle(request: IncomingMessage, response: ServerResponse, service: Service): Promise<void> {
  const started = performance.now();
  const later: Array<() => void> = [];
  const isControl = request.url === "/__faults" && service.options.control === true;
  let body: Buffer | undefined;
  let answer: Answer | undefined;
  try {
    service.arriving.add(request);
    body = await readBody(request).finally(() => service.arriving.delete(request));
    if (isControl) answer = control(request, body, service.faults);
    else {
      const operation = operationOf(request);
      await service.checkSignature(request, body);
      const input = readRequest(operation, body.toString("utf8"));
      answer = await faulty(operation, input, service, (work) => later.push(work));
    }
  } catch (error) {
    if (!(error instanceof Drop)) answer = answerOf(error);
  }
  if (answer) send(response, answer);
  else response.destroy();
  for (const work of later) work();
  // Of a request whose sender left in the middle there is neither.
  if (!isControl && (body ?? answer) !== undefined)
    service.recorder?.write({ request, body, answer, durationMs: performance.now() - started });
}

function operationOf(request: IncomingMessage): Operation {
  const operation = operationNamed(request);
  if (operation) return operation;
  const path = pathOf(request.url ?? "");
  if (path === "/ExecuteSql") throw new ApiError("BadRequestException", 400, "This API operation isn't supported");
  throw new ApiError("UnknownOperationException", 404, `Unknown operation ${request.method} ${path}`);
}

const sqlOf: Partial<Record<Operation, string>> = {
  BeginTransaction: "BEGIN",
  CommitTransaction: "COMMIT",
  RollbackTransaction: "ROLLBACK",
};

async function faulty(
  operation: Operation,
  input: Request,
  { backend, faults }: Service,
  later: (work: () => void) => void,
): Promise<Answer> {
  const afterRun = await faults.beforeRun(sqlOf[operation] ?? input.sql);
  const body = await perform(operation, input, backend, later);
  if (afterRun === "commitThenDrop") throw new Drop();
  if (afterRun === "commitThenError") throw faults.someServerError();
  return { status: 200, body };
}

function control(request: IncomingMessage, body: Buffer, faults: Faults): Answer {
  try {
    if (request.method === "POST") faults.set(JSON.parse(body.toString("utf8")));
    if (request.method === "DELETE") faults.clear();
  } catch (error) {
    throw new ApiError("ValidationException", 400, (error as Error).message);
  }
  return { status: 200, body: JSON.stringify({ injected: faults.injected }) };
}
