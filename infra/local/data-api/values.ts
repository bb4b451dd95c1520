import { unsupportedResult } from "./errors.ts";
import type { PostgresType } from "./types.ts";

export interface ResultSetOptions {
  decimalReturnType?: "STRING" | "DOUBLE_OR_LONG";
  longReturnType?: "STRING" | "LONG";
}

/**
 * Turns Postgres's text into the JSON text of a Field. JSON text, not an object: a bigint above 2^53 keeps
 * its digits on the wire, as it does on AWS.
 */
export type Encode = (text: string | null) => string;

export function fieldEncoder(type: PostgresType, options: ResultSetOptions): Encode {
  if (type.kind === "array") return orNull(arrayEncoder(type.element!, options));
  const { member, encode } = scalarEncoder(type, options);
  if (type.kind === "decimal" && options.decimalReturnType === "DOUBLE_OR_LONG")
    return orNull((text) => (/^-?\d+$/.test(text) ? `{"longValue":${text}}` : `{"doubleValue":${double(text)}}`));
  return orNull((text) => `{"${member}Value":${encode(text)}}`);
}

/** The JSON value itself, for formatRecordsAs JSON. */
export function jsonEncoder(type: PostgresType, options: ResultSetOptions): Encode {
  if (type.kind === "array") {
    const { encode } = scalarEncoder(type.element!, options);
    return (text) =>
      text === null
        ? "null"
        : `[${elementsOf(text)
            .map((e) => (e === null ? "null" : encode(e)))
            .join(",")}]`;
  }
  const { encode } = scalarEncoder(type, options);
  return (text) => (text === null ? "null" : encode(text));
}

const orNull =
  (encode: (text: string) => string): Encode =>
  (text) =>
    text === null ? '{"isNull":true}' : encode(text);

function scalarEncoder(
  type: PostgresType,
  options: ResultSetOptions,
): { member: string; encode: (text: string) => string } {
  switch (type.kind) {
    case "boolean":
      return { member: "boolean", encode: (text) => (text === "t" ? "true" : "false") };
    case "long":
      if (options.longReturnType === "STRING") return { member: "string", encode: (text) => JSON.stringify(text) };
      return { member: "long", encode: (text) => text };
    case "double":
      return { member: "double", encode: double };
    case "decimal":
      if (options.decimalReturnType === "DOUBLE_OR_LONG") return { member: "double", encode: double };
      return { member: "string", encode: (text) => JSON.stringify(text) };
    case "timestamp":
      return { member: "string", encode: (text) => JSON.stringify(utcWithoutZone(text)) };
    case "blob":
      return { member: "blob", encode: (text) => `"${Buffer.from(text.slice(2), "hex").toString("base64")}"` };
    case "string":
      return { member: "string", encode: (text) => JSON.stringify(text) };
    default:
      throw unsupportedResult(`The result contains the unsupported data type ${type.name}.`);
  }
}

/** JSON has no NaN and no Infinity: AWS writes them as strings, and its SDKs read them back as numbers. */
const double = (text: string) => (/^-?(?:NaN|Infinity)$/.test(text) ? `"${text}"` : text);

function arrayEncoder(element: PostgresType, options: ResultSetOptions): (text: string) => string {
  const { member, encode } = scalarEncoder(element, options);
  // An ArrayValue has no list of blobs.
  const list = member === "blob" ? "string" : member;
  return (text) => {
    const values = elementsOf(text).map((value) => (value === null ? "null" : encode(value)));
    return `{"arrayValue":{"${list}Values":[${values.join(",")}]}}`;
  };
}

/** The elements of a one-dimensional array literal. */
function elementsOf(text: string): Array<string | null> {
  // "[2:4]={...}" when the lower bound is not 1
  const body = text.startsWith("[") ? text.slice(text.indexOf("=") + 1) : text;
  if (body === "{}") return [];
  if (body[1] === "{") throw unsupportedResult("The result contains a multidimensional array, which is not supported.");
  const elements: Array<string | null> = [];
  for (const [, quoted, plain] of body.slice(1, -1).matchAll(/"((?:[^"\\]|\\[\s\S])*)"|([^,"]+)/g)) {
    if (quoted !== undefined) elements.push(quoted.replace(/\\([\s\S])/g, "$1"));
    else elements.push(plain === "NULL" ? null : plain!);
  }
  return elements;
}

const timestamp = /^(\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d+))?([+-]\d\d(?::\d\d){0,2})?( BC)?$/;

/** YYYY-MM-DD HH:MM:SS with no, 3 or 6 fraction digits. The session is in UTC unless the statement changed it. */
export function utcWithoutZone(text: string): string {
  const [, seconds, fraction = "", zone, era = ""] = timestamp.exec(text) ?? [];
  if (seconds === undefined) return text; // infinity
  const digits = fraction === "" ? "" : `.${fraction.padEnd(fraction.length > 3 ? 6 : 3, "0")}`;
  const utc = zone === undefined || zone === "+00" || era !== "" ? seconds : shifted(seconds, zone);
  return `${utc}${digits}${era}`;
}

function shifted(seconds: string, zone: string): string {
  const [hours = 0, minutes = 0, rest = 0] = zone.slice(1).split(":").map(Number);
  const offset = (hours * 3600 + minutes * 60 + rest) * (zone[0] === "-" ? -1 : 1);
  const utc = new Date(Date.parse(`${seconds.replace(" ", "T")}Z`) - offset * 1000);
  return utc.toISOString().slice(0, 19).replace("T", " ");
}
