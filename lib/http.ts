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
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export type Route = (request: HttpRequest) => Promise<HttpAnswer>;
/** By path; each answers GET and HEAD. */
export type Routes = Readonly<Record<string, Route>>;

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
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (route === undefined) return refusal(404, "not_found", "There is nothing at this path.");
  if (request.method !== "GET" && request.method !== "HEAD") {
    const refused = refusal(405, "method_not_allowed", "This path answers GET and HEAD.");
    return { ...refused, headers: { ...refused.headers, allow: "GET, HEAD" } };
  }
  try {
    const answered = await route(request);
    return request.method === "HEAD" ? { ...answered, body: "" } : answered;
  } catch (error) {
    log.error("a request failed", { path, error: String(error) });
    if (error instanceof StintError) return refusal(503, error.code, messageFor(error));
    return refusal(500, "internal_error", "The request failed; the log says why.");
  }
}

/** What may be said to a stranger: not where the database is. */
const messageFor = (error: StintError): string =>
  error.code === "schema_missing"
    ? "The database lacks Stint's schema: run `stint migrate`."
    : "The database cannot serve this request now.";
