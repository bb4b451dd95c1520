/** Health and the operators' pages of a container, over node:http: the same routes as the functions serve. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, BlockList, isIP } from "node:net";
import type { Config } from "../lib/config.ts";
import { dashboardRoutes } from "../lib/dashboard/index.ts";
import { limited } from "../lib/database/limits.ts";
import type { Database } from "../lib/database/port.ts";
import { codeOf, StintError } from "../lib/errors.ts";
import { healthRoutes } from "../lib/health.ts";
import { answer, type HttpAnswer, type HttpRequest, refusal } from "../lib/http.ts";
import type { Log } from "../lib/log.ts";
import { answerOperator, operatorRoutes } from "../lib/operator-routes.ts";

export interface ListenerOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly config: Config;
  readonly databases: readonly Database[];
  readonly log: Log;
  /** Once it aborts, readiness answers 503. */
  readonly signal: AbortSignal;
}

export interface Listener {
  readonly url: string;
  /** Answers what is under way for a second at most. */
  close(): Promise<void>;
}

/** More than lib/http.ts lets through, so that it is the one to refuse. */
const MOST_BODY_BYTES = 262_145;
const HEADERS_TIMEOUT_MS = 5000;
const REQUEST_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 5000;
const CLOSE_MS = 1000;
const MOST_CONNECTIONS = 256;
/** Of each call to a database: about as long as API Gateway waits. */
const CALL_MS = 30_000;

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** @throws StintError option_invalid when it cannot listen there */
export async function listen(options: ListenerOptions): Promise<Listener> {
  const limits = {
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: 1000,
    maxHeaderSize: 16_384,
  };
  const respond = responder(options);
  const server = createServer(limits, (request, response) => {
    const { address } = server.address() as AddressInfo;
    void serve(request, response, isLoopback(address), respond, options.log);
  });
  server.maxConnections = MOST_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) =>
      reject(
        new StintError("option_invalid", `Cannot listen on ${options.host} port ${options.port}: ${cause.message}`, {
          cause,
        }),
      ),
    );
    server.listen({ host: options.host, port: options.port }, resolve);
  });
  server.on("error", (error) => options.log.error("the listener failed", { error: String(error) }));
  const { address, port } = server.address() as AddressInfo;
  return {
    url: `http://${isIP(address) === 6 ? `[${address}]` : address}:${port}`,
    close: () =>
      new Promise((resolve) => {
        const timer = setTimeout(() => server.closeAllConnections(), CLOSE_MS);
        server.close(() => {
          clearTimeout(timer);
          resolve();
        });
      }),
  };
}

function responder({
  config,
  log,
  signal,
  ...options
}: ListenerOptions): (request: HttpRequest) => Promise<HttpAnswer> {
  const databases = options.databases.map((database) => limited(database, CALL_MS));
  const health = healthRoutes({
    databases,
    taskProcessorCheck: config.healthCheckEnabled,
    sleepIntervalMs: config.sleepIntervalMs,
    log,
  });
  const operator = operatorRoutes({
    databases,
    monitoring: config.monitoring,
    settings: config,
    pages: dashboardRoutes,
  });
  const routes = {
    ...health,
    "/health/readiness": async (request: HttpRequest) =>
      signal.aborted
        ? refusal(503, "stopping", "This process is about to end.")
        : await health["/health/readiness"]!(request),
  };
  return async (request) =>
    /^\/processor(\/|$)/.test(request.path)
      ? await answerOperator(operator, config.monitoring, request, log)
      : await answer(routes, request, log);
}

async function serve(
  incoming: IncomingMessage,
  response: ServerResponse,
  bound: boolean,
  respond: (request: HttpRequest) => Promise<HttpAnswer>,
  log: Log,
): Promise<void> {
  try {
    const { status, headers, body } = await respond(await read(incoming, bound));
    // What is left of a body that was too long is not read: the connection cannot be used again.
    const close = incoming.complete ? {} : { connection: "close" };
    response.writeHead(status, { ...headers, ...close, "content-length": Buffer.byteLength(body) });
    response.end(incoming.method === "HEAD" ? undefined : body);
  } catch (error) {
    if (!response.destroyed && !incoming.errored)
      log.error("a request failed", { code: codeOf(error), error: String(error) });
    response.destroy();
  }
}

async function read(incoming: IncomingMessage, bound: boolean): Promise<HttpRequest> {
  const [path = "/", ...rest] = (incoming.url ?? "/").split("?");
  const search = rest.join("?");
  const headers = Object.fromEntries(
    Object.entries(incoming.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : value]),
  );
  const body = await readBody(incoming);
  return {
    method: incoming.method ?? "GET",
    path,
    query: Object.fromEntries(new URLSearchParams(search)),
    queryBytes: Buffer.byteLength(search),
    headers,
    loopback: bound && fromHere(headers),
    ...(body !== "" && { body }),
  };
}

/** Bound to loopback is not enough: a proxy of this machine passes strangers on, and a site's name may be pointed at 127.0.0.1. */
const fromHere = (headers: Readonly<Record<string, string | undefined>>): boolean =>
  headers["x-forwarded-for"] === undefined &&
  headers.forwarded === undefined &&
  /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/i.test(headers.host ?? "");

/** At most MOST_BODY_BYTES of it. */
async function readBody(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  return await new Promise((resolve, reject) => {
    const done = (): void => resolve(Buffer.concat(chunks).subarray(0, MOST_BODY_BYTES).toString("utf8"));
    incoming.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes < MOST_BODY_BYTES) return;
      incoming.pause();
      done();
    });
    incoming.on("end", done);
    incoming.on("error", reject);
    incoming.on("close", () => incoming.complete || reject(new Error("The request was cut off.")));
  });
}

const isLoopback = (address: string): boolean =>
  isIP(address) !== 0 && loopback.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
