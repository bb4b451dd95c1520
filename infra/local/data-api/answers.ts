import { unsupportedResult } from "./errors.ts";
import { columnMetadata } from "./metadata.ts";
import type { Request } from "./request.ts";
import type { Result, Session } from "./session.ts";
import { type Encode, fieldEncoder, jsonEncoder } from "./values.ts";

const responseBytes = 1024 * 1024;

/** The body of ExecuteStatement's answer, as JSON text. */
export async function executeAnswer(request: Request, result: Result, session: Session): Promise<string> {
  const { columns, rows } = result;
  if (columns === undefined) return `{"generatedFields":[],"numberOfRecordsUpdated":${recordsUpdated(result.tag)}}`;
  if (result.rowBytes > responseBytes) throw tooLarge();
  const types = await session.typesOf(columns);
  const json = request.formatRecordsAs === "JSON";
  const encoders = types.map((type) => (json ? jsonEncoder : fieldEncoder)(type, request.resultSetOptions ?? {}));
  const labels = columns.map(({ name }) => name);
  const parts = ['"numberOfRecordsUpdated":0'];
  if (json) parts.unshift(`"formattedRecords":${JSON.stringify(formatted(labels, rows, encoders))}`);
  else {
    parts.unshift(
      `"records":[${rows.map((row) => `[${row.map((text, at) => encoders[at]!(text)).join(",")}]`).join(",")}]`,
    );
    if (request.includeResultMetadata)
      parts.push(`"columnMetadata":${JSON.stringify(await columnMetadata(session, columns, types))}`);
  }
  const body = `{${parts.join(",")}}`;
  if (Buffer.byteLength(body) > responseBytes) throw tooLarge();
  return body;
}

const tooLarge = () => unsupportedResult("Database returned more than the allowed response size limit");

function formatted(labels: string[], rows: Array<Array<string | null>>, encoders: Encode[]): string {
  if (new Set(labels).size < labels.length)
    throw unsupportedResult(
      "The result contains duplicate column labels, which formatRecordsAs JSON does not support.",
    );
  const keys = labels.map((label) => `${JSON.stringify(label)}:`);
  return `[${rows.map((row) => `{${row.map((text, at) => keys[at] + encoders[at]!(text)).join(",")}}`).join(",")}]`;
}

/** "INSERT 0 3", "UPDATE 3"; of statements that change no rows the tag ends in none, or in what they read. */
function recordsUpdated(tag: string): number {
  const [, count] = /^(?:INSERT \d+|UPDATE|DELETE|MERGE) (\d+)$/.exec(tag) ?? [];
  return Number(count ?? 0);
}
