import { setTimeout as sleep } from "node:timers/promises";
import type { Conversation } from "./conversation.ts";
import { type Point, s } from "./single-calls.ts";

const story = (number: number, name: string, run: (api: Conversation) => Promise<unknown>): Point => ({
  number,
  name,
  run,
});

/** Each call of a story in turn, as it was seen. */
async function inTurn(api: Conversation, works: Array<() => Promise<unknown>>): Promise<unknown[]> {
  const seen: unknown[] = [];
  for (const work of works) seen.push(await api.see(work));
  return seen;
}

/** Those of several calls in turn, or of one whose answer is not compared as it comes. */
export const stories: Point[] = [
  story(3, "one field a value, on the wire", (api) => api.see(() => api.onTheWire(oneOfEach))),
  story(4, "in a transaction with a time zone of its own", async (api) => {
    const transactionId = await api.begin();
    return await inTurn(api, [
      () => api.execute("SELECT set_config('timezone', 'Asia/Kolkata', true)", {}, { transactionId }),
      () => api.execute("SELECT timestamptz '2026-01-02 03:04:05.5Z' AS value", {}, { transactionId }),
      () => api.rollback(transactionId),
    ]);
  }),
  story(5, "a cluster that is not there", (api) =>
    api.see(() => api.execute("SELECT 1", {}, { resourceArn: nobodys(api.arns.resourceArn) })),
  ),
  story(5, "a secret that is not there", (api) =>
    api.see(() => api.execute("SELECT 1", {}, { secretArn: nobodys(api.arns.secretArn) })),
  ),
  story(5, "a request that is not signed", (api) => api.see(() => api.unsigned("SELECT 1"))),
  story(6, "commit, then the id is gone", async (api) => {
    const transactionId = await api.begin();
    return await inTurn(api, [
      () => api.execute("INSERT INTO {s}.item (label) VALUES ('kept')", {}, { transactionId }),
      () => api.commit(transactionId),
      () => api.commit(transactionId),
      () => api.execute("SELECT 1", {}, { transactionId }),
      () => api.execute("SELECT count(*) FROM {s}.item WHERE label = 'kept'"),
    ]);
  }),
  story(6, "a transaction that failed", async (api) => {
    const transactionId = await api.begin();
    return await inTurn(api, [
      () => api.execute("SELECT 1/0", {}, { transactionId }),
      () => api.execute("SELECT 1", {}, { transactionId }),
      () => api.rollback(transactionId),
    ]);
  }),
  story(6, "the commit of one that failed", async (api) => {
    const transactionId = await api.begin();
    return await inTurn(api, [
      () => api.execute("SELECT 1/0", {}, { transactionId }),
      () => api.commit(transactionId),
      () => api.rollback(transactionId),
    ]);
  }),
  story(6, "a deferred constraint at the commit", async (api) => {
    const transactionId = await api.begin();
    return await inTurn(api, [
      () => api.execute("INSERT INTO {s}.item (parent) VALUES (-1)", {}, { transactionId }),
      () => api.commit(transactionId),
    ]);
  }),
  // Where it is not forgotten, AWS's connection is lost until the transaction's time limit.
  ...["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"].map((sql) =>
    story(6, `${sql} as a statement`, async (api) => {
      const transactionId = await api.begin();
      return await inTurn(api, [
        () => api.execute(sql, {}, { transactionId }),
        () => api.execute("SELECT 1", {}, { transactionId }),
        () => api.commit(transactionId),
      ]);
    }),
  ),
  story(6, "an id nobody gave", (api) => api.see(() => api.rollback("bm9ib2R5"))),
  story(10, "a row of 100,000 characters", (api) =>
    api.see(async () => (await api.execute("SELECT repeat('x', 100000)")).records![0]![0]!.stringValue!.length),
  ),
  story(13, "a batch with RETURNING", (api) =>
    api.see(() => api.batch("INSERT INTO {s}.item (label) VALUES (:p) RETURNING id", [{ p: s("x1") }, { p: s("x2") }])),
  ),
  story(13, "a batch that returns over 1 MiB", (api) =>
    api.see(() => api.batch("SELECT repeat(:p, 1000000)", [{ p: s("x") }, { p: s("y") }])),
  ),
  story(13, "a batch whose second set fails", async (api) =>
    inTurn(api, [
      () => api.batch("INSERT INTO {s}.item (label) VALUES (:p)", [{ p: s("y1") }, { p: s("y1") }]),
      () => api.execute("SELECT count(*) FROM {s}.item WHERE label = 'y1'"),
    ]),
  ),
  story(13, "a batch without sets", (api) => api.see(() => api.batch("INSERT INTO {s}.item (label) VALUES ('z')", []))),
  story(14, "two calls at once in one transaction", async (api) => {
    const transactionId = await api.begin();
    const first = api.see(() => api.execute("SELECT pg_sleep(1)::text", {}, { transactionId }));
    await sleep(300);
    const second = await api.see(() => api.execute("SELECT 1", {}, { transactionId }));
    return [await first, second, await api.see(() => api.rollback(transactionId))];
  }),
  {
    number: 15,
    name: "a statement over the time limit",
    slow: true,
    run: async (api) => withoutConnection(await api.see(() => api.execute(sleeping(api)))),
  },
  {
    number: 15,
    name: "the same with continueAfterTimeout",
    slow: true,
    run: async (api) =>
      withoutConnection(await api.see(() => api.execute(sleeping(api), {}, { continueAfterTimeout: true }))),
  },
  {
    number: 15,
    name: "a transaction left alone",
    slow: true,
    run: async (api) => {
      const transactionId = await api.begin();
      await sleep(api.limits.idleMs * 1.2);
      return await api.see(() => api.execute("SELECT 1", {}, { transactionId }));
    },
  },
  story(16, "a setting, a temporary table and a lock of the call before", async (api) =>
    inTurn(api, [
      () => api.execute("SELECT set_config('stint.conformance', 'left', false)"),
      () => api.execute("SELECT NULLIF(current_setting('stint.conformance', true), '')"),
      () => api.execute("CREATE TEMP TABLE stint_conformance (n int)"),
      () => api.execute("SELECT n FROM stint_conformance"),
      () => api.execute("SELECT pg_advisory_lock(20261124)::text"),
      async () => {
        // A session may be made as new after the answer, rather than before it.
        await sleep(300);
        return await api.execute("SELECT pg_try_advisory_lock(20261124)");
      },
      () => api.execute("SELECT current_setting('transaction_isolation'), current_setting('timezone')"),
    ]),
  ),
];

const oneOfEach = `SELECT 1::int2, 9007199254740993::int8, 1.5::float8, 'NaN'::float8, true, NULL::int, 'a'::text,
  1.50::numeric, '{"b": 1}'::jsonb, '9b0f3c5e-0000-4000-8000-000000000000'::uuid, '\\x0001ff'::bytea, date '2026-01-02',
  ARRAY[1,2], ARRAY[1,NULL], ARRAY['a'], timestamptz '2026-01-02 03:04:05.5+02'`;

/** Of the same account and region. */
const nobodys = (arn: string): string => arn.replace(/[^:]+$/, "stint-conformance-nowhere");

const sleeping = ({ limits }: Conversation): string => `SELECT pg_sleep(${(limits.statementMs * 1.2) / 1000})::text`;

const withoutConnection = (seen: unknown): unknown => {
  const { dbConnectionId: _, ...rest } = seen as Record<string, unknown>;
  return rest;
};
