import pg from "pg";
import { type Arena, inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { fillGraphile, GRAPHILE, inGraphile, runGraphile } from "./support/graphile.ts";
import { quantile, rounded } from "./support/measure.ts";
import { checkHistory, fill, inOurs, invoke, nothing, settingsOf } from "./support/ours.ts";
import { Tally } from "./support/tally.ts";

export const about = `1 M no-op tasks drained while a REPEATABLE READ snapshot stays open, so that no dead row can be removed: tasks a second in the first and the last tenth. Ours: queue pop size 1000, two workers, over pg. ${GRAPHILE.batching.text}.`;

export const targets: readonly Target[] = [{ figure: "ours, last tenth to first, ratio", atLeast: 0.9 }];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const tasks = quick ? 10_000 : 1_000_000;
    const ours: number[][] = [];
    const graphile: number[][] = [];
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      ours.push(await drainOurs(arena, tasks));
      graphile.push(await drainGraphile(arena, tasks));
    }
    return { ...tenths("ours", ours), ...tenths("graphile-worker", graphile) };
  });

/** Of several drains, each with its tenths. */
function tenths(who: string, drains: readonly number[][]): Figures {
  const median = (pick: (drain: readonly number[]) => number) => quantile(drains.map(pick), 0.5);
  return {
    [`${who}, first tenth`]: Math.round(median((drain) => drain[0]!)),
    [`${who}, last tenth`]: Math.round(median((drain) => drain.at(-1)!)),
    [`${who}, last tenth to first, ratio`]: rounded(
      median((drain) => drain.at(-1)! / drain[0]!),
      2,
    ),
  };
}

const drainOurs = (arena: Arena, tasks: number): Promise<number[]> =>
  inOurs(arena, async (own) => {
    await fill(own, { count: tasks });
    await own.vacuum();
    const tally = new Tally("ours", tasks);
    const handlers = [nothing.handle(({ n }) => tally.run(n))];
    await underOldSnapshot(own.url, () =>
      Promise.all([0, 1].map((slot) => invoke(own.database, handlers, { slot, settings: settingsOf(1000) }))),
    );
    tally.check();
    await checkHistory(own, tasks);
    return tally.tenths();
  });

const drainGraphile = (arena: Arena, tasks: number): Promise<number[]> =>
  inGraphile(arena, async ({ url, utils, vacuum }) => {
    await fillGraphile(utils, tasks);
    await vacuum();
    const tally = new Tally("graphile-worker", tasks);
    await underOldSnapshot(url, async () => {
      const runner = await runGraphile(url, "batching", {
        nothing: (payload) => tally.run((payload as { n: number }).n),
      });
      await tally.finished;
      await runner.stop();
    });
    tally.check();
    return tally.tenths();
  });

async function underOldSnapshot(url: string, work: () => Promise<unknown>): Promise<void> {
  const holder = new pg.Client({ connectionString: url });
  await holder.connect();
  try {
    await holder.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await holder.query("SELECT count(*) FROM pg_class");
    await work();
    await holder.query("COMMIT");
  } finally {
    await holder.end();
  }
}
