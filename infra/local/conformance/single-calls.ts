import type { Field } from "@aws-sdk/client-rds-data";
import type { Conversation, More, Values } from "./conversation.ts";

/** One observation. What it shows is compared, not judged: both sides may well refuse. */
export interface Point {
  /** Of the checklist in README.md of the stand-in. */
  readonly number: number;
  readonly name: string;
  /** Waits for AWS's time limits. */
  readonly slow?: true;
  run(api: Conversation): Promise<unknown>;
}

export const s = (stringValue: string): Field => ({ stringValue });
const n = (longValue: number): Field => ({ longValue });
const none: Field = { isNull: true };
const id = "9b0f3c5e-0000-4000-8000-000000000000";

/** Made in the schema of the run, before the points. */
export const fixtures = [
  "CREATE SCHEMA {s}",
  "CREATE TYPE {s}.mood AS ENUM ('sad', 'happy')",
  "CREATE DOMAIN {s}.email AS text CHECK (VALUE LIKE '%@%')",
  `CREATE TABLE {s}.item (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label varchar(20) UNIQUE, amount numeric(10,2), at timestamptz,
    day date, mood {s}.mood, doc jsonb, uid uuid, wait interval, parent int REFERENCES {s}.item DEFERRABLE INITIALLY DEFERRED)`,
];

type Call = [name: string, sql: string, values?: Values, more?: More];

const calls = (number: number, list: Call[]): Point[] =>
  list.map(([name, sql, values, more]) => ({
    number,
    name,
    run: (api) => api.see(() => api.execute(sql, values, more)),
  }));

const expressions = (number: number, list: string[]): Point[] =>
  calls(
    number,
    list.map((expression) => [expression, `SELECT ${expression} AS value`]),
  );

