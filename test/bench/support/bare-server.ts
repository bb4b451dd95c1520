/**
 * The least that can stand between HTTP and Postgres: a pg pool, the Data API's shape in and out, and none of its checks, limits, types or
 * resets. What this costs no stand-in can save. First argument: the URL of the database.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { SqlParameter } from "@aws-sdk/client-rds-data";
import pg from "pg";

const pool = new pg.Pool({ connectionString: process.argv[2], max: 8 });
const asText = { getTypeParser: () => (value: string) => value };

async function answerTo(body: string): Promise<string> {
  const { sql, parameters } = JSON.parse(body) as { sql: string; parameters: SqlParameter[] };
  const values: unknown[] = [];
  const text = sql.replace(/(?<!:):(\w+)/g, (_, name: string) => {
    const { value } = parameters.find((parameter) => parameter.name === name)!;
    return `$${values.push(Object.values(value!)[0])}`;
  });
  const { rows } = await pool.query<string[]>({ text, values, rowMode: "array", types: asText });
  const records = rows.map((row) => row.map((stringValue) => ({ stringValue })));
  return JSON.stringify({ records, numberOfRecordsUpdated: 0 });
}

const server = createServer({ keepAliveTimeout: 65_000 }, (request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", async () => {
    const answer = await answerTo(Buffer.concat(chunks).toString("utf8"));
    response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(answer) });
    response.end(answer);
  });
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
