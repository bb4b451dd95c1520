/** GET /processor: the dashboard. Server-made pages; a script keeps them fresh and sends actions to POST /processor/actions. */
import * as z from "zod/mini";
import { StintError } from "../errors.ts";
import { type HttpAnswer, type HttpRequest, type Routes, refusal } from "../http.ts";
import { CHALLENGE } from "../monitoring.ts";
import { databaseAt, listTasks, readAudit, showTask } from "../operator.ts";
import type { OperatorContext } from "../operator-routes.ts";
import { auditQuerySchema, taskQuerySchema, tasksQuerySchema } from "../operator-schema.ts";
import { ASSETS, asset } from "./assets.ts";
import { type Html, href } from "./html.ts";
import { overview } from "./overview.ts";
import { errorPage, type PlaceId, page, ROOT, type Showing, SIGN_IN, VIEW } from "./page.ts";
import { recurring } from "./recurring.ts";
import { auditLog, taskDetail, taskList } from "./tasks.ts";
import { unknown } from "./unknown.ts";

/** Nothing from elsewhere, nothing inline. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

interface View {
  readonly title: string;
  readonly place: PlaceId;
  readonly body: Html;
  /** The moment of its numbers; default now. */
  readonly at?: string;
}
type Query = Readonly<Record<string, string>>;
type Show = (context: OperatorContext, query: Query, showing: Showing) => Promise<View>;

const VIEWS: Readonly<Record<string, Show>> = {
  [ROOT]: async (context, _query, showing) => {
    const stats = await context.readStats(showing.database);
    return { title: "Overview", place: "overview", body: overview(stats, showing), at: stats.at };
  },
  [`${VIEW}/tasks`]: async (context, query, showing) => {
    const asked = parsed(tasksQuerySchema, { ...query, from: withZone(query.from), to: withZone(query.to) });
    const { cursor, limit, database, ...filter } = asked;
    const found = await listTasks(databaseAt(context.databases, database), filter, { cursor, limit });
    const body = taskList(found, { filter, cursor, limit: query.limit }, showing);
    return { title: "Tasks", place: "tasks", body };
  },
  [`${VIEW}/recurring`]: async (context, _query, showing) => ({
    title: "Recurring schedules",
    place: "recurring",
    body: recurring(await context.listRecurring(), showing),
  }),
  [`${VIEW}/unknown`]: async (context, _query, showing) => {
    // Apart, as each of them is acted upon by itself.
    const places = Array.from({ length: context.databases.length }, (_, place) => place);
    const all = await Promise.all(places.map(context.readStats));
    return { title: "Unknown identifiers", place: "unknown", body: unknown(all, showing), at: all.at(-1)!.at };
  },
  [`${VIEW}/audit`]: async (context, query, showing) => {
    const asked = parsed(auditQuerySchema, query);
    const log = await readAudit(databaseAt(context.databases, asked.database), asked);
    return { title: "Audit log", place: "audit", body: auditLog(log, asked.cursor, showing) };
  },
};

/** What was asked for cannot be shown, and may be told why. */
class ViewError extends Error {
  readonly code: "not_found" | "request_invalid";
  constructor(code: "not_found" | "request_invalid", message: string) {
    super(message);
    this.code = code;
  }
}

export function dashboardRoutes(context: OperatorContext): Routes {
  const route = async (request: HttpRequest): Promise<HttpAnswer> => {
    const path = request.path.replace(/(.)\/$/, "$1");
    const query = Object.fromEntries(
      Object.entries(request.query).filter((pair): pair is [string, string] => pair[1] !== undefined && pair[1] !== ""),
    );
    const self = href(path, query);
    const showing = showingOf(context, request, query);
    try {
      if (path === ROOT && Object.hasOwn(query, SIGN_IN)) return signIn(showing);
      const show = Object.hasOwn(VIEWS, path) ? VIEWS[path] : oneTask(path);
      if (show === undefined) throw new ViewError("not_found", "There is no page at this address.");
      const { title, place, body, at } = await show(context, query, showing);
      return answer(200, page({ title, place, body, self, showing: { ...showing, at: at ?? showing.at } }));
    } catch (error) {
      if (!(error instanceof StintError || error instanceof ViewError)) throw error;
      return answer(STATUS[error.code] ?? 503, errorPage(error.code, textOf(error), self, showing));
    }
  };
  return { [ROOT]: route, [`${VIEW}/*`]: route, [`${ASSETS}/*`]: assetRoute };
}

/**
 * A browser sends a token only where it was asked for one: where reading is open, and where a reader's was given, this asks. At the
 * overview's own path, as a browser sends it by itself to what lies beside and below.
 */
function signIn(showing: Showing): HttpAnswer {
  if (showing.mayAct) return { status: 303, headers: { location: ROOT, "cache-control": "no-store" }, body: "" };
  const text = "Acting needs a token of MONITORING_ADMIN_TOKEN: any user name, the token as password.";
  const refused = answer(401, errorPage("unauthorized", text, ROOT, showing));
  return { ...refused, headers: { ...refused.headers, ...CHALLENGE } };
}

const assetRoute = async ({ path }: HttpRequest): Promise<HttpAnswer> =>
  asset(path) ?? refusal(404, "not_found", "There is no such file: the page may be of an older release.");

function oneTask(path: string): Show | undefined {
  const [, id] = /^\/processor\/view\/tasks\/([1-9]\d{0,18})$/.exec(path) ?? [];
  if (id === undefined) return undefined;
  return async (context, query, showing) => {
    const asked = parsed(taskQuerySchema, query);
    const found = await showTask(databaseAt(context.databases, asked.database), id, { payload: asked.payload === "1" });
    if (found === null)
      throw new ViewError("not_found", `There is no task ${id}: it was deleted, or its runs are past retention.`);
    return { title: `Task ${id}`, place: "tasks", body: taskDetail(found, asked.payload === "1", showing) };
  };
}

function showingOf(context: OperatorContext, request: HttpRequest, query: Query): Showing {
  const given = query.database;
  return {
    at: new Date().toISOString(),
    mayAct: context.mayAct(request),
    actingPossible: context.actingPossible,
    database: given !== undefined && /^\d$/.test(given) ? Number(given) : undefined,
    databases: context.databases.length,
  };
}

/** A browser's datetime-local has neither seconds nor zone: the page says UTC. */
const withZone = (text: string | undefined): string | undefined =>
  text !== undefined && /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$/.test(text) ? `${text}Z` : text;

function parsed<Schema extends z.core.$ZodType>(schema: Schema, query: unknown): z.output<Schema> {
  const result = z.safeParse(schema, query);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new ViewError("request_invalid", `${issue?.path.join(".") || "The query"} does not fit: ${issue?.message}.`);
}

const STATUS: Readonly<Record<string, number>> = { request_invalid: 400, option_invalid: 400, not_found: 404 };

/** What may be shown: not where the database is. */
function textOf(error: StintError | ViewError): string {
  if (Object.hasOwn(STATUS, error.code)) return error.message;
  return error.code === "schema_missing"
    ? "The database lacks Stint's schema: run stint migrate."
    : "The database cannot answer now.";
}

const answer = (status: number, body: string): HttpAnswer => ({
  status,
  headers: {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": POLICY,
  },
  body,
});
