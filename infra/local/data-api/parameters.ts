import { databaseError } from "./errors.ts";
import { readStatement } from "./statement.ts";
import { oid } from "./types.ts";

export interface SqlParameter {
  name?: string;
  /** Of exactly one member. */
  value: Record<string, unknown>;
  typeHint?: string;
}

/** Text with $1, $2 ... and, for each of them, the declared type and the value. */
export interface Bound {
  text: string;
  types: number[];
  values: Array<string | Buffer | null>;
}

export function bind(sql: string, parameters: SqlParameter[]): Bound {
  const { parts, names, positional } = readStatement(sql);
  const given = new Map(parameters.map((parameter) => [parameter.name, parameter]));
  const positions = new Map<string, number>();
  const bound: Bound = { text: parts[0]!, types: [], values: [] };
  names.forEach((name, index) => {
    bound.text += place(name, given, positions, bound) + parts[index + 1];
  });
  // Without a named one Postgres says it, or has its own use for the number: the body of an SQL function.
  if (positional > 0 && positions.size > 0) throw notBound(positions.size, positional);
  return bound;
}

const notBound = (named: number, positional: number) =>
  databaseError(
    `ERROR: bind message supplies ${named} parameters, but prepared statement "" requires ${named + positional}; SQLState: 08P01`,
  );

function place(
  name: string,
  given: Map<string | undefined, SqlParameter>,
  positions: Map<string, number>,
  bound: Bound,
) {
  const parameter = given.get(name);
  // Not a parameter then (a slice, perhaps): Postgres says what it thinks of the colon.
  if (!parameter) return `:${name}`;
  let position = positions.get(name);
  if (position === undefined) {
    const { type, value } = typed(parameter);
    bound.types.push(type);
    position = bound.values.push(value);
    positions.set(name, position);
  }
  return `$${position}`;
}

interface Typed {
  type: number;
  value: string | Buffer | null;
}

/** The type is declared, never left for Postgres to infer: a missing cast fails here as it does on Aurora. */
function typed({ value, typeHint }: SqlParameter): Typed {
  const member = Object.keys(value)[0]!;
  const content = value[member];
  switch (member) {
    case "isNull":
      // Whatever its hint.
      return { type: oid.untyped, value: null };
    case "booleanValue":
      return { type: oid.bool, value: content ? "t" : "f" };
    case "longValue":
      return { type: oid.int8, value: String(content) };
    case "doubleValue":
      return { type: oid.float8, value: String(content) };
    case "blobValue":
      return { type: oid.bytea, value: Buffer.from(content as string, "base64") };
    default:
      return hinted(content as string, typeHint);
  }
}

const hints: Record<string, { type: number; label: string; form: RegExp }> = {
  UUID: { type: oid.uuid, label: "UUID", form: /^[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}$/i },
  DECIMAL: { type: oid.numeric, label: "Decimal", form: /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i },
  DATE: { type: oid.date, label: "Date", form: /^\d{4}-\d\d-\d\d$/ },
  TIME: { type: oid.time, label: "Time", form: /^\d\d:\d\d:\d\d(?:\.\d{1,3})?$/ },
  TIMESTAMP: { type: oid.timestamp, label: "TimeStamp", form: /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?$/ },
  JSON: { type: oid.jsonb, label: "JSON", form: /^[\s\S]*$/ },
};

export const typeHints = Object.keys(hints);

function hinted(value: string, typeHint: string | undefined): Typed {
  if (typeHint === undefined) return { type: oid.text, value };
  const { type, label, form } = hints[typeHint]!;
  if (!form.test(value)) throw databaseError(`Parse Error for ${label}: input contains invalid characters`);
  return { type, value };
}