/** Those of a single call. */
export const singleCalls: Point[] = [
  ...calls(1, [
    ["uuid = text", "SELECT 1 FROM {s}.item WHERE uid = :p", { p: s(id) }],
    ["uuid = text with a hint", "SELECT 1 FROM {s}.item WHERE uid = :p", { p: [s(id), "UUID"] }],
    ["date = text", "SELECT 1 FROM {s}.item WHERE day = :p", { p: s("2026-01-02") }],
    ["jsonb column from text", "INSERT INTO {s}.item (doc) VALUES (:p)", { p: s("{}") }],
    ["timestamptz column from text", "INSERT INTO {s}.item (at) VALUES (:p)", { p: s("2026-01-02") }],
    ["enum column from text", "INSERT INTO {s}.item (mood) VALUES (:p)", { p: s("happy") }],
    ["numeric column from text", "INSERT INTO {s}.item (amount) VALUES (:p)", { p: s("1.50") }],
    ["interval column from text", "INSERT INTO {s}.item (wait) VALUES (:p)", { p: s("1 day") }],
    ["null alone", "SELECT 1 WHERE :p IS NULL", { p: none }],
    ["null with a hint", "SELECT 1 WHERE :p IS NULL", { p: [none, "UUID"] }],
    ["null into a jsonb column", "INSERT INTO {s}.item (doc) VALUES (:p)", { p: none }],
    [
      "declared types",
      "SELECT pg_typeof(:t)::text, pg_typeof(:l)::text, pg_typeof(:d)::text, pg_typeof(:b)::text, pg_typeof(:x)::text",
      {
        t: s("a"),
        l: n(1),
        d: { doubleValue: 1 },
        b: { booleanValue: true },
        x: { blobValue: new Uint8Array([1]) },
      },
    ],
    [
      "declared types of hints",
      "SELECT pg_typeof(:u)::text, pg_typeof(:n)::text, pg_typeof(:d)::text, pg_typeof(:t)::text, pg_typeof(:ts)::text, pg_typeof(:j)::text",
      {
        u: [s(id), "UUID"],
        n: [s("1.5"), "DECIMAL"],
        d: [s("2026-01-02"), "DATE"],
        t: [s("03:04:05"), "TIME"],
        ts: [s("2026-01-02 03:04:05"), "TIMESTAMP"],
        j: [s("{}"), "JSON"],
      },
    ],
  ]),
  ...calls(2, [
    ["substr", "SELECT substr('abc', :n)", { n: n(1) }],
    ["repeat", "SELECT repeat('abc', :n)", { n: n(1) }],
    ["date + long", "SELECT date '2026-01-01' + :n", { n: n(1) }],
    ["jsonb -> long", "SELECT '[1,2]'::jsonb -> :n", { n: n(1) }],
    ["varchar = long", "SELECT 1 FROM {s}.item WHERE label = :n", { n: n(1) }],
    ["LIMIT and arithmetic", "SELECT (:n * interval '1 second')::text LIMIT :n", { n: n(1) }],
  ]),
  ...expressions(3, [
    "1::int2",
    "1::int8",
    "true",
    "NULL::int",
    "'a'::text",
    "'ab'::char(3)",
    "1.5::float8",
    "'-Infinity'::float8",
    "'{\"b\":1}'::json",
    "date '2026-01-02'",
    "ARRAY[true]",
    "ARRAY[1.5::float8]",
    "ARRAY['happy']::{s}.mood[]",
    "1.5::float4",
    "1.50::numeric",
    "'NaN'::float8",
    "'{\"b\": 1}'::jsonb",
    `'${id}'::uuid`,
    "'happy'::{s}.mood",
    "'a@b'::{s}.email",
    "interval '1 day'",
    "'\\x0001ff'::bytea",
    "ARRAY[1,2]",
    "ARRAY['a,b','c\"d']",
    "ARRAY[1.50::numeric]",
    "ARRAY[1,NULL]",
    "'{}'::int[]",
    "'[2:3]={4,5}'::int[]",
    "ARRAY['\\x01'::bytea]",
  ]),
  ...calls(3, [
    [
      "resultSetOptions",
      "SELECT 1.5::numeric, 2::numeric, 3::int8",
      {},
      { resultSetOptions: { decimalReturnType: "DOUBLE_OR_LONG", longReturnType: "STRING" } },
    ],
  ]),
  ...expressions(4, [
    "timestamptz '2026-01-02 03:04:05+02'",
    "timestamptz '2026-01-02 00:30:00+05:30'",
    "timestamptz '2026-01-02 03:04:05Z'",
    "timestamptz '2026-01-02 03:04:05.1Z'",
    "timestamptz '2026-01-02 03:04:05.1234Z'",
    "timestamp '2026-01-02 03:04:05'",
    "timestamp '2026-01-02 03:04:05.123456'",
    "ARRAY[timestamptz '2026-01-02 03:04:05.5+02']",
    "timestamptz 'infinity'",
    "time '03:04:05.5'",
    "timetz '03:04:05+02'",
  ]),
  ...calls(5, [
    ["a relation that is not there", "SELECT * FROM {s}.nowhere"],
    ["a syntax error", "SELEC"],
    ["a division by zero", "SELECT 1/0"],
    ["a unique violation", "INSERT INTO {s}.item (label) SELECT 'twice' FROM generate_series(1, 2)"],
    ["a raised error", "DO $$ BEGIN RAISE EXCEPTION 'SQLState: 00000' USING ERRCODE = 'ST001'; END $$"],
    ["a database that is not there", "SELECT 1", {}, { database: "stint_conformance_nowhere" }],
    ["numberOfRecordsUpdated of an INSERT", "INSERT INTO {s}.item (label) VALUES ('a'), ('b')"],
  ]),
  ...calls(7, [
    ["two statements", "SELECT 1; SELECT 2"],
    ["a trailing semicolon", "SELECT 1;"],
    ["a semicolon in a literal", "SELECT ';'"],
    ["a comment after the semicolon", "SELECT 1; -- done"],
    ["nothing at all", ""],
  ]),
  ...calls(8, [
    ["$1 in the text", "SELECT $1::text", { p: s("a") }],
    ["$1 beside a name", "SELECT $1::text, :p", { p: s("a") }],
    ["$1 in the body of a function", "CREATE FUNCTION {s}.twice(int) RETURNS int RETURN $1 * 2"],
    ["a name nobody gave", "SELECT :p", {}],
    ["a parameter nobody asked for", "SELECT 1", { p: s("a") }],
    ["a name twice", "SELECT :p || :p", { p: s("a") }],
    ["a cast behind it", "SELECT :p::uuid", { p: s(id) }],
    ["in a literal", "SELECT ':p'", { p: s("a") }],
    ["in a comment", "SELECT 1 /* :p */", { p: s("a") }],
    ["in dollar quotes", "SELECT $$:p$$", { p: s("a") }],
    ["a slice", "SELECT ('{1,2,3}'::int[])[1:2]", {}],
  ]),
  ...calls(9, [
    ["an array parameter", "SELECT :p", { p: { arrayValue: { longValues: [1] } } }],
    ["one that nothing asks for", "SELECT 1", { p: { arrayValue: { longValues: [1] } } }],
    ["the schema member", "SELECT 1", {}, { schema: "public" }],
  ]),
  ...calls(10, [
    ["an answer over 1 MiB", "SELECT repeat('x', 1024) FROM generate_series(1, 1100)"],
    ["a request over 4 MiB", "SELECT length(:p)", { p: s("x".repeat(4 * 1024 * 1024)) }],
    ["sql of 65,537 characters", `SELECT 1 ${" ".repeat(65_537 - 9)}`],
  ]),
  ...calls(11, [
    ["DATE with a time", "SELECT :p", { p: [s("2026-01-02T00:00:00Z"), "DATE"] }],
    ["TIME with three digits", "SELECT :p::text", { p: [s("03:04:05.123"), "TIME"] }],
    ["TIME with six digits", "SELECT :p", { p: [s("03:04:05.123456"), "TIME"] }],
    ["TIMESTAMP as ISO 8601", "SELECT :p", { p: [s("2026-01-02T03:04:05Z"), "TIMESTAMP"] }],
    ["DECIMAL that is none", "SELECT :p", { p: [s("x"), "DECIMAL"] }],
    ["UUID that is none", "SELECT :p", { p: [s("x"), "UUID"] }],
    ["JSON that is none", "SELECT :p", { p: [s("{"), "JSON"] }],
    ["a hint nobody knows", "SELECT :p", { p: [s("x"), "MONEY" as "JSON"] }],
    ["a hint nobody knows, beside a long", "SELECT :p", { p: [n(1), "MONEY" as "JSON"] }],
    ["a hint nobody knows, that nothing asks for", "SELECT 1", { p: [s("x"), "MONEY" as "JSON"] }],
    ["a hint beside a long", "SELECT pg_typeof(:p)::text", { p: [n(1), "DECIMAL"] }],
  ]),
  ...calls(12, [
    ["metadata of a table", "SELECT * FROM {s}.item LIMIT 0", {}, { includeResultMetadata: true }],
    [
      "metadata of expressions",
      "SELECT 1 AS a, 'x' AS b, ARRAY[1] AS c, NULL AS d",
      {},
      { includeResultMetadata: true },
    ],
    ["metadata of an UPDATE", "UPDATE {s}.item SET amount = 1 WHERE false", {}, { includeResultMetadata: true }],
  ]),
  ...calls(17, [
    [
      "objects by label",
      "SELECT 1 AS a, 1.50 AS b, NULL AS c, ARRAY[1] AS d, '\\x01'::bytea AS e, timestamp '2026-01-02 03:04:05.5' AS f",
      {},
      { formatRecordsAs: "JSON" },
    ],
    ["one label twice", "SELECT 1 AS a, 2 AS a", {}, { formatRecordsAs: "JSON" }],
    ["no rows to format", "UPDATE {s}.item SET amount = 1 WHERE false", {}, { formatRecordsAs: "JSON" }],
    ["with metadata too", "SELECT 1 AS a", {}, { formatRecordsAs: "JSON", includeResultMetadata: true }],
  ]),
  ...expressions(18, [
    "'08:00:2b:01:02:03'::macaddr",
    "'[1,2)'::int4range",
    "ARRAY[[1,2],[3,4]]",
    "'int'::regtype",
    "'a'::\"char\"",
    "1::money",
    "point(1,2)",
    "ROW(1,2)",
    "'127.0.0.1'::inet",
    "B'101'",
    "pg_sleep(0)",
  ]),
];
