import { context, propagation, type SpanContext, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { afterAll, expect, test } from "vitest";
import * as z from "zod/mini";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { drainTasks } from "../lib/testing.ts";
import { openDatabase } from "./support/database.ts";

const note = defineTask({ identifier: "note", payload: z.object({}), maxAttempts: 1 });

afterAll(() => {
  trace.disable();
  context.disable();
  propagation.disable();
});

test("the attempt runs in a span linked to the one that enqueued; without an SDK nothing is stored", async () => {
  const db = await openDatabase("pg");
  const tasks = createTaskClient({ database: db.database });
  await tasks.enqueue(note, {});
  expect(await db.sql("SELECT trace_parent FROM task")).toEqual([{ trace_parent: null }]);
  await drainTasks({ database: db.database, handlers: [note.handle(() => {})] });

  const exporter = new InMemorySpanExporter();
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());

  let from: SpanContext | undefined;
  await trace.getTracer("api").startActiveSpan("POST /invoices", async (span) => {
    from = span.spanContext();
    await tasks.enqueue(note, {});
    span.end();
  });
  let inside: SpanContext | undefined;
  await drainTasks({
    database: db.database,
    handlers: [
      note.handle(() => {
        inside = trace.getActiveSpan()?.spanContext();
        throw new Error("seen in the span");
      }),
    ],
  });
  const attempt = exporter.getFinishedSpans().find((span) => span.name === "note process");
  expect(attempt?.links.map((link) => link.context.spanId)).toEqual([from?.spanId]);
  expect(attempt?.spanContext().spanId).toBe(inside?.spanId);
  expect(attempt?.status.code).toBe(2);
});
