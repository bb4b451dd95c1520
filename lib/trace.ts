/** W3C trace context through @opentelemetry/api only: it is loaded once an SDK has registered with it, and without one costs and changes nothing. */
import type { SpanContext } from "@opentelemetry/api";
import type { ClaimedTask } from "./messages.ts";

/** Where what is registered lies for all copies of the package, so long as its major version is 1. */
const REGISTERED = Symbol.for("opentelemetry.js.api.1");

type Registered = Partial<Record<"trace" | "propagation", unknown>>;
const registered = (): Registered => (globalThis as { [REGISTERED]?: Registered })[REGISTERED] ?? {};

type Api = typeof import("@opentelemetry/api");
let loading: Promise<Api> | undefined;
const load = (): Promise<Api> => {
  loading ??= import("@opentelemetry/api");
  return loading;
};

/** Whether there may be an active span to tell of, by now. */
export const isPropagated = (): boolean => registered().propagation !== undefined;

/** The active span as a traceparent, to be stored with a task; null without one. */
export async function activeTraceParent(): Promise<string | null> {
  const { context, propagation, trace } = await load();
  if (trace.getSpanContext(context.active()) === undefined) return null;
  const carrier: { traceparent?: string } = {};
  propagation.inject(context.active(), carrier);
  return carrier.traceparent ?? null;
}

/** Whether an SDK is registered, by now: without one a span is work for nobody. */
export const isTraced = (): boolean => registered().trace !== undefined;

/** Runs an attempt in a span of its own, linked to the one that enqueued the task. */
export async function inSpan<T>(task: ClaimedTask, work: () => Promise<T>): Promise<T> {
  const api = await load();
  const from = spanOf(task.traceParent, api);
  return await api.trace.getTracer("stint").startActiveSpan(
    `${task.identifier} process`,
    {
      kind: api.SpanKind.CONSUMER,
      links: from === undefined ? [] : [{ context: from }],
      attributes: { "messaging.message.id": task.id, "stint.task.attempt": task.attempt },
    },
    async (span) => {
      try {
        return await work();
      } catch (error) {
        span.recordException(error instanceof Error ? error : String(error));
        span.setStatus({ code: api.SpanStatusCode.ERROR });
        throw error;
      } finally {
        span.end();
      }
    },
  );
}

function spanOf(
  traceParent: string | null,
  { isSpanContextValid, propagation, ROOT_CONTEXT, trace }: Api,
): SpanContext | undefined {
  if (traceParent === null) return undefined;
  const found = trace.getSpanContext(propagation.extract(ROOT_CONTEXT, { traceparent: traceParent }));
  return found !== undefined && isSpanContextValid(found) ? found : undefined;
}

/** The trace that a W3C traceparent belongs to, as a field of a log line; none where there is none. */
export function traceField(traceParent: string | null): { traceId?: string } {
  const traceId = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(traceParent ?? "")?.[1];
  return traceId === undefined ? {} : { traceId };
}
