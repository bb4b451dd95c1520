import { pause } from "../../lib/clock.ts";
import type { Database } from "../../lib/database/port.ts";
import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { rounded } from "./support/measure.ts";
import { drainOurs, inOurs, invoke, nothing, settingsOf } from "./support/ours.ts";

export const about =
  "Database requests for 1,000 tasks of 100,000, as the invocation's report counts them; and of a resident's poll when nothing is due, as its database handle counts them. Counts: noise does not touch them.";

export const targets: readonly Target[] = [
  { figure: "requests per 1,000 tasks, batch 500", atMost: 2.3 },
  { figure: "requests per 1,000 tasks, batch 1000", atMost: 1.3 },
  { figure: "requests an idle poll", atLeast: 1, atMost: 1 },
];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const tasks = quick ? 10_000 : 100_000;
    const figures: Record<string, number> = {};
    for (const batch of [500, 1000]) {
      const { requests } = await drainOurs(arena, { tasks, batch, workers: 1, through: "pg" });
      figures[`requests per 1,000 tasks, batch ${batch}`] = rounded((requests * 1000) / tasks, 2);
    }
    figures["requests an idle poll"] = await inOurs(arena, ({ database }) => idle(database, quick ? 1_000 : 10_000));
    return figures;
  });

const SLEEP_MS = 100;

/** Requests that come together are one poll: those that are sent within half the sleep interval of the one before. */
async function idle(database: Database, watchMs: number): Promise<number> {
  const sentAt: number[] = [];
  const counting: Database = {
    ...database,
    query(statement, values, options) {
      sentAt.push(performance.now());
      return database.query(statement, values, options);
    },
    transaction() {
      throw new Error("An idle poll opens no transaction.");
    },
  };
  const leave = new AbortController();
  const staying = invoke(counting, [nothing.handle(() => {})], {
    slot: 0,
    settings: settingsOf(10, SLEEP_MS),
    resident: true,
    signal: leave.signal,
  });
  // What a start costs is not a poll's.
  await pause(5 * SLEEP_MS);
  sentAt.length = 0;
  await pause(watchMs);
  const polls = sentAt.filter((at, place) => place === 0 || at - sentAt[place - 1]! > SLEEP_MS / 2);
  const requests = sentAt.length;
  leave.abort();
  await staying;
  if (polls.length < watchMs / SLEEP_MS / 2) throw new Error(`Only ${polls.length} polls in ${watchMs} ms.`);
  return rounded(requests / polls.length);
}
