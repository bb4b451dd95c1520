/** Requests and answers, whoever carries them: API Gateway, or a listener of one's own. */
import { StintError } from "./errors.ts";
import type { Log } from "./log.ts";

export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string | undefined>>;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** Came in through a listener that only this machine can reach. */
  readonly loopback: boolean;
  readonly body?: string;
  /** Bytes of the query as it came. */
  readonly queryBytes?: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export type Route = (request: HttpRequest) => Promise<HttpAnswer>;
/** By path. A path that ends in `/*` takes everything below it; the longest such wins. A bare Route answers GET and HEAD. */
export type Routes = Readonly<Record<string, Route | Readonly<{ GET?: Route; POST?: Route }>>>;

/** Longer than any request that is meant. */
const MOST_URI_BYTES = 8192;
const MOST_BODY_BYTES = 262_144;

export const json = (status: number, value: unknown): HttpAnswer => ({
  status,
  headers: { "content-type": "application/json; charset=utf-8", "cache-control": "no-store" },
  body: JSON.stringify(value),
});

/** An error as a client sees it: a code and a message, never a stack. */
export const refusal = (status: number, code: string, message: string): HttpAnswer =>
  json(status, { error: { code, message } });

export async function answer(routes: Routes, request: HttpRequest, log: Log): Promise<HttpAnswer> {
  const path = request.path.length > 1 ? request.path.replace(/\/$/, "") : request.path;
  if (Buffer.byteLength(path) + (request.queryBytes ?? queryBytes(request)) > MOST_URI_BYTES)
    return refusal(414, "uri_too_long", "The path and query are at most 8 KiB.");
  if (Buffer.byteLength(request.body ?? "") > MOST_BODY_BYTES)
    return refusal(413, "body_too_large", "The body is at most 256 KiB.");
  const found = lookUp(routes, path);
  if (found === undefined) return refusal(404, "not_found", "There is nothing at this path.");
  const methods = typeof found === "function" ? { GET: found } : found;
  const asked = request.method === "HEAD" ? "GET" : request.method;
  const route = asked === "GET" || asked === "POST" ? methods[asked] : undefined;
  if (route === undefined) {
    const allowed = [methods.GET && "GET, HEAD", methods.POST && "POST"].filter(Boolean).join(", ");
    const refused = refusal(405, "method_not_allowed", `This path answers ${allowed.replaceAll(", ", " and ")}.`);
    return { ...refused, headers: { ...refused.headers, allow: allowed } };
  }
  try {
    const answered = await route({ ...request, path });
    return request.method === "HEAD" ? { ...answered, body: "" } : answered;
  } catch (error) {
    log.error("a request failed", { path, error: String(error) });
    if (error instanceof StintError && error.code === "option_invalid")
      return refusal(400, "request_invalid", error.message);
    if (error instanceof StintError) return refusal(503, error.code, messageFor(error));
    return refusal(500, "internal_error", "The request failed; the log says why.");
  }
}

function lookUp(routes: Routes, path: string): Routes[string] | undefined {
  if (Object.hasOwn(routes, path) && !path.endsWith("/*")) return routes[path];
  const below = Object.keys(routes)
    .filter((key) => key.endsWith("/*") && path.startsWith(key.slice(0, -1)))
    .sort((a, b) => b.length - a.length)[0];
  return below === undefined ? undefined : routes[below];
}

const queryBytes = ({ query }: HttpRequest): number =>
  Object.entries(query).reduce(
    (sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(value ?? ""),
    0,
  );

/** What may be said to a stranger: not where the database is. */
const messageFor = (error: StintError): string =>
  error.code === "schema_missing"
    ? "The database lacks Stint's schema: run `stint migrate`."
    : "The database cannot serve this request now.";
