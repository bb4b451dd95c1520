/** W3C trace context through @opentelemetry/api only: without an SDK it costs nothing and changes nothing. */
import {
  context,
  isSpanContextValid,
  ProxyTracerProvider,
  propagation,
  ROOT_CONTEXT,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import type { ClaimedTask } from "./messages.ts";

/** The active span as a traceparent, to be stored with a task; null without one. */
export function activeTraceParent(): string | null {
  if (trace.getSpanContext(context.active()) === undefined) return null;
  const carrier: { traceparent?: string } = {};
  propagation.inject(context.active(), carrier);
  return carrier.traceparent ?? null;
}

/** It stands for whichever SDK is registered, also later. */
const tracer = trace.getTracer("stint");

/** Whether an SDK is registered, by now: without one a span is work for nobody. */
export function isTraced(): boolean {
  const provider = trace.getTracerProvider();
  return !(provider instanceof ProxyTracerProvider) || provider.getDelegateTracer("stint") !== undefined;
}

/** Runs an attempt in a span of its own, linked to the one that enqueued the task. */
export function inSpan<T>(task: ClaimedTask, work: () => Promise<T>): Promise<T> {
  const from = spanOf(task.traceParent);
  return tracer.startActiveSpan(
    `${task.identifier} process`,
    {
      kind: SpanKind.CONSUMER,
      links: from === undefined ? [] : [{ context: from }],
      attributes: { "messaging.message.id": task.id, "stint.task.attempt": task.attempt },
    },
    async (span) => {
      try {
        return await work();
      } catch (error) {
        span.recordException(error instanceof Error ? error : String(error));
        span.setStatus({ code: SpanStatusCode.ERROR });
        throw error;
      } finally {
        span.end();
      }
    },
  );
}

function spanOf(traceParent: string | null): SpanContext | undefined {
  if (traceParent === null) return undefined;
  const found = trace.getSpanContext(propagation.extract(ROOT_CONTEXT, { traceparent: traceParent }));
  return found !== undefined && isSpanContextValid(found) ? found : undefined;
}

/** The trace that a W3C traceparent belongs to, as a field of a log line; none where there is none. */
export function traceField(traceParent: string | null): { traceId?: string } {
  const traceId = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(traceParent ?? "")?.[1];
  return traceId === undefined ? {} : { traceId };
}
