/** What an invocation was told and what it gave back, read off its exchanges beside the product's own code. */
import type { Database, Parameters, Statement } from "../../lib/database/port.ts";

type Named = readonly [id: string, attempt: number];
type Columns = readonly unknown[];

/** Calls `told` before the product's code has seen the answer, `gaveBack` before the request is sent. */
export function overhear(
  database: Database,
  { told, gaveBack }: { told: (tasks: readonly Named[]) => void; gaveBack: (tasks: readonly Named[]) => void },
): Database {
  return {
    ...database,
    async query(statement, values, options) {
      if ((statement as Statement<Parameters>).name !== "exchange")
        return await database.query(statement, values, options);
      const { results } = JSON.parse(String((values as { request: unknown }).request)) as {
        results: readonly { id: string; attempt: number; outcome: string }[];
      };
      // Cancelled at the moment it was told, it has not started either.
      const back = results.filter(({ outcome }) => outcome === "RELEASED" || outcome === "CANCELLED");
      if (back.length > 0) gaveBack(back.map(({ id, attempt }) => [id, attempt]));
      const rows = await database.query(statement, values, options);
      const tasks = (rows as readonly { answer: string }[]).flatMap(({ answer }) => tasksIn(answer));
      if (tasks.length > 0) told(tasks);
      return rows;
    },
  };
}

/** A row holds several tasks, each its columns in order and its payload; with release 0.1.0 one, its payload among its columns. The exchange itself is an object. */
function tasksIn(answer: string): Named[] {
  const row = JSON.parse(`[${answer}]`) as readonly unknown[];
  const tasks = row.filter((part, place): part is Columns => place % 2 === 0 && Array.isArray(part));
  return tasks.map((columns) => [String(columns[0]), Number(columns[2])]);
}
