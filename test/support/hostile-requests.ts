/** Requests that a Data API may get from somebody who means harm or knows no better. Chosen by a seed. */
import type { Random } from "../chaos/random.ts";

export interface HostileRequest {
  readonly kind: string;
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string | string[]>;
  readonly body: Buffer;
}

export interface Arns {
  readonly resourceArn: string;
  readonly secretArn: string;
}

export const signed = {
  "content-type": "application/json",
  "x-amz-date": "20260101T000000Z",
  authorization: `AWS4-HMAC-SHA256 Credential=any/20260101/eu-west-1/rds-data/aws4_request, SignedHeaders=host;x-amz-date, Signature=${"0".repeat(64)}`,
};

const paths = ["/Execute", "/BatchExecute", "/BeginTransaction", "/CommitTransaction", "/RollbackTransaction"];
const otherPaths = ["/", "/ExecuteSql", "/execute", "/Execute/", "//Execute", "/__faults", "/%00", "/Execute?x=1", "*"];
const members = [
  "resourceArn",
  "secretArn",
  "sql",
  "database",
  "schema",
  "parameters",
  "parameterSets",
  "transactionId",
  "includeResultMetadata",
  "continueAfterTimeout",
  "resultSetOptions",
  "formatRecordsAs",
  "__proto__",
  "constructor",
];
/** Pieces of statements. None of them reaches beyond the database of the test. */
const pieces =
  "SELECT|INSERT INTO t|UPDATE t SET|DELETE FROM t|VALUES|(|)|1|'x'|'|\"|;|:p|:q|::int|$1|$$|$a$|--|/*|*/|NULL|BEGIN|COMMIT|ROLLBACK|SAVEPOINT a|PREPARE TRANSACTION 'a'|SET statement_timeout = 1|SET ROLE nobody|DISCARD ALL|LISTEN a|NOTIFY a|PREPARE a AS|EXECUTE a|DECLARE a CURSOR WITH HOLD FOR|FETCH ALL FROM a|COPY t FROM STDIN|COPY t TO STDOUT|CREATE TEMP TABLE a (n int)|LOCK TABLE t|pg_sleep(0.01)|pg_advisory_lock(1)|repeat('x', 2000000)|generate_series(1, 3)|1/0|ARRAY[1]|, |\0|\ud800|\u{1F600}|\\|E'\\'|DO $$ BEGIN PERFORM 1; END $$|EXPLAIN|FROM t|WHERE|RETURNING n|pg_terminate_backend(pg_backend_pid())".split(
    "|",
  );
const valid = ["SELECT 1", "SELECT :p", "INSERT INTO t (n) VALUES (1)", "SELECT n FROM t LIMIT 3", "BEGIN"];
const awkward = ["", "\0", "x".repeat(70_000), "\ud800", "null", "-0", "1e999", "0x1f", "9".repeat(30), "true"];

export function hostileRequest(random: Random, arns: Arns): HostileRequest {
  const kind = random.weighted({
    "a cut or changed body": 20,
    "a wrong member": 30,
    "a statement of pieces": 20,
    "a value of another kind": 15,
    "another operation": 5,
    "odd headers": 8,
    "random bytes": 5,
    "too large": 0.2,
    "a valid one": 10,
  });
  const request = {
    kind,
    method: "POST",
    path: random.pick(paths),
    headers: { ...signed } as Record<string, string | string[]>,
    body: Buffer.from(JSON.stringify(inputFor(random, arns))),
  };
  return { ...request, ...changed(kind, request, random, arns) };
}

