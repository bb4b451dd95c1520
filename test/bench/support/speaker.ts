/** An invocation that speaks one exchange at a time: what is clocked is the exchange, and nothing of the worker around it. */
import type { Database } from "../../../lib/database/port.ts";
import { registerRelease } from "../../../lib/sql/exchange.ts";
import type { TestDatabase } from "../../support/database.ts";
import { Speaker, success } from "../../support/exchange.ts";
import { timed } from "./measure.ts";
import { fill, nothing, type Ours } from "./ours.ts";

/** `nothing` and others, with the release that knows them registered. */
export async function speakerFor(
  database: Database,
  tasks: readonly { identifier: string; timeoutMs?: number; concurrency?: number }[] = [
    { identifier: nothing.identifier },
  ],
): Promise<Speaker> {
  const release = JSON.stringify(tasks);
  await database.query(registerRelease, {
    request: JSON.stringify({
      release,
      tasks: tasks.map((task) => ({ timeoutMs: 60_000, maxAttempts: 3, ...task })),
    }),
  });
  return new Speaker({ database } as TestDatabase, { release });
}

/**
 * Milliseconds of a claim. Untimed after it: the results are handed in, and as many tasks stored as were taken, so that the next finds as many.
 * @throws Error when it brings less than it should
 */
export async function clockClaim(ours: Ours, speaker: Speaker, want: number, words: object = {}): Promise<number> {
  let answer: Awaited<ReturnType<Speaker["say"]>> | undefined;
  const took = await timed(async () => {
    answer = await speaker.say({ want, ...words });
  });
  const tasks = answer!.tasks.filter(({ identifier }) => identifier === nothing.identifier);
  if (tasks.length !== want) throw new Error(`Claimed ${tasks.length} of ${want}.`);
  const { succeeded } = answer!;
  const after = await speaker.say({ want: 0, results: tasks.map(success) });
  if (after.succeeded - succeeded !== want) throw new Error(`Handed in ${after.succeeded - succeeded} of ${want}.`);
  await fill(ours, { count: want, scheduledFor: "clock_timestamp()" });
  return took;
}
