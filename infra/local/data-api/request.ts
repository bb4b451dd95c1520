import type { IncomingMessage } from "node:http";
import { ApiError, constraint, validation } from "./errors.ts";
import { type SqlParameter, typeHints } from "./parameters.ts";
import type { ResultSetOptions } from "./values.ts";

export interface Request {
  resourceArn: string;
  secretArn: string;
  database?: string;
  schema?: string;
  sql: string;
  parameters: SqlParameter[];
  parameterSets: SqlParameter[][];
  transactionId?: string;
  includeResultMetadata?: boolean;
  continueAfterTimeout?: boolean;
  resultSetOptions?: ResultSetOptions;
  formatRecordsAs?: "NONE" | "JSON";
}

export type Operation =
  | "ExecuteStatement"
  | "BatchExecuteStatement"
  | "BeginTransaction"
  | "CommitTransaction"
  | "RollbackTransaction";

const operations = new Map<string, Operation>([
  ["/Execute", "ExecuteStatement"],
  ["/BatchExecute", "BatchExecuteStatement"],
  ["/BeginTransaction", "BeginTransaction"],
  ["/CommitTransaction", "CommitTransaction"],
  ["/RollbackTransaction", "RollbackTransaction"],
]);

export const pathOf = (url: string): string => url.split("?")[0]!;

export const operationNamed = ({ method, url = "" }: IncomingMessage): Operation | undefined =>
  method === "POST" ? operations.get(pathOf(url)) : undefined;

const required: Record<Operation, string[]> = {
  ExecuteStatement: ["resourceArn", "secretArn", "sql"],
  BatchExecuteStatement: ["resourceArn", "secretArn", "sql"],
  BeginTransaction: ["resourceArn", "secretArn"],
  CommitTransaction: ["resourceArn", "secretArn", "transactionId"],
  RollbackTransaction: ["resourceArn", "secretArn", "transactionId"],
};

/** Shortest and longest, in characters. */
const lengths: Record<string, [number, number]> = {
  resourceArn: [11, 100],
  secretArn: [11, 100],
  sql: [0, 65_536],
  database: [0, 64],
  schema: [0, 64],
  transactionId: [0, 192],
};

const serialization = (message: string) => new ApiError("SerializationException", 400, message);

export function readRequest(operation: Operation, body: string): Request {
  const input = parse(body);
  for (const name of [...Object.keys(lengths), "formatRecordsAs"]) expect(input, name, "string");
  for (const name of ["includeResultMetadata", "continueAfterTimeout"]) expect(input, name, "boolean");
  for (const name of required[operation]) if (input[name] === undefined) throw constraint("null", name, "not be null");
  for (const [name, [shortest, longest]] of Object.entries(lengths)) {
    const length = (input[name] as string | undefined)?.length ?? shortest;
    if (length < shortest)
      throw constraint(`'${input[name]}'`, name, `have length greater than or equal to ${shortest}`);
    if (length > longest) throw constraint("'...'", name, `have length less than or equal to ${longest}`);
  }
  oneOf(input, "formatRecordsAs", ["NONE", "JSON"]);
  if (input.schema !== undefined) throw validation("The schema parameter isn't supported");
  return {
    ...(input as unknown as Request),
    resultSetOptions: resultSetOptions(input),
    parameters: parameterList(input.parameters, "parameters"),
    parameterSets: list(input.parameterSets, "parameterSets").map((set, index) =>
      parameterList(set, `parameterSets.${index + 1}.member`),
    ),
  };
}

function parse(body: string): Record<string, unknown> {
  let input: unknown;
  try {
    input = JSON.parse(body === "" ? "{}" : body, /:\s*-?\d{16,}/.test(body) ? keepDigits : undefined);
  } catch {
    throw serialization("Unable to parse the request body as JSON");
  }
  return dropNulls(object(input, "request"));
}

/** A longValue above 2^53 keeps its digits, whoever sent it. */
function keepDigits(key: string, value: unknown, context?: { source?: string }): unknown {
  return key === "longValue" && typeof value === "number" && context?.source ? BigInt(context.source) : value;
}

/** AWS takes a null member for an absent one. */
function dropNulls(input: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== null && value !== undefined));
}

function object(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw serialization(`Expected a JSON object for ${name}`);
  return value as Record<string, unknown>;
}

function list(value: unknown, name: string): unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw serialization(`Expected a JSON array for ${name}`);
  return value;
}

function expect(input: Record<string, unknown>, name: string, type: "string" | "boolean"): void {
  if (input[name] !== undefined && typeof input[name] !== type) throw serialization(`Expected a ${type} for ${name}`);
}

function oneOf(input: Record<string, unknown>, name: string, values: string[], within = ""): void {
  const value = input[name];
  if (value !== undefined && !values.includes(String(value)))
    throw constraint(`'${value}'`, `${within}${name}`, `satisfy enum value set: [${values.join(", ")}]`);
}

function resultSetOptions(input: Record<string, unknown>): ResultSetOptions {
  if (input.resultSetOptions === undefined) return {};
  const options = dropNulls(object(input.resultSetOptions, "resultSetOptions"));
  oneOf(options, "decimalReturnType", ["STRING", "DOUBLE_OR_LONG"]);
  oneOf(options, "longReturnType", ["STRING", "LONG"]);
  return options;
}

/** Each is judged, also one that the statement does not name. */
function parameterList(value: unknown, where: string): SqlParameter[] {
  return list(value, where).map((item, index) => {
    const parameter = dropNulls(object(item, where));
    expect(parameter, "name", "string");
    expect(parameter, "typeHint", "string");
    if (parameter.typeHint !== undefined) oneOf(parameter, "typeHint", typeHints, `${where}.${index + 1}.member.`);
    const field = dropNulls(object(parameter.value ?? {}, `${where}.value`));
    checkField(field, parameter.name);
    return { ...parameter, value: field };
  });
}

/** Infinity and NaN come as strings, because JSON has none. */
const notFinite = ["NaN", "Infinity", "-Infinity"];

const members: Record<string, (value: unknown) => boolean> = {
  isNull: (value) => typeof value === "boolean",
  booleanValue: (value) => typeof value === "boolean",
  longValue: (value) => typeof value === "bigint" || Number.isInteger(value),
  doubleValue: (value) => typeof value === "number" || notFinite.includes(String(value)),
  stringValue: (value) => typeof value === "string",
  blobValue: (value) => typeof value === "string" && /^[A-Za-z0-9+/]*={0,2}$/.test(value),
  arrayValue: (value) => typeof value === "object",
};

function checkField(field: Record<string, unknown>, parameter: unknown): void {
  const [name, ...more] = Object.keys(field);
  if (more.length > 0) throw validation(`Parameter "${parameter}" has more than one field set`);
  if (name === undefined || !Object.hasOwn(members, name)) throw noField(parameter);
  if (!members[name]!(field[name])) throw serialization(`Unexpected value for ${name}`);
  if (name === "arrayValue") throw validation("Array parameters are not supported.");
  if (name === "isNull" && field.isNull === false) throw noField(parameter);
}

const noField = (parameter: unknown) => validation(`Parameter "${parameter}" has value with no field set`);
