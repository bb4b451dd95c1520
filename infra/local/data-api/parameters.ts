import { databaseError, validation } from "./errors.ts";
import { readStatement } from "./statement.ts";
import { oid } from "./types.ts";

export interface SqlParameter {
  name?: string;
  value?: Record<string, unknown>;
  typeHint?: string;
}

/** Text with $1, $2 ... and, for each of them, the declared type and the value. */
export interface Bound {
  text: string;
  types: number[];
  values: Array<string | Buffer | null>;
}

export function bind(sql: string, parameters: SqlParameter[]): Bound {
  const { parts, names } = readStatement(sql);
  const given = new Map(parameters.map((parameter) => [parameter.name, parameter]));
  const positions = new Map<string, number>();
  const bound: Bound = { text: parts[0]!, types: [], values: [] };
  names.forEach((name, index) => {
    bound.text += place(name, given, positions, bound) + parts[index + 1];
  });
  return bound;
}

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
function typed({ name, value = {}, typeHint }: SqlParameter): Typed {
  const [member, ...more] = Object.keys(value).filter((key) => value[key] !== undefined && value[key] !== null);
  if (member === undefined || more.length > 0)
    throw validation(`Parameter "${name}" has ${more.length > 0 ? "more than one field" : "value with no field"} set`);
  const content = value[member];
  switch (member) {
    case "isNull":
      if (content !== true) throw validation(`Parameter "${name}" has value with no field set`);
      return { type: typeHint === undefined ? oid.untyped : hintOf(typeHint).type, value: null };
    case "booleanValue":
      return { type: oid.bool, value: content ? "t" : "f" };
    case "longValue":
      return { type: oid.int8, value: String(content) };
    case "doubleValue":
      return { type: oid.float8, value: String(content) };
    case "blobValue":
      return { type: oid.bytea, value: Buffer.from(content as string, "base64") };
    case "stringValue":
      return hinted(content as string, typeHint);
    case "arrayValue":
      throw validation("Array parameters are not supported.");
    default:
      throw validation(`Parameter "${name}" has value with no field set`);
  }
}

const hints: Record<string, { type: number; label: string; form: RegExp }> = {
  UUID: { type: oid.uuid, label: "UUID", form: /^[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}$/i },
  DECIMAL: { type: oid.numeric, label: "Decimal", form: /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i },
  DATE: { type: oid.date, label: "Date", form: /^\d{4}-\d\d-\d\d$/ },
  TIME: { type: oid.time, label: "Time", form: /^\d\d:\d\d:\d\d(?:\.\d{1,6})?$/ },
  TIMESTAMP: { type: oid.timestamp, label: "TimeStamp", form: /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?$/ },
  JSON: { type: oid.jsonb, label: "JSON", form: /^[\s\S]*$/ },
};

function hintOf(typeHint: string) {
  const hint = Object.hasOwn(hints, typeHint) ? hints[typeHint] : undefined;
  if (!hint)
    throw validation(
      `1 validation error detected: Value '${typeHint}' at 'parameters.1.member.typeHint' failed to satisfy constraint: Member must satisfy enum value set: [${Object.keys(hints).join(", ")}]`,
    );
  return hint;
}

function hinted(value: string, typeHint: string | undefined): Typed {
  if (typeHint === undefined) return { type: oid.text, value };
  const { type, label, form } = hintOf(typeHint);
  if (!form.test(value)) throw databaseError(`Parse Error for ${label}: input contains invalid characters`);
  return { type, value };
}
