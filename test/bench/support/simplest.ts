/** What Postgres itself gives: the writes of a drain by the simplest prepared statements, from connections that know beforehand which tasks are theirs. */
import { randomUUID } from "node:crypto";
import pg from "pg";
import type { Arena } from "./arena.ts";
import { checkHistory, fill, inOurs } from "./ours.ts";

const BATCH = 1000;

const ENDED = `INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result, task_outcome)
  SELECT id, 1, identifier, $2, now(), now(), 'SUCCESS', 'SUCCEEDED' FROM done`;

const STATEMENTS = {
  /** The task goes, its run is kept. */
  "delete and insert": `WITH done AS (DELETE FROM task WHERE id = ANY ($1) RETURNING id, identifier) ${ENDED}`,
  /** And the next batch is marked as held, and read. */
  "claim, delete and insert": `WITH claimed AS (
    UPDATE task SET held_by = $2, held_since = now(), claim_seq = 1, attempt = 1, max_attempts = 3 WHERE id = ANY ($3) RETURNING id, payload),
  done AS (DELETE FROM task WHERE id = ANY ($1) RETURNING id, identifier),
  run AS (${ENDED})
  SELECT * FROM claimed`,
} as const;

/**
 * Tasks a second.
 * @param payload SQL over n
 */
export const drainSimply = (
  arena: Arena,
  name: keyof typeof STATEMENTS,
  tasks: number,
  payload?: string,
): Promise<number> =>
  inOurs(arena, async (ours) => {
    await fill(ours, payload === undefined ? { count: tasks } : { count: tasks, payload });
    await ours.vacuum();
    const { rows } = await ours.client.query<{ id: string }>("SELECT id FROM task ORDER BY id");
    const batches = Array.from({ length: tasks / BATCH }, (_, batch) =>
      rows.slice(batch * BATCH, (batch + 1) * BATCH).map(({ id }) => id),
    );
    const clients = [0, 1].map(
      () => new pg.Client({ connectionString: ours.url, options: "-c search_path=task_processor" }),
    );
    await Promise.all(clients.map((client) => client.connect()));
    const me = randomUUID();
    const startedAt = performance.now();
    await Promise.all(
      clients.map(async (client, first) => {
        // Every other batch; while it ends one it claims the next.
        const mine = batches.filter((_, batch) => batch % 2 === first);
        const send = (ending: readonly string[], claiming: readonly string[]) =>
          client.query({
            name,
            text: STATEMENTS[name],
            values: name === "delete and insert" ? [ending, me] : [ending, me, claiming],
          });
        if (name !== "delete and insert") await send([], mine[0]!);
        for (const [place, batch] of mine.entries()) await send(batch, mine[place + 1] ?? []);
      }),
    );
    const seconds = (performance.now() - startedAt) / 1000;
    await Promise.all(clients.map((client) => client.end()));
    await checkHistory(ours, tasks);
    return tasks / seconds;
  });
