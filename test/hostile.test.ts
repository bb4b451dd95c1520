import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { createTaskClient, defineTask, TaskBackoffError } from "../lib/index.ts";
import { drainTasks } from "../lib/testing.ts";
import { ADAPTERS, openDatabase, reset } from "./support/database.ts";

/** Refusals that are allowed for input that cannot be stored; anything else is a defect. */
const REFUSALS = new Set([
  "payload_not_json",
  "payload_too_large",
  "payload_invalid",
  "option_invalid",
  "definition_invalid",
]);

const awkwardText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: "grapheme" }),
  fc.constantFrom(
    "\0",
    "\ud800",
    "a\udc00b",
    "\\u0000",
    "\\\\u0000",
    "'; DROP TABLE task; --",
    '"',
    ":name ::text $1 ?",
    "__proto__",
    "constructor",
    "\u{1F4A9}",
    "\u2028",
    "\ufeff",
    "1e400",
  ),
);

const awkwardJson = fc.oneof(
  fc.jsonValue({ stringUnit: "binary" }),
  fc.dictionary(awkwardText, awkwardText),
  fc.double({ noNaN: false }),
  fc.constantFrom(null, -0, 1e308, 5e-324, Number.MAX_SAFE_INTEGER, 2 ** 63),
);

/** JSON as it means to be: what a round trip through text gives. */
const meant = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

