/** Who may read and who may act under /processor, and what waits. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { MonitoringConfig, NamedToken } from "./config.ts";
import type { Database } from "./database/port.ts";
import { type HttpAnswer, type HttpRequest, json, type Route, refusal } from "./http.ts";
import { countWaiting } from "./sql/tasks.ts";

/** Tasks due, unfinished and held by nobody, over all databases. */
export async function readWaiting(databases: readonly Database[]): Promise<{ waiting: number }> {
  const counts = await Promise.all(databases.map((database) => database.query(countWaiting, {})));
  return { waiting: counts.reduce((sum, rows) => sum + Number(rows[0]?.waiting ?? 0), 0) };
}

/** `GET /processor/monitoring`: `{"waiting": 1}`, exactly that. */
export const monitoringRoute =
  (databases: readonly Database[], config: MonitoringConfig): Route =>
  async (request) =>
    refuseReading(request, config) ?? json(200, await readWaiting(databases));

/** Undefined when the request may read: with a token (Bearer, or Basic as a browser sends it); without any set, from this machine or where it is public. */
export function refuseReading(request: HttpRequest, config: MonitoringConfig): HttpAnswer | undefined {
  const tokens = [...config.readTokens, ...config.adminTokens];
  if (config.public) return undefined;
  if (tokens.length === 0) {
    return request.loopback
      ? undefined
      : refusal(503, "monitoring_token_missing", "Set MONITORING_TOKEN, or MONITORING_PUBLIC=true, to read this.");
  }
  return matching(tokens, presented(request.headers.authorization)) === undefined ? unauthorized() : undefined;
}

/**
 * Whose admin token the request carries, or why it may not act. Always a token, wherever it comes from; and as a browser adds Basic
 * credentials by itself, nothing that another site could have made it send.
 */
export function admitActing(
  request: HttpRequest,
  config: MonitoringConfig,
): { readonly who: string } | { readonly refused: HttpAnswer } {
  const refused = refuseCrossSite(request);
  if (refused !== undefined) return { refused };
  const given = presented(request.headers.authorization);
  const admin = matching(config.adminTokens, given);
  if (admin !== undefined) return { who: admin.name };
  if (config.adminTokens.length === 0)
    return { refused: refusal(403, "admin_token_missing", "Set MONITORING_ADMIN_TOKEN to act.") };
  if (matching(config.readTokens, given) !== undefined)
    return { refused: refusal(403, "admin_token_needed", "This token reads; acting needs an admin token.") };
  return { refused: unauthorized() };
}

export const mayAct = (request: HttpRequest, config: MonitoringConfig): boolean =>
  matching(config.adminTokens, presented(request.headers.authorization)) !== undefined;

function refuseCrossSite({ headers }: HttpRequest): HttpAnswer | undefined {
  const type = (headers["content-type"] ?? "").split(";")[0]!.trim().toLowerCase();
  if (type !== "application/json")
    return refusal(415, "media_type_unsupported", "The body is JSON, with Content-Type application/json.");
  const site = headers["sec-fetch-site"];
  const crossSite = refusal(403, "cross_site", "Another site may not send this.");
  if (site !== undefined && site !== "same-origin" && site !== "none") return crossSite;
  if (headers.origin === undefined) return undefined;
  const origin = URL.canParse(headers.origin) ? new URL(headers.origin) : undefined;
  return origin !== undefined &&
    /^https?:$/.test(origin.protocol) &&
    origin.host === hostOf(headers.host, origin.protocol)
    ? undefined
    : crossSite;
}

/** Without the port that goes without saying. */
const hostOf = (host: string | undefined, protocol: string): string | undefined =>
  host !== undefined && URL.canParse(`${protocol}//${host}`) ? new URL(`${protocol}//${host}`).host : undefined;

/** Basic alone: Chromium takes a line of two challenges for none, and would never ask. */
export const CHALLENGE = { "www-authenticate": 'Basic realm="Stint", charset="UTF-8"' };

function unauthorized(): HttpAnswer {
  const refused = refusal(401, "unauthorized", "A monitoring token is needed.");
  return { ...refused, headers: { ...refused.headers, ...CHALLENGE } };
}

function presented(authorization: string | undefined): string | undefined {
  const [, scheme = "", value = ""] = /^(\w+) +(\S+)\s*$/.exec(authorization ?? "") ?? [];
  if (scheme.toLowerCase() === "bearer") return value;
  if (scheme.toLowerCase() !== "basic") return undefined;
  const pair = Buffer.from(value, "base64").toString("utf8");
  return pair.slice(pair.indexOf(":") + 1);
}

/** Compares with every token, in constant time. */
function matching(tokens: readonly NamedToken[], given: string | undefined): NamedToken | undefined {
  if (given === undefined) return undefined;
  let found: NamedToken | undefined;
  for (const one of tokens) if (timingSafeEqual(digest(one.token), digest(given))) found = one;
  return found;
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