function changed(kind: string, { body }: { body: Buffer }, random: Random, arns: Arns): Partial<HostileRequest> {
  switch (kind) {
    case "a cut or changed body":
      return { body: mangled(random, body) };
    case "a wrong member":
      return { body: json({ ...inputFor(random, arns), [random.pick(members)]: anyValue(random, 3) }) };
    case "a statement of pieces":
      return { path: random.pick(paths.slice(0, 2)), body: json({ ...inputFor(random, arns), sql: soup(random) }) };
    case "a value of another kind": {
      const parameter = () => ({ name: random.pick(["p", "q", ""]), value: fieldOf(random), typeHint: hint(random) });
      const lists = { parameters: [parameter(), parameter()], parameterSets: [[parameter()], [parameter()]] };
      return { path: random.pick(paths.slice(0, 2)), body: json({ ...arns, sql: "SELECT :p, :q", ...lists }) };
    }
    case "another operation": {
      const method = random.pick(["POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS"]);
      // Node's client sends no length for the bodies of most other methods: they would be read as another request.
      return { method, path: random.pick(otherPaths), ...(!/^P/.test(method) && { body: Buffer.alloc(0) }) };
    }
    case "odd headers":
      return { headers: oddHeaders(random) };
    case "random bytes":
      return { body: bytes(random, random.below(2000)) };
    case "too large":
      return { body: Buffer.alloc(5 * 1024 * 1024, random.pick(["x", " ", "["])) };
    default:
      return { path: "/Execute", body: json({ ...arns, sql: random.pick(valid), parameters: [named("p")] }) };
  }
}

const json = (value: unknown) => Buffer.from(JSON.stringify(value) ?? "");
const named = (name: string) => ({ name, value: { longValue: 1 } });

const inputFor = (random: Random, arns: Arns) => ({
  ...arns,
  sql: random.pick(valid),
  parameters: [named("p")],
  parameterSets: random.chance(0.5) ? [[named("p")], [named("p")]] : [],
  ...(random.chance(0.2) && { transactionId: random.pick(["bm9ib2R5", "x"]) }),
});

const soup = (random: Random) =>
  Array.from({ length: 1 + random.below(8) }, () => random.pick(pieces)).join(random.pick([" ", ""]));

const hint = (random: Random) =>
  random.pick(["UUID", "DECIMAL", "DATE", "TIME", "TIMESTAMP", "JSON", "OTHER", undefined]);

function fieldOf(random: Random): unknown {
  const names = [
    "isNull",
    "booleanValue",
    "longValue",
    "doubleValue",
    "stringValue",
    "blobValue",
    "arrayValue",
    "other",
  ];
  const field: Record<string, unknown> = {};
  for (let count = random.below(3); count >= 0; count--) field[random.pick(names)] = anyValue(random, 1);
  return field;
}

function anyValue(random: Random, depth: number): unknown {
  const choice = random.below(depth > 0 ? 8 : 5);
  if (choice === 0) return null;
  if (choice === 1) return random.chance(0.5);
  if (choice === 2) return random.pick([0, -1, 1.5, 1e300, 2 ** 53, -0]);
  if (choice <= 4) return random.pick(awkward);
  if (choice === 5) return Array.from({ length: random.below(4) }, () => anyValue(random, depth - 1));
  return Object.fromEntries(
    Array.from({ length: random.below(4) }, () => [
      random.pick([...members, "name", "value"]),
      anyValue(random, depth - 1),
    ]),
  );
}

function mangled(random: Random, body: Buffer): Buffer {
  const at = random.below(body.length);
  if (random.chance(0.4)) return body.subarray(0, at);
  const changed = Buffer.from(body);
  for (let count = random.below(4); count >= 0; count--) changed[random.below(changed.length)] = random.below(256);
  return random.chance(0.5)
    ? changed
    : Buffer.concat([changed.subarray(0, at), bytes(random, 5), changed.subarray(at)]);
}

const bytes = (random: Random, length: number) => Buffer.from(Array.from({ length }, () => random.below(256)));

function oddHeaders(random: Random): Record<string, string | string[]> {
  const { authorization, ...unsigned } = signed;
  return random.pick<Record<string, string | string[]>>([
    {},
    unsigned,
    { ...signed, authorization: authorization.slice(0, random.below(authorization.length)) },
    { ...signed, authorization: `${authorization}${",".repeat(3000)}` },
    { ...signed, authorization: "Bearer x" },
    { ...signed, "x-amz-date": random.pick(["", "now", "20260101T000000", "99999999T999999Z"]) },
    { ...signed, "content-type": random.pick(["text/html", "", "application/x-amz-json-1.1", "multipart/form-data"]) },
    { ...signed, "content-encoding": "gzip" },
    { ...signed, expect: "100-continue" },
    { ...signed, "transfer-encoding": "chunked" },
    { ...signed, "x-more": Array.from({ length: 50 }, (_, n) => `v${n}`) },
    { ...signed, "x-large": "x".repeat(20_000) },
    { ...signed, host: random.pick(["", "other", "a b"]) },
  ]);
}