describe.each(ADAPTERS)("hostile input over %s", async (adapter) => {
  const db = await openDatabase(adapter);
  const tasks = createTaskClient({ database: db.database });
  beforeEach(() => reset(db));

  test("a payload comes to its handler exactly, or is refused with a code and not stored", async () => {
    const any = defineTask({ identifier: "any", payload: z.any() });
    const seen: unknown[] = [];
    const handler = any.handle((payload) => void seen.push(payload));
    await fc.assert(
      fc.asyncProperty(fc.array(awkwardJson, { minLength: 1, maxLength: 8 }), async (values) => {
        const expected: unknown[] = [];
        for (const value of values) {
          try {
            await tasks.enqueue(any, value);
            expected.push(meant(value));
          } catch (error) {
            expect(REFUSALS).toContain((error as { code: string }).code);
          }
        }
        seen.length = 0;
        await drainTasks({ database: db.database, handlers: [handler] });
        const text = (list: unknown[]) => list.map((value) => canonical(value)).sort();
        expect(text(seen)).toEqual(text(expected));
      }),
      { numRuns: 60 },
    );
  });

  test("identifiers and keys are stored exactly, or refused with a code", async () => {
    await fc.assert(
      fc.asyncProperty(awkwardText, awkwardText, async (identifier, key) => {
        try {
          const task = defineTask({ identifier, payload: z.object({}) });
          const answer = await tasks.enqueue(task, {}, { key, serialKey: key });
          expect(
            await db.sql("SELECT identifier, key, serial_key FROM task WHERE id = $1", [
              "id" in answer ? answer.id : 0,
            ]),
          ).toEqual([{ identifier, key, serial_key: key }]);
        } catch (error) {
          expect(REFUSALS).toContain((error as { code: string }).code);
        }
      }),
      { numRuns: 100 },
    );
  });

  test.each([
    100, 10_000, 100_000,
  ])("%i levels of nesting are stored or refused, and the next one is served", async (levels) => {
    const deep = defineTask({ identifier: "deep", payload: z.any() });
    const nested = JSON.parse(`${"[".repeat(Math.min(levels, 5000))}${"]".repeat(Math.min(levels, 5000))}`);
    let payload = nested;
    for (let level = 5000; level < levels; level += 1) payload = [payload];
    const outcome = await tasks.enqueue(deep, payload).then(
      (answer) => answer.status,
      (error) => error.code,
    );
    expect(["enqueued", ...REFUSALS]).toContain(outcome);
    expect(await tasks.enqueue(deep, [])).toMatchObject({ status: "enqueued" });
  });

  test("numbers that plain SQL stores and JavaScript lacks fail their task and no other", async () => {
    await db.sql(
      "SELECT enqueue_task('number', '{\"n\": 1e400}', max_attempts => 1), enqueue_task('number', '{\"n\": 2}')",
    );
    const number = defineTask({ identifier: "number", payload: z.object({ n: z.number() }) });
    const seen: number[] = [];
    await drainTasks({ database: db.database, handlers: [number.handle(({ n }) => void seen.push(n))] });
    expect(seen).toEqual([2]);
    expect(await db.sql("SELECT outcome FROM failed_task")).toEqual([{ outcome: "FAILED" }]);
  });

  test("whatever a handler throws is kept as text that can be stored", async () => {
    const thrower = defineTask({ identifier: "thrower", payload: z.object({ n: z.number() }), maxAttempts: 1 });
    const hostile: unknown[] = [
      "a\0b\ud800",
      null,
      undefined,
      Symbol("s"),
      Object.create(null),
      new Error("x".repeat(100_000)),
      { toString: () => 1 },
      new Error("\0"),
    ];
    await tasks.enqueueMany(
      thrower,
      hostile.map((_, n) => ({ n })),
    );
    await drainTasks({
      database: db.database,
      handlers: [
        thrower.handle(({ n }) => {
          throw hostile[n];
        }),
      ],
    });
    const runs = await db.sql<{ error_details: string }>("SELECT error_details FROM task_run");
    expect(runs).toHaveLength(hostile.length);
    for (const { error_details } of runs) expect(Buffer.byteLength(error_details)).toBeLessThanOrEqual(8192);
  });

  test("an error that cannot be looked at fails its task and no other", async () => {
    const hostile: (() => unknown)[] = [
      () => Object.assign(new Error("no"), { stack: { frames: [] } }),
      () => Object.assign(new Error("no"), { stack: 7 }),
      () => Object.assign(new Error("no"), { stack: undefined, message: Symbol("m") }),
      () => Object.defineProperties(new Error("no"), { stack: throwing, message: throwing, name: throwing }),
      () => Object.defineProperty(new Error("no"), "code", throwing),
      () => Object.defineProperty(new TaskBackoffError(), "delayUntil", throwing),
      () => Object.assign(new TaskBackoffError(), { delayUntil: { getTime: () => 0 } }),
      () => new TaskBackoffError({ delayUntil: new Date(Number.NaN) }),
      () => new TaskBackoffError({ delayUntil: new Unreadable() }),
      () => new Proxy(new Error("no"), { getPrototypeOf: throwing.get, get: throwing.get }),
      () => Proxy.revocable({}, {}),
      () => revoked(),
    ];
    await runWith(hostile, (make) => {
      throw make();
    });
    const runs = await db.sql<{ error: string }>(
      "SELECT error_details AS error FROM task_run WHERE result = 'FAILURE'",
    );
    expect(runs).toHaveLength(hostile.length);
    for (const { error } of runs) expect(error).not.toBe("");
  });

  test("an error whose stack a library has made something else than text is kept as its name and message", async () => {
    await runWith([() => new RangeError("too far")], (make) => {
      const prepare = Error.prepareStackTrace;
      Error.prepareStackTrace = (_, frames) => frames;
      try {
        const error = make() as Error;
        expect(error.stack).toBeInstanceOf(Array);
        throw error;
      } finally {
        Error.prepareStackTrace = prepare as NonNullable<typeof prepare>;
      }
    });
    expect(await db.sql("SELECT error_details AS error FROM task_run WHERE result = 'FAILURE'")).toEqual([
      { error: "RangeError: too far" },
    ]);
  });

  test("what a handler returns and cannot be looked at is not kept; one that cannot even be waited for fails", async () => {
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    const unread: (() => unknown)[] = [
      () => ({ toJSON: throwing.get }),
      () => Object.defineProperty({}, "secret", { ...throwing, enumerable: true }),
      () => circular,
      () => 10n,
    ];
    const thrown: (() => unknown)[] = [
      () => revoked(),
      () => new Proxy({}, throwing),
      () => Object.defineProperty(Promise.resolve(1), "constructor", throwing),
    ];
    await runWith([...unread, ...thrown], (make) => make());
    expect(
      await db.sql(
        "SELECT result, result_value AS value, count(*)::int AS n FROM task_run WHERE identifier = 'one' GROUP BY 1, 2 ORDER BY 1",
      ),
    ).toEqual([
      { result: "FAILURE", value: null, n: thrown.length },
      { result: "SUCCESS", value: null, n: unread.length },
    ]);
  });

  /** One task for each, and as many beside them that succeed, whatever these do. */
  async function runWith(cases: readonly (() => unknown)[], run: (make: () => unknown) => unknown): Promise<void> {
    const one = defineTask({ identifier: "one", payload: z.object({ n: z.number() }), maxAttempts: 1 });
    const mate = defineTask({ identifier: "mate", payload: z.object({}) });
    await tasks.enqueueMany(
      one,
      cases.map((_, n) => ({ n })),
    );
    await tasks.enqueueMany(
      mate,
      cases.map(() => ({})),
    );
    await drainTasks({
      database: db.database,
      handlers: [one.handle(({ n }) => run(cases[n]!)), mate.handle(() => {})],
    });
    expect(await db.sql("SELECT 1 FROM task")).toEqual([]);
    expect(await db.sql("SELECT 1 FROM task_run WHERE identifier = 'mate' AND result = 'SUCCESS'")).toHaveLength(
      cases.length,
    );
  }
});

const throwing = {
  get(): never {
    throw new Error("a getter that throws");
  },
};

class Unreadable extends Date {
  override getTime(): never {
    throw new Error("no time");
  }
}

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

/** Key order is jsonb's own. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
