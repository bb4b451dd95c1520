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
  if (matching(tokens, presented(request.headers.authorization)) !== undefined) return undefined;
  const refused = refusal(401, "unauthorized", "A monitoring token is needed.");
  return {
    ...refused,
    headers: { ...refused.headers, "www-authenticate": 'Bearer, Basic realm="Stint", charset="UTF-8"' },
  };
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
