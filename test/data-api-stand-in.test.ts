import {
  BatchExecuteStatementCommand,
  BeginTransactionCommand,
  CommitTransactionCommand,
  ExecuteStatementCommand,
  type ExecuteStatementCommandInput,
  type Field,
  RDSDataClient,
  RollbackTransactionCommand,
  type SqlParameter,
} from "@aws-sdk/client-rds-data";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type DataApi, startDataApi } from "../infra/local/data-api/index.ts";
import { type LocalPostgres, startPostgres } from "../infra/local/postgres.ts";

const resourceArn = "arn:aws:rds:eu-west-1:123456789012:cluster:local";
const secretArn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:local";
const arns = { resourceArn, secretArn };

let postgres: LocalPostgres;
let api: DataApi;
let client: RDSDataClient;
let direct: pg.Pool;

const clientOf = (endpoint: string) =>
  new RDSDataClient({
    endpoint,
    region: "eu-west-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  });

beforeAll(async () => {
  postgres = await startPostgres({ settings: { fsync: "off" } });
  api = await startDataApi({ clusters: [{ resourceArn, url: postgres.url }] });
  client = clientOf(api.endpoint);
  direct = new pg.Pool({ connectionString: postgres.url });
  await direct.query(`
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
    CREATE TABLE item (
      id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label varchar(20) UNIQUE, amount numeric(10,2), at timestamptz,
      plain_at timestamp, day date, mood mood, doc jsonb, text_doc json, uid uuid, wait interval, picture bytea
    )`);
});

afterAll(async () => {
  await direct.end();
  await api.close();
  await postgres.stop("immediate");
});

beforeEach(async () => {
  await direct.query("TRUNCATE item RESTART IDENTITY");
});

type More = Partial<ExecuteStatementCommandInput>;
type Values = Record<string, Field | [Field, SqlParameter["typeHint"]]>;

const parametersOf = (values: Values): SqlParameter[] =>
  Object.entries(values).map(([name, value]) =>
    Array.isArray(value) ? { name, value: value[0], typeHint: value[1] } : { name, value },
  );

const execute = (sql: string, values: Values = {}, more: More = {}, through = client) =>
  through.send(new ExecuteStatementCommand({ ...arns, sql, parameters: parametersOf(values), ...more }));

/** The fields of the only row. */
const row = async (sql: string, values: Values = {}, more: More = {}) =>
  (await execute(sql, values, more)).records?.[0];

const begin = async () => (await client.send(new BeginTransactionCommand(arns))).transactionId!;
const commit = (transactionId: string) => client.send(new CommitTransactionCommand({ ...arns, transactionId }));
const rollback = (transactionId: string) => client.send(new RollbackTransactionCommand({ ...arns, transactionId }));

const s = (stringValue: string): Field => ({ stringValue });
const n = (longValue: number): Field => ({ longValue });
const NULL: Field = { isNull: true };

const databaseError = (state: string) => ({
  name: "DatabaseErrorException",
  $metadata: { httpStatusCode: 400 },
  message: expect.stringMatching(new RegExp(`^ERROR: .*; SQLState: ${state}$`, "s")),
});
const validation = (message: string) => ({ name: "ValidationException", $metadata: { httpStatusCode: 400 }, message });

describe("1: parameters have declared types", () => {
  test.each([
    ["uuid = text", "SELECT 1 FROM item WHERE uid = :p", s("9b0f3c5e-0000-4000-8000-000000000000"), "42883"],
    ["date = text", "SELECT 1 FROM item WHERE day = :p", s("2026-01-02"), "42883"],
    ["jsonb from text", "INSERT INTO item (doc) VALUES (:p)", s("{}"), "42804"],
    ["timestamptz from text", "INSERT INTO item (at) VALUES (:p)", s("2026-01-02"), "42804"],
    ["enum from text", "INSERT INTO item (mood) VALUES (:p)", s("happy"), "42804"],
    ["numeric from text", "INSERT INTO item (amount) VALUES (:p)", s("1.50"), "42804"],
    ["interval from text", "INSERT INTO item (wait) VALUES (:p)", s("1 day"), "42804"],
    ["int from text", "INSERT INTO item (id) OVERRIDING SYSTEM VALUE VALUES (:p)", s("1"), "42804"],
    ["text from boolean operator", "SELECT 1 WHERE :p", s("true"), "42804"],
    ["untyped null alone", "SELECT 1 WHERE :p IS NULL", NULL, "42P18"],
  ])("%s is refused without a cast", async (_, sql, value, state) => {
    await expect(execute(sql, { p: value })).rejects.toMatchObject(databaseError(state));
  });

  test("a cast or a hint is enough", async () => {
    const uid = "9b0f3c5e-0000-4000-8000-000000000000";
    await execute(
      `INSERT INTO item (label, amount, at, plain_at, day, mood, doc, text_doc, uid, wait)
       VALUES (:label, :amount, CAST(:at AS timestamptz), :plain, :day, :mood::mood, :doc, :doc, :uid, :wait::interval)`,
      {
        label: s("a"),
        amount: [s("1.50"), "DECIMAL"],
        at: s("2026-01-02T03:04:05Z"),
        plain: [s("2026-01-02 03:04:05.5"), "TIMESTAMP"],
        day: [s("2026-01-02"), "DATE"],
        mood: s("happy"),
        doc: [s('{"a": 1}'), "JSON"],
        uid: [s(uid), "UUID"],
        wait: s("1 day"),
      },
    );
    expect(await row("SELECT id FROM item WHERE uid = CAST(:uid AS uuid)", { uid: s(uid) })).toEqual([n(1)]);
    expect(await row("SELECT text_doc->>'a' FROM item")).toEqual([s("1")]);
  });

  test("each kind of value has its type", async () => {
    const types = await row(
      "SELECT pg_typeof(:s)::text, pg_typeof(:l)::text, pg_typeof(:d)::text, pg_typeof(:b)::text, pg_typeof(:x)::text",
      {
        s: s("a"),
        l: n(1),
        d: { doubleValue: 1 },
        b: { booleanValue: true },
        x: { blobValue: new Uint8Array([1]) },
      },
    );
    expect(types).toEqual(["text", "bigint", "double precision", "boolean", "bytea"].map(s));
    const hinted = await row("SELECT pg_typeof(:t)::text, pg_typeof(:n)::text", {
      t: [s("03:04:05"), "TIME"],
      n: [s("1.5"), "DECIMAL"],
    });
    expect(hinted).toEqual(["time without time zone", "numeric"].map(s));
  });

  test("a null goes into any column, and has no type whatever its hint", async () => {
    await execute("INSERT INTO item (label, doc, uid, at) VALUES (:p, :q, :r, :s)", {
      p: [NULL, "UUID"],
      q: [NULL, "DECIMAL"],
      r: NULL,
      s: [NULL, "JSON"],
    });
    await expect(execute("SELECT 1 WHERE :p IS NULL", { p: [NULL, "UUID"] })).rejects.toMatchObject(
      databaseError("42P18"),
    );
    expect(await row("SELECT label, doc, uid, at FROM item")).toEqual([NULL, NULL, NULL, NULL]);
  });
});

describe("2: a long is an int8", () => {
  test.each([
    ["substr", "SELECT substr('abc', :n)"],
    ["repeat", "SELECT repeat('abc', :n)"],
    ["date + long", "SELECT date '2026-01-01' + :n"],
    ["jsonb -> long", "SELECT '[1,2]'::jsonb -> :n"],
    ["varchar = long", "SELECT 1 FROM item WHERE label = :n"],
  ])("%s is refused", async (_, sql) => {
    await expect(execute(sql, { n: n(1) })).rejects.toMatchObject(databaseError("42883"));
  });

  test("LIMIT, int columns and arithmetic take it", async () => {
    await execute("INSERT INTO item (id, label) OVERRIDING SYSTEM VALUE VALUES (:n, 'a')", { n: n(7) });
    const sql = "SELECT id, id + :n, (:n * interval '1 second')::text FROM item LIMIT :n";
    expect(await row(sql, { n: n(1) })).toEqual([n(7), n(8), s("00:00:01")]);
  });

  test("digits above 2^53 reach Postgres and come back on the wire", async () => {
    const body = `{"resourceArn":"${resourceArn}","secretArn":"${secretArn}","sql":"SELECT :n, :n::text","parameters":[{"name":"n","value":{"longValue":9223372036854775807}}]}`;
    const { text } = await raw(body);
    expect(text).toContain('[{"longValue":9223372036854775807},{"stringValue":"9223372036854775807"}]');
  });
});

async function raw(body: string, endpoint = api.endpoint) {
  const response = await fetch(`${endpoint}/Execute`, {
    method: "POST",
    body,
    headers: {
      "x-amz-date": "20260101T000000Z",
      authorization: `AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/rds-data/aws4_request, SignedHeaders=host;x-amz-date, Signature=${"0".repeat(64)}`,
    },
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

describe("3: values are exactly one field", () => {
  test.each<[string, Field]>([
    ["1::int2", n(1)],
    ["1::int4", n(1)],
    ["-1::int8", n(-1)],
    ["1::oid", n(1)],
    ["1.5::float4", { doubleValue: 1.5 }],
    ["1e300::float8", { doubleValue: 1e300 }],
    ["'NaN'::float8", { doubleValue: Number.NaN }],
    ["'-Infinity'::float8", { doubleValue: Number.NEGATIVE_INFINITY }],
    ["true", { booleanValue: true }],
    ["false", { booleanValue: false }],
    ["NULL::int", NULL],
    ["'a\"\\\u00e9\n'::text", s('a"\\\u00e9\n')],
    ["'ab'::char(3)", s("ab ")],
    ["1.50::numeric", s("1.50")],
    ["'{\"b\": 1}'::jsonb", s('{"b": 1}')],
    ["'{\"b\":1}'::json", s('{"b":1}')],
    ["'9B0F3C5E-0000-4000-8000-000000000000'::uuid", s("9b0f3c5e-0000-4000-8000-000000000000")],
    ["'happy'::mood", s("happy")],
    ["'a@b'::email", s("a@b")],
    ["date '2026-01-02'", s("2026-01-02")],
    ["time '03:04:05'", s("03:04:05")],
    ["interval '1 day'", s("1 day")],
    ["'\\x0001ff'::bytea", { blobValue: new Uint8Array([0, 1, 255]) }],
    ["ARRAY[1,2]", { arrayValue: { longValues: [1, 2] } }],
    ["ARRAY[1.5::float8]", { arrayValue: { doubleValues: [1.5] } }],
    ["ARRAY[true,false]", { arrayValue: { booleanValues: [true, false] } }],
    ["ARRAY['a,b','c\"d\\e','','NULL']", { arrayValue: { stringValues: ["a,b", 'c"d\\e', "", "NULL"] } }],
    ["ARRAY[1.50::numeric]", { arrayValue: { stringValues: ["1.50"] } }],
    ["ARRAY['happy']::mood[]", { arrayValue: { stringValues: ["happy"] } }],
    ["'{}'::int[]", { arrayValue: { longValues: [] } }],
    ["'[2:3]={4,5}'::int[]", { arrayValue: { longValues: [4, 5] } }],
    ["ARRAY[timestamp '2026-01-02 03:04:05.5']", { arrayValue: { stringValues: ["2026-01-02 03:04:05.500"] } }],
  ])("%s", async (expression, field) => {
    const value = (await row(`SELECT ${expression}`))![0]!;
    if (value.blobValue) expect(Buffer.from(value.blobValue)).toEqual(Buffer.from(field.blobValue!));
    else expect(value).toEqual(field);
  });

  test("resultSetOptions turn decimals into numbers and longs into strings", async () => {
    const resultSetOptions = { decimalReturnType: "DOUBLE_OR_LONG", longReturnType: "STRING" } as const;
    expect(await row("SELECT 1.5::numeric, 2::numeric, 3::int8", {}, { resultSetOptions })).toEqual([
      { doubleValue: 1.5 },
      n(2),
      s("3"),
    ]);
  });

  test("a type made in the same transaction is known", async () => {
    const transactionId = await begin();
    await execute("CREATE TYPE size AS ENUM ('small')", {}, { transactionId });
    expect(await row("SELECT 'small'::size", {}, { transactionId })).toEqual([s("small")]);
    await rollback(transactionId);
  });

  test("numberOfRecordsUpdated counts what a statement changed, and is 0 for a SELECT", async () => {
    expect(await execute("INSERT INTO item (label) VALUES ('a'), ('b')")).toMatchObject({
      numberOfRecordsUpdated: 2,
      generatedFields: [],
    });
    expect(await execute("UPDATE item SET amount = 1")).toMatchObject({ numberOfRecordsUpdated: 2 });
    expect(await execute("SELECT * FROM item")).toMatchObject({ numberOfRecordsUpdated: 0 });
    expect((await execute("INSERT INTO item (label) VALUES ('c') RETURNING id")).records).toEqual([[n(3)]]);
    expect(await execute("DELETE FROM item")).toMatchObject({ numberOfRecordsUpdated: 3 });
    expect((await execute("SELECT 1 FROM item")).records).toEqual([]);
  });
});

test.each([
  ["timestamptz '2026-01-02 03:04:05+02'", "2026-01-02 01:04:05"],
  ["timestamptz '2026-01-02 03:04:05.1Z'", "2026-01-02 03:04:05.100"],
  ["timestamptz '2026-01-02 03:04:05.1234Z'", "2026-01-02 03:04:05.123400"],
  ["timestamp '2026-01-02 03:04:05.123456'", "2026-01-02 03:04:05.123456"],
  ["timestamp '2026-01-02 03:04:05.120'", "2026-01-02 03:04:05.120"],
  ["timestamptz 'infinity'", "infinity"],
])("4: %s is %s: no zone, UTC, no, 3 or 6 digits", async (expression, text) => {
  expect(await row(`SELECT ${expression}`)).toEqual([s(text)]);
});

test("4: also when the transaction set a time zone of its own", async () => {
  const transactionId = await begin();
  await execute("SELECT set_config('timezone', 'Asia/Kolkata', true)", {}, { transactionId });
  expect(await row("SELECT timestamptz '2026-01-02 03:04:05.5Z'", {}, { transactionId })).toEqual([
    s("2026-01-02 03:04:05.500"),
  ]);
  await rollback(transactionId);
});

describe("5: errors", () => {
  test("have Postgres's message, its position and its state, and the header SDKs read the name from", async () => {
    const message = 'ERROR: relation "nowhere" does not exist; Position: 15; SQLState: 42P01';
    await expect(execute("SELECT * FROM nowhere")).rejects.toMatchObject({ name: "DatabaseErrorException", message });
    const { status, headers, text } = await raw(JSON.stringify({ ...arns, sql: "SELECT * FROM nowhere" }));
    expect([status, headers.get("x-amzn-errortype"), JSON.parse(text)]).toEqual([
      400,
      "DatabaseErrorException",
      { message },
    ]);
  });

  test.each([
    ["INSERT INTO item (label) SELECT 'a' FROM generate_series(1, 2)", "23505"],
    ["SELECT 1/0", "22012"],
    ["SELEC", "42601"],
    ["INSERT INTO item (label) VALUES (repeat('a', 21))", "22001"],
    ["COPY item FROM STDIN", "57014"],
    ["DO $$ BEGIN RAISE EXCEPTION 'SQLState: 00000' USING ERRCODE = 'ST001'; END $$", "ST001"],
  ])("%s ends in SQLState %s", async (sql, state) => {
    await expect(execute(sql)).rejects.toMatchObject(databaseError(state));
    expect(await row("SELECT 1")).toEqual([n(1)]);
  });

  test("a database that does not exist, a cluster and a secret nobody knows", async () => {
    await expect(execute("SELECT 1", {}, { database: "nowhere" })).rejects.toMatchObject({
      name: "DatabaseErrorException",
      message: 'FATAL: database "nowhere" does not exist; SQLState: 3D000',
    });
    await expect(execute("SELECT 1", {}, { resourceArn: `${resourceArn}x` })).rejects.toMatchObject({
      name: "NotFoundException",
      $metadata: { httpStatusCode: 404 },
    });
  });

  test("secrets stand for users", async () => {
    await direct.query("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN");
    const secrets = { [secretArn]: { user: "reader", password: "any" } };
    const other = await startDataApi({ clusters: [{ resourceArn, url: postgres.url, secrets }] });
    try {
      const through = clientOf(other.endpoint);
      expect((await execute("SELECT current_user::text", {}, {}, through)).records).toEqual([[s("reader")]]);
      await expect(execute("SELECT 1", {}, { secretArn: `${secretArn}x` }, through)).rejects.toMatchObject({
        name: "SecretsErrorException",
        $metadata: { httpStatusCode: 400 },
      });
    } finally {
      await other.close();
    }
  });
});

describe("6: transactions", () => {
  const labels = async () => (await direct.query("SELECT label FROM item ORDER BY id")).rows.map(({ label }) => label);

  test("without one each call commits", async () => {
    await execute("INSERT INTO item (label) VALUES ('a')");
    expect(await labels()).toEqual(["a"]);
  });

  test("commit keeps and rollback undoes, and nothing shows before", async () => {
    const kept = await begin();
    await execute("INSERT INTO item (label) VALUES ('kept')", {}, { transactionId: kept });
    const undone = await begin();
    await execute("INSERT INTO item (label) VALUES ('undone')", {}, { transactionId: undone });
    expect(await labels()).toEqual([]);
    expect((await commit(kept)).transactionStatus).toBe("Transaction Committed");
    expect((await rollback(undone)).transactionStatus).toBe("Rollback Complete");
    expect(await labels()).toEqual(["kept"]);
  });

  test("afterwards nobody knows it", async () => {
    const transactionId = await begin();
    await commit(transactionId);
    const gone = { name: "TransactionNotFoundException", $metadata: { httpStatusCode: 404 } };
    await expect(execute("SELECT 1", {}, { transactionId })).rejects.toMatchObject(gone);
    await expect(commit(transactionId)).rejects.toMatchObject(gone);
    await expect(rollback(transactionId)).rejects.toMatchObject(gone);
  });

  test("one that failed refuses everything but its rollback", async () => {
    const transactionId = await begin();
    await execute("INSERT INTO item (label) VALUES ('a')", {}, { transactionId });
    await expect(execute("SELECT 1/0", {}, { transactionId })).rejects.toMatchObject(databaseError("22012"));
    await expect(execute("SELECT 1", {}, { transactionId })).rejects.toMatchObject(databaseError("25P02"));
    await rollback(transactionId);
    expect(await labels()).toEqual([]);
  });

  test("committing one that failed is an error and commits nothing", async () => {
    const transactionId = await begin();
    await execute("INSERT INTO item (label) VALUES ('a')", {}, { transactionId });
    await expect(execute("SELECT 1/0", {}, { transactionId })).rejects.toThrow();
    await expect(commit(transactionId)).rejects.toMatchObject(databaseError("25P02"));
    expect(await labels()).toEqual([]);
    await expect(rollback(transactionId)).rejects.toMatchObject({ name: "TransactionNotFoundException" });
  });

  test("a deferred constraint fails the commit", async () => {
    await direct.query("CREATE TABLE IF NOT EXISTS late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    const transactionId = await begin();
    await execute("INSERT INTO late VALUES (1), (1)", {}, { transactionId });
    await expect(commit(transactionId)).rejects.toMatchObject(databaseError("23505"));
  });

  test.each([
    ["COMMIT", ["a"]],
    ["END", ["a"]],
    ["ROLLBACK", []],
    ["COMMIT AND CHAIN", ["a"]],
    ["ROLLBACK AND CHAIN", []],
    ["PREPARE TRANSACTION 'nobody'", undefined],
  ])("%s as a statement ends it: nobody knows it afterwards, and what comes next is not in it", async (sql, kept) => {
    const transactionId = await begin();
    await execute("INSERT INTO item (label) VALUES ('a')", {}, { transactionId });
    const ending = execute(sql, {}, { transactionId });
    if (kept) await ending;
    else await expect(ending).rejects.toMatchObject({ name: "DatabaseErrorException" });
    const gone = { name: "TransactionNotFoundException", $metadata: { httpStatusCode: 404 } };
    await expect(execute("INSERT INTO item (label) VALUES ('b')", {}, { transactionId })).rejects.toMatchObject(gone);
    await expect(commit(transactionId)).rejects.toMatchObject(gone);
    expect(await labels()).toEqual(kept ?? []);
  });

  test("one whose statement ends it after its time limit is not known either", async () => {
    const hasty = await startDataApi({ clusters: [{ resourceArn, url: postgres.url }], statementTimeoutMs: 2000 });
    const through = clientOf(hasty.endpoint);
    try {
      await direct.query(`
        CREATE TABLE waiting (id int);
        CREATE FUNCTION wait() RETURNS trigger AS 'BEGIN PERFORM pg_sleep(4); RETURN NULL; END' LANGUAGE plpgsql;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON waiting INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`);
      const { transactionId = "" } = await through.send(new BeginTransactionCommand(arns));
      await execute("INSERT INTO waiting VALUES (1)", {}, { transactionId }, through);
      await expect(execute("COMMIT", {}, { transactionId, continueAfterTimeout: true }, through)).rejects.toMatchObject(
        { name: "StatementTimeoutException" },
      );
      while ((await direct.query("SELECT 1 FROM waiting")).rowCount === 0);
      const again = () =>
        execute("SELECT 1", {}, { transactionId }, through).then(
          () => "it ran",
          ({ message }) => message,
        );
      let answer = await again();
      while (answer === "Transaction is still running a query") answer = await again();
      expect(answer).toBe(`Transaction ${transactionId} is not found`);
    } finally {
      await hasty.close();
    }
  });

  test("going back to a savepoint ends nothing", async () => {
    const transactionId = await begin();
    await execute("INSERT INTO item (label) VALUES ('a')", {}, { transactionId });
    await execute("SAVEPOINT here", {}, { transactionId });
    await execute("INSERT INTO item (label) VALUES ('b')", {}, { transactionId });
    await execute("ROLLBACK TO SAVEPOINT here", {}, { transactionId });
    await commit(transactionId);
    expect(await labels()).toEqual(["a"]);
  });

  test("the connection of one that was ended by a statement serves others", async () => {
    const small = await startDataApi({ clusters: [{ resourceArn, url: postgres.url }], maxConnections: 1 });
    const through = clientOf(small.endpoint);
    try {
      for (const sql of ["COMMIT", "ROLLBACK AND CHAIN"]) {
        const { transactionId = "" } = await through.send(new BeginTransactionCommand(arns));
        await execute(sql, {}, { transactionId }, through);
        expect((await execute("SELECT 1", {}, {}, through)).records).toEqual([[n(1)]]);
      }
    } finally {
      await small.close();
    }
  });

  test("it belongs to its secret, its cluster and its database", async () => {
    const transactionId = await begin();
    const other = { secretArn: `${secretArn}-other` };
    const gone = { name: "TransactionNotFoundException" };
    await expect(execute("SELECT 1", {}, { transactionId, ...other })).rejects.toMatchObject(gone);
    await expect(client.send(new CommitTransactionCommand({ ...arns, ...other, transactionId }))).rejects.toMatchObject(
      gone,
    );
    await expect(execute("SELECT 1", {}, { transactionId, database: "template1" })).rejects.toMatchObject({
      name: "ValidationException",
    });
    expect(await row("SELECT 1", {}, { transactionId, database: "postgres" })).toEqual([n(1)]);
    await rollback(transactionId);
  });

  test("isolation is READ COMMITTED, with and without one", async () => {
    const transactionId = await begin();
    for (const more of [{}, { transactionId }])
      expect(await row("SELECT current_setting('transaction_isolation')", {}, more)).toEqual([s("read committed")]);
    await rollback(transactionId);
  });
});

describe("7: several statements", () => {
  test.each([
    "SELECT 1; SELECT 2",
    "SELECT ';'; SELECT 2",
    "SELECT 1;;SELECT 2",
    "SELECT 1 /* ; */; DELETE FROM item",
    "SELECT 1; SELEC",
  ])("%s is refused", async (sql) => {
    await expect(execute(sql)).rejects.toMatchObject(validation("Multistatements aren't supported."));
  });

  test.each([
    "SELECT 1;",
    "SELECT 1 ; -- the end;\n",
    "SELECT 1; /* ; */ ;",
    "SELECT 1 WHERE ';' <> 'x;y'",
    "DO $body$ BEGIN PERFORM 1; PERFORM 2; END $body$",
    "CREATE OR REPLACE FUNCTION two() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
  ])("%s is one", async (sql) => {
    await execute(sql);
  });

  test("also beside a BEGIN ATOMIC, where Postgres counts", async () => {
    const sql = "CREATE OR REPLACE FUNCTION two() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3";
    await expect(execute(sql)).rejects.toMatchObject(validation("Multistatements aren't supported."));
  });
});

describe("8: only named parameters are bound", () => {
  test("$1 is refused", async () => {
    await expect(execute("SELECT $1::int", { p: n(1) })).rejects.toMatchObject(databaseError("08P01"));
  });

  test.each([
    "SELECT $1::int, :p",
    "SELECT :p, $1::int",
    "SELECT :p WHERE 1=$2",
    "SELECT $1::text /* :q */, :p::text",
  ])("also beside a name: %s", async (sql) => {
    await expect(execute(sql, { p: n(1), q: n(2) })).rejects.toMatchObject(databaseError("08P01"));
  });

  test("the body of a function has its own $1", async () => {
    await execute("CREATE OR REPLACE FUNCTION twice(int) RETURNS int RETURN $1 * 2");
    expect(await row("SELECT twice(2)")).toEqual([n(4)]);
  });

  test.each([
    ["SELECT '$1' || :a", "$1x"],
    ["SELECT $$$1$$ || :a", "$1x"],
    ['SELECT :a AS "$1"', "x"],
    ["SELECT :a /* $1 */ -- $1", "x"],
    ["SELECT a$1 FROM (SELECT :a) AS t (a$1)", "x"],
    ["SELECT :a || :b || :a", "xyx"],
    ["SELECT :a::text", "x"],
    ["SELECT ':a' || :a", ":ax"],
    ["SELECT E'\\':a' || :a", "':ax"],
    ["SELECT $$:a$$ || :a", ":ax"],
    ["SELECT $t$ $$:a $t$ || :a", " $$:a x"],
    ['SELECT :a AS ":b"', "x"],
    ["SELECT :a -- :b\n || :b", "xy"],
    ["SELECT :a /* :b /* ' */ ' */ || :b", "xy"],
    ["SELECT (ARRAY['p','q',:a])[3:3]::text", "{x}"],
    ["SELECT :a||:0", "xz"],
  ])("%s", async (sql, text) => {
    expect(await row(sql, { a: s("x"), b: s("y"), 0: s("z") })).toEqual([s(text)]);
  });

  test("a name nobody gave is Postgres's syntax error", async () => {
    await expect(execute("SELECT :missing")).rejects.toMatchObject(databaseError("42601"));
  });
});

test("9: array parameters and the schema member are refused", async () => {
  const array = { arrayValue: { longValues: [1] } };
  for (const sql of ["SELECT :a", "SELECT 1"])
    await expect(execute(sql, { a: array })).rejects.toMatchObject(validation("Array parameters are not supported."));
  await expect(execute("SELECT 1", {}, { schema: "public" })).rejects.toMatchObject(
    validation("The schema parameter isn't supported"),
  );
});

describe("10: sizes", () => {
  const tooLarge = {
    name: "UnsupportedResultException",
    message: "Database returned more than the allowed response size limit",
  };

  test.each([
    ["one row", "SELECT repeat('x', 1048576)"],
    ["many rows", "SELECT repeat('x', 100) FROM generate_series(1, 20000)"],
    ["more than is kept while it arrives", "SELECT repeat('x', 1000000) FROM generate_series(1, 100)"],
    ["small in Postgres, large in JSON", "SELECT 1 FROM generate_series(1, 70000)"],
  ])("a response over 1 MiB (%s) is refused", async (_, sql) => {
    await expect(execute(sql)).rejects.toMatchObject(tooLarge);
  });

  test("a response below it is not", async () => {
    expect((await row("SELECT repeat('x', 1000000)"))![0]!.stringValue).toHaveLength(1_000_000);
  });

  test("a request over 4 MiB is refused, one below it is not", async () => {
    const p = (bytes: number) => ({ p: s("x".repeat(bytes)) });
    await expect(execute("SELECT length(:p)", p(4 * 1024 * 1024))).rejects.toMatchObject({
      $metadata: { httpStatusCode: 413 },
    });
    expect(await row("SELECT length(:p)", p(4_190_000))).toEqual([n(4_190_000)]);
  });

  test("sql has at most 65,536 characters", async () => {
    const sql = "SELECT 1".padEnd(65_536);
    expect(await row(sql)).toEqual([n(1)]);
    await expect(execute(`${sql} `)).rejects.toMatchObject({
      name: "ValidationException",
      message: expect.stringContaining("Member must have length less than or equal to 65536"),
    });
  });
});

describe("11: hints are strict", () => {
  test.each<[NonNullable<SqlParameter["typeHint"]>, string, string]>([
    ["TIMESTAMP", "2026-01-02T03:04:05Z", "Parse Error for TimeStamp: input contains invalid characters"],
    ["TIMESTAMP", "2026-01-02", "Parse Error for TimeStamp: input contains invalid characters"],
    ["DATE", "02.01.2026", "Parse Error for Date: input contains invalid characters"],
    ["TIME", "03:04:05.1234", "Parse Error for Time: input contains invalid characters"],
    ["TIME", "03:04", "Parse Error for Time: input contains invalid characters"],
    ["TIMESTAMP", "2026-01-02 03:04:05.1234567", "Parse Error for TimeStamp: input contains invalid characters"],
    ["TIME", "3pm", "Parse Error for Time: input contains invalid characters"],
    ["DECIMAL", "1,5", "Parse Error for Decimal: input contains invalid characters"],
    ["UUID", "nope", "Parse Error for UUID: input contains invalid characters"],
  ])("%s %s is refused", async (hint, text, message) => {
    await expect(execute("SELECT :p", { p: [s(text), hint] })).rejects.toMatchObject({
      name: "DatabaseErrorException",
      message,
    });
  });

  test.each([
    ["TIME", "03:04:05"],
    ["TIME", "03:04:05.1"],
    ["TIME", "03:04:05.123"],
    ["TIMESTAMP", "2026-01-02 03:04:05.123456"],
  ] as const)("%s %s is taken", async (hint, text) => {
    expect(await row("SELECT :p::text", { p: [s(text), hint] })).toEqual([s(text)]);
  });

  test("a hint nobody knows is refused beside any value, and where no placeholder asks for it", async () => {
    const unknown = "XML" as unknown as NonNullable<SqlParameter["typeHint"]>;
    for (const value of [n(1), NULL, s("x"), { blobValue: new Uint8Array([1]) }])
      for (const sql of ["SELECT :p", "SELECT 1"])
        await expect(execute(sql, { o: n(1), p: [value, unknown] })).rejects.toMatchObject({
          name: "ValidationException",
          message: expect.stringContaining("Value 'XML' at 'parameters.2.member.typeHint' failed"),
        });
    const parameterSets = [{ p: n(1) }, { p: [n(1), unknown] as [Field, typeof unknown] }].map(parametersOf);
    await expect(
      client.send(new BatchExecuteStatementCommand({ ...arns, sql: "SELECT :p", parameterSets })),
    ).rejects.toMatchObject({ message: expect.stringContaining("'parameterSets.2.member.1.member.typeHint'") });
  });

  test("JSON is checked by Postgres, a hint nobody knows by the API", async () => {
    await expect(execute("SELECT :p", { p: [s("{"), "JSON"] })).rejects.toMatchObject(databaseError("22P02"));
    const unknown = "XML" as unknown as NonNullable<SqlParameter["typeHint"]>;
    await expect(execute("SELECT :p", { p: [s("<a/>"), unknown] })).rejects.toMatchObject({
      name: "ValidationException",
    });
  });
});

describe("12: metadata", () => {
  test("comes only when asked for, and not for a statement without rows", async () => {
    expect((await execute("SELECT 1")).columnMetadata).toBeUndefined();
    const includeResultMetadata = true;
    expect((await execute("DELETE FROM item", {}, { includeResultMetadata })).columnMetadata).toBeUndefined();
  });

  test("names columns, tables and types", async () => {
    const { columnMetadata } = await execute(
      "SELECT id, label AS name, amount, mood, now() AS n, ARRAY[1] AS a FROM item",
      {},
      { includeResultMetadata: true },
    );
    expect(
      columnMetadata!.map(({ label, typeName, type, tableName, nullable }) => [
        label,
        typeName,
        type,
        tableName,
        nullable,
      ]),
    ).toEqual([
      ["id", "int4", 4, "item", 0],
      ["name", "varchar", 12, "item", 1],
      ["amount", "numeric", 2, "item", 1],
      ["mood", "mood", 12, "item", 1],
      ["n", "timestamptz", 93, "", 2],
      ["a", "_int4", 2003, "", 2],
    ]);
    expect(columnMetadata![0]).toMatchObject({ isAutoIncrement: true, isSigned: true });
    expect(columnMetadata![2]).toMatchObject({ precision: 10, scale: 2 });
    expect(columnMetadata![5]).toMatchObject({ arrayBaseColumnType: 4 });
  });
});

describe("13: a batch", () => {
  const batch = (sql: string, sets: Values[]) =>
    client.send(new BatchExecuteStatementCommand({ ...arns, sql, parameterSets: sets.map(parametersOf) }));
  const count = async () => Number((await direct.query("SELECT count(*) FROM item")).rows[0].count);

  test("runs once a set and returns no rows", async () => {
    const sql = "INSERT INTO item (label, amount) VALUES (:l, :a) RETURNING id";
    const { updateResults } = await batch(sql, [
      { l: s("a"), a: n(1) },
      { l: s("b"), a: NULL },
      { l: s("c"), a: { doubleValue: 2.5 } },
    ]);
    expect(updateResults).toEqual([{ generatedFields: [] }, { generatedFields: [] }, { generatedFields: [] }]);
    expect((await direct.query("SELECT label, amount FROM item ORDER BY id")).rows).toEqual([
      { label: "a", amount: "1.00" },
      { label: "b", amount: null },
      { label: "c", amount: "2.50" },
    ]);
  });

  test("of which one set fails leaves nothing", async () => {
    const sets = [{ l: s("a") }, { l: s("a") }];
    await expect(batch("INSERT INTO item (label) VALUES (:l)", sets)).rejects.toMatchObject(databaseError("23505"));
    expect(await count()).toBe(0);
  });

  test("may return more than an answer may hold, and is kept", async () => {
    // The second set still runs when what the first returned would have had it cancelled.
    const sql = `INSERT INTO item (label) SELECT :l || n FROM generate_series(1, 70) AS n, pg_sleep(:s)
      RETURNING repeat('x', 1000000)`;
    await batch(sql, [
      { l: s("a"), s: { doubleValue: 0 } },
      { l: s("b"), s: { doubleValue: 0.3 } },
    ]);
    expect(await count()).toBe(140);
  });

  test("runs once without sets, and may be large", async () => {
    await batch("INSERT INTO item (label) VALUES ('once')", []);
    await batch(
      "INSERT INTO item (label) VALUES (:l)",
      Array.from({ length: 3000 }, (_, at) => ({ l: s(`n${at}`) })),
    );
    expect(await count()).toBe(3001);
  });
});

test("14: a transaction runs one statement at a time", async () => {
  const transactionId = await begin();
  // It runs until the lock is given back.
  const holder = await direct.connect();
  await holder.query("SELECT pg_advisory_lock(14)");
  const slow = execute("SELECT pg_advisory_xact_lock(14)::text", {}, { transactionId });
  const running = async () =>
    (
      await direct.query(
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_advisory_xact_lock(14)%'",
      )
    ).rowCount;
  while ((await running()) === 0);
  const busy = { name: "DatabaseErrorException", message: "Transaction is still running a query" };
  await expect(execute("SELECT 1", {}, { transactionId })).rejects.toMatchObject(busy);
  await expect(commit(transactionId)).rejects.toMatchObject(busy);
  await holder.query("SELECT pg_advisory_unlock(14)");
  holder.release();
  await slow;
  expect(await row("SELECT 1", {}, { transactionId })).toEqual([n(1)]);
  await commit(transactionId);
});

describe("15: time limits", () => {
  let hasty: DataApi;
  let through: RDSDataClient;
  beforeAll(async () => {
    hasty = await startDataApi({
      clusters: [{ resourceArn, url: postgres.url }],
      statementTimeoutMs: 2000,
      transactionIdleMs: 3000,
    });
    through = clientOf(hasty.endpoint);
  });
  afterAll(() => hasty.close());
  const timeout = {
    name: "StatementTimeoutException",
    $metadata: { httpStatusCode: 400 },
    dbConnectionId: expect.any(Number),
  };
  const insert = "WITH slow AS (SELECT pg_sleep(:s)) INSERT INTO item (label) SELECT 'late' FROM slow";

  test("a statement over the limit is cancelled", async () => {
    await expect(execute(insert, { s: { doubleValue: 60 } }, {}, through)).rejects.toMatchObject(timeout);
    const left = await direct.query(
      "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'WITH slow%'",
    );
    expect(left.rowCount).toBe(0);
  });

  test("with continueAfterTimeout it goes on", async () => {
    const more = { continueAfterTimeout: true };
    await expect(execute(insert, { s: { doubleValue: 4 } }, more, through)).rejects.toMatchObject(timeout);
    while ((await direct.query("SELECT 1 FROM item")).rowCount === 0);
  });

  test("a transaction left alone is rolled back and forgotten", async () => {
    const { transactionId } = await through.send(new BeginTransactionCommand(arns));
    await execute("INSERT INTO item (label) VALUES ('a')", {}, { transactionId: transactionId! }, through);
    // It holds the row's lock until it is rolled back, and then the same label is free.
    await direct.query("INSERT INTO item (label) VALUES ('a')");
    await expect(execute("SELECT 1", {}, { transactionId: transactionId! }, through)).rejects.toMatchObject({
      name: "TransactionNotFoundException",
    });
  });
});

describe("16: no session", () => {
  test("two calls in a row never share one, not even when there was only one", async () => {
    const fresh = await startDataApi({ clusters: [{ resourceArn, url: postgres.url }] });
    const through = clientOf(fresh.endpoint);
    const pid = async () => (await execute("SELECT pg_backend_pid()", {}, {}, through)).records![0]![0]!.longValue!;
    const ready = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'idle' AND query LIKE '%DISCARD%'";
    try {
      for (let last = 0, call = 0; call < 6; call++) {
        const next = await pid();
        expect(next).not.toBe(last);
        last = next;
        while ((await direct.query(ready, [last])).rowCount === 0);
      }
    } finally {
      await fresh.close();
    }
  });

  test("nothing a call sets outlives it", async () => {
    await execute("SET search_path = nowhere");
    await execute("SET TIME ZONE 'Asia/Kolkata'");
    await execute("CREATE TEMP TABLE mine (id int)");
    await execute("SELECT pg_advisory_lock(4711)::text");
    await execute("PREPARE mine AS SELECT 1");
    await execute("LISTEN mine");
    await execute("BEGIN");
    const sql = `SELECT current_setting('search_path'), current_setting('timezone'), to_regclass('pg_temp.mine')::text,
      (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels())`;
    for (let call = 0; call < 8; call++)
      expect(await row(sql)).toEqual([s('"$user", public'), s("UTC"), NULL, n(0), n(0)]);
    // What other sessions can see goes right after the answer.
    const held = `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711
      UNION ALL SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`;
    while ((await direct.query(held)).rowCount);
  });

  test("eight callers do not wait for each other", async () => {
    // Each of the eight holds a lock the next one waits for in turn, unless all eight run at once.
    const meet = `WITH me AS (SELECT pg_advisory_lock_shared(815)::text)
      SELECT count(*) FROM me, LATERAL (SELECT pg_sleep(3)::text) AS pause,
      LATERAL (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 815) AS others`;
    const counts = await Promise.all(Array.from({ length: 8 }, () => row(meet)));
    expect(counts.some((fields) => fields![0]!.longValue === 8)).toBe(true);
  });

  test("more callers than connections take turns", async () => {
    const small = await startDataApi({ clusters: [{ resourceArn, url: postgres.url }], maxConnections: 2 });
    const through = clientOf(small.endpoint);
    try {
      const answers = await Promise.all(
        Array.from({ length: 30 }, (_, at) =>
          execute("SELECT :n", { n: n(at) }, { database: at % 3 ? "postgres" : "template1" }, through),
        ),
      );
      expect(answers.map(({ records }) => records![0]![0]!.longValue)).toEqual(
        Array.from({ length: 30 }, (_, at) => at),
      );
    } finally {
      await small.close();
    }
  });
});

describe("17: formatRecordsAs JSON", () => {
  const json = async (sql: string) => {
    const { formattedRecords, records, columnMetadata } = await execute(
      sql,
      {},
      { formatRecordsAs: "JSON", includeResultMetadata: true },
    );
    expect([records, columnMetadata]).toEqual([undefined, undefined]);
    return JSON.parse(formattedRecords!);
  };

  test("is objects by label", async () => {
    const sql = `SELECT 1 AS a, 'x"' AS "b c", NULL AS d, 1.50::numeric AS e, true AS f, '\\x01'::bytea AS g, ARRAY[1,NULL] AS h,
      timestamptz '2026-01-02 03:04:05Z' AS i, '{"k": 1}'::jsonb AS j, 1.5::float8 AS k`;
    expect(await json(sql)).toEqual([
      {
        a: 1,
        "b c": 'x"',
        d: null,
        e: "1.50",
        f: true,
        g: "AQ==",
        h: [1, null],
        i: "2026-01-02 03:04:05",
        j: '{"k": 1}',
        k: 1.5,
      },
    ]);
    expect(await json("SELECT 1 AS a FROM item")).toEqual([]);
  });

  test("refuses two columns of one label", async () => {
    await expect(json("SELECT 1 AS a, 2 AS a")).rejects.toMatchObject({ name: "UnsupportedResultException" });
  });

  test("changes nothing for a statement without rows", async () => {
    const answer = await execute("INSERT INTO item (label) VALUES ('a')", {}, { formatRecordsAs: "JSON" });
    expect([answer.formattedRecords, answer.numberOfRecordsUpdated]).toEqual([undefined, 1]);
  });
});

test.each([
  "'08:00:2b:01:02:03'::macaddr",
  "'[1,2)'::int4range",
  "ARRAY[[1,2],[3,4]]",
  "'int'::regtype",
  "'a'::\"char\"",
  "1::money",
  "point(1,2)",
  "ROW(1,2)",
])("18: %s is not supported, as text it is", async (expression) => {
  await expect(execute(`SELECT ${expression}`)).rejects.toMatchObject({
    name: "UnsupportedResultException",
    $metadata: { httpStatusCode: 400 },
  });
  expect((await row(`SELECT (${expression})::text`))![0]!.stringValue).toEqual(expect.any(String));
});
