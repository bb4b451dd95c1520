import * as core from "zod/v4/core";
import { StintError } from "./errors.ts";
import type { PayloadSchema } from "./task.ts";

/** Most bytes of a payload as Postgres writes jsonb: one limit for both adapters, and a CHECK in the database. */
export const PAYLOAD_BYTES = 49_152;

/** NUL and lone surrogates, as JSON.stringify escapes them: jsonb takes neither. */
const NOT_STORABLE = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/i;

/**
 * The payload as JSON text, checked as the handler will see it: after a round trip through JSON.
 * @throws StintError payload_not_json | payload_too_large | payload_invalid
 */
export function encodePayload(identifier: string, schema: PayloadSchema, payload: unknown): string {
  const text = toJson(identifier, payload);
  // Before it is sent: what the database refuses ends the caller's transaction.
  const bytes = storedBytes(text);
  if (bytes > PAYLOAD_BYTES) throw tooLarge(identifier, bytes);
  const problem = check(schema, JSON.parse(text));
  if (problem !== undefined)
    throw new StintError("payload_invalid", `${identifier}: the payload does not fit its schema. ${problem}`);
  return text;
}

export type Decoded = { readonly payload: unknown } | { readonly problem: string };

/** What the handler is given: the schema's output for a stored payload, or why there is none. */
export function decodePayload(schema: PayloadSchema, stored: unknown): Decoded {
  try {
    const result = core.safeParse(schema, stored);
    return result.success ? { payload: result.data } : { problem: core.prettifyError(result.error) };
  } catch (cause) {
    return { problem: cause instanceof Error ? cause.message : String(cause) };
  }
}

/** Most bytes of a result or a progress report as JSON text. */
export const REPORT_BYTES = 4096;

/** A result or a progress report as it can be stored; undefined where it cannot. */
export function encodeReport(value: unknown): unknown {
  try {
    const text = JSON.stringify(value);
    if (text === undefined || Buffer.byteLength(text) > REPORT_BYTES || NOT_STORABLE.test(text)) return undefined;
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const EXPONENT = /\de[+-]\d/;
/** A string, passed over; what Postgres puts a space after; a number that it writes out. */
const GROWS = /"(?:[^"\\]+|\\.)*"|[,:]|(-?)(\d)(?:\.(\d+))?e([+-]\d+)/g;

/** Bytes of JSON.stringify's text as Postgres writes jsonb. */
export function storedBytes(text: string): number {
  const bytes = Buffer.byteLength(text);
  if (2 * bytes <= PAYLOAD_BYTES && !EXPONENT.test(text)) return bytes;
  let grown = bytes;
  for (const [token, sign, , decimals, exponent] of text.matchAll(GROWS)) {
    if (exponent !== undefined) grown += writtenOut(sign!, decimals ?? "", Number(exponent)) - token.length;
    else if (token === "," || token === ":") grown += 1;
  }
  return grown;
}

/** JSON.stringify uses an exponent from 21 up, where there are no more digits than places, and below -6. */
const writtenOut = (sign: string, decimals: string, exponent: number): number =>
  sign.length + (exponent > 0 ? exponent + 1 : 2 - exponent + decimals.length);

export const tooLarge = (identifier: string, bytes?: number): StintError =>
  new StintError(
    "payload_too_large",
    `${identifier}: the payload has ${bytes === undefined ? "too many" : bytes} bytes as Postgres writes it (a space after each comma and colon, numbers written out), at most ${PAYLOAD_BYTES} are allowed. Put large data into an object store and its key into the payload: README, "More than 48 KiB".`,
  );

function check(schema: PayloadSchema, value: unknown): string | undefined {
  const decoded = decodePayload(schema, value);
  return "problem" in decoded ? decoded.problem : undefined;
}

function toJson(identifier: string, payload: unknown): string {
  const refuse = (why: string, cause?: unknown): never => {
    throw new StintError("payload_not_json", `${identifier}: the payload is not JSON: ${why}`, { cause });
  };
  let text: string | undefined;
  try {
    text = JSON.stringify(payload);
  } catch (cause) {
    refuse(cause instanceof Error ? cause.message : String(cause), cause);
  }
  if (text === undefined) return refuse(`${typeof payload} has no JSON form.`);
  if (NOT_STORABLE.test(text)) refuse("a string in it holds NUL or a lone surrogate, which Postgres cannot store.");
  return text;
}
