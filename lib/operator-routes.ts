/** Everything under /processor: one function serves it, behind one guard. infra/operator-api.md describes it. */
import * as z from "zod/mini";
import type { MonitoringConfig } from "./config.ts";
import type { Database } from "./database/port.ts";
import { answer, type HttpAnswer, type HttpRequest, json, type Route, type Routes, refusal } from "./http.ts";
import type { Log } from "./log.ts";
import { METRICS_CONTENT_TYPE, readMetrics } from "./metrics.ts";
import { admitActing, mayAct, readWaiting, refuseReading } from "./monitoring.ts";
import { databaseAt, listTasks, performAction, readAudit, showTask } from "./operator.ts";
import { actionSchema, auditQuerySchema, taskQuerySchema, tasksQuerySchema } from "./operator-schema.ts";
import { listRecurring, readStats, type StatsSettings } from "./stats.ts";
import type { RecurringStats, Stats } from "./stats-schema.ts";

export interface OperatorOptions {
  readonly databases: readonly Database[];
  readonly monitoring: MonitoringConfig;
  readonly settings: StatsSettings;
  /** The dashboard: GET pages and assets under /processor. */
  readonly pages?: ((context: OperatorContext) => Routes) | undefined;
}

/** What pages are made of. Whoever calls has been admitted already. */
export interface OperatorContext {
  readonly databases: readonly Database[];
  /** The request carries an admin token. */
  mayAct(request: HttpRequest): boolean;
  /** There is an admin token that a request might carry. */
  readonly actingPossible: boolean;
  /** Of all databases, or of the one at this place. */
  readStats(place?: number): Promise<Stats>;
  listRecurring(): Promise<RecurringStats[]>;
  /** Those of operator.ts; the database is a place in TASK_PROCESSOR_DATABASES, default the last. */
  listTasks(...args: Tail<Parameters<typeof listTasks>>): ReturnType<typeof listTasks>;
  showTask(...args: Tail<Parameters<typeof showTask>>): ReturnType<typeof showTask>;
  readAudit(...args: Tail<Parameters<typeof readAudit>>): ReturnType<typeof readAudit>;
}
type Tail<T extends readonly unknown[]> = T extends readonly [unknown, ...infer R] ? R : never;

export function operatorRoutes({ databases, monitoring, settings, pages }: OperatorOptions): Routes {
  const at = (place?: number): Database => databaseAt(databases, place);
  const readStatsAt = async (place: number): Promise<Stats> => {
    const stats = await readStats([at(place)], settings);
    const placed = <Row extends object>(row: Row) => ({ ...row, database: place });
    return { ...stats, slots: stats.slots.map(placed), recurring: stats.recurring.map(placed) };
  };
  const context: OperatorContext = {
    databases,
    mayAct: (request) => mayAct(request, monitoring),
    actingPossible: monitoring.adminTokens.length > 0,
    readStats: (place) => (place === undefined ? readStats(databases, settings) : readStatsAt(place)),
    listRecurring: () => listRecurring(databases),
    listTasks: (...args) => listTasks(at(), ...args),
    showTask: (...args) => showTask(at(), ...args),
    readAudit: (...args) => readAudit(at(), ...args),
  };
  const routes: Routes = {
    "/processor/*": async () => notFound(),
    "/processor": async () => notFound(),
    ...pages?.(context),
    "/processor/monitoring": async () => json(200, await readWaiting(databases)),
    "/processor/stats": async () => json(200, await context.readStats()),
    "/processor/metrics": async () => ({
      status: 200,
      headers: { "content-type": METRICS_CONTENT_TYPE },
      body: await readMetrics(databases, settings),
    }),
    "/processor/recurring": async () => json(200, { recurring: await context.listRecurring() }),
    "/processor/tasks": reading(tasksQuerySchema, async ({ cursor, limit, database, ...filter }) =>
      json(200, await listTasks(at(database), filter, { cursor, limit })),
    ),
    "/processor/tasks/*": reading(taskQuerySchema, async ({ payload, database }, { path }) => {
      const id = /^\/processor\/tasks\/([1-9]\d{0,17})$/.exec(path)?.[1];
      const found = id === undefined ? null : await showTask(at(database), id, { payload: payload === "1" });
      return found === null ? refusal(404, "not_found", "There is no such task.") : json(200, found);
    }),
    "/processor/audit": reading(auditQuerySchema, async ({ cursor, limit, database }) =>
      json(200, await readAudit(at(database), { cursor, limit })),
    ),
    "/processor/actions": { POST: actions(databases, monitoring) },
  };
  // Whatever pages bring: no POST without an admin's token.
  return Object.fromEntries(
    Object.entries(routes).map(([path, route]) => {
      const methods = typeof route === "function" ? { GET: route } : route;
      return [path, methods.POST ? { ...methods, POST: guard(methods.POST, monitoring) } : methods];
    }),
  );
}

/** Answers whatever comes in under /processor. Who may not read hears of nothing else, of no route and no limit. */
export async function answerOperator(
  routes: Routes,
  monitoring: MonitoringConfig,
  request: HttpRequest,
  log: Log,
): Promise<HttpAnswer> {
  return strict(refuseReading(request, monitoring) ?? (await answer(routes, request, log)));
}

const notFound = (): HttpAnswer => refusal(404, "not_found", "There is nothing at this path.");

const guard =
  (route: Route, monitoring: MonitoringConfig): Route =>
  async (request) => {
    const acting = admitActing(request, monitoring);
    return "refused" in acting ? acting.refused : await route(request);
  };

/** Headers of every answer under /processor; one of its own wins. */
const strict = (answered: HttpAnswer): HttpAnswer => ({
  ...answered,
  headers: {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    vary: "authorization",
    ...answered.headers,
  },
});

function reading<S extends z.ZodMiniType>(
  schema: S,
  read: (query: z.output<S>, request: HttpRequest) => Promise<HttpAnswer>,
): Route {
  return async (request) => {
    const given = Object.entries(request.query).filter(([, value]) => value !== undefined && value !== "");
    const parsed = z.safeParse(schema, Object.fromEntries(given));
    return parsed.success ? await read(parsed.data, request) : invalid("query", parsed.error.issues);
  };
}

function actions(databases: readonly Database[], monitoring: MonitoringConfig): Route {
  return async (request) => {
    const acting = admitActing(request, monitoring);
    if ("refused" in acting) return acting.refused;
    let body: unknown;
    try {
      body = JSON.parse(request.body ?? "");
    } catch {
      return refusal(400, "request_invalid", "The body is not JSON.");
    }
    const parsed = z.safeParse(actionSchema, body);
    if (!parsed.success) return invalid("body", parsed.error.issues);
    return json(200, await performAction(databases, parsed.data, acting.who));
  };
}

/** Names the member, never what it was. */
function invalid(what: string, issues: readonly { path: PropertyKey[]; message: string }[]): HttpAnswer {
  const first = issues[0]!;
  const member = first.path.length === 0 ? what : `${what}, ${first.path.map(String).join(".").slice(0, 100)}`;
  return refusal(400, "request_invalid", `${member}: ${first.message.slice(0, 300)}`);
}
