import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { interleavedTimes, rounded } from "./support/measure.ts";
import { fill, inOursEach, nothing, type Ours } from "./support/ours.ts";
import { clockClaim, speakerFor } from "./support/speaker.ts";

export const about =
  "An exchange that claims the 100 tasks that may run, with 1 M due in front of them that may not, over pg, median; beside one with none in front. Milliseconds.";

const MAY_RUN = 100;
const IN_FRONT = "bench.in-front";
const BLOCKS = ["paused", "unknown", "limited", "too long"] as const;
type Block = (typeof BLOCKS)[number];

export const targets: readonly Target[] = BLOCKS.map((block) => ({
  figure: `${block} to none in front, ratio`,
  atMost: 2,
}));

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const count = quick ? 10_000 : 1_000_000;
    const times = await inOursEach(arena, ["none", ...BLOCKS], async (each) => {
      const contestants: Record<string, () => Promise<number>> = {};
      for (const [name, ours] of Object.entries(each)) contestants[name] = await claiming(ours, name as Block, count);
      return await interleavedTimes(
        contestants,
        quick ? { rounds: 1, calls: 2 } : { rounds: 20, calls: 5, warmUp: 10 },
      );
    });
    const figures: Record<string, number> = { "none in front, ms": rounded(times.none!.median, 2) };
    for (const block of BLOCKS) {
      figures[`${block}, ms`] = rounded(times[block]!.median, 2);
      figures[`${block} to none in front, ratio`] = rounded(times[block]!.median / times.none!.median, 2);
    }
    return figures;
  });

/** Those in front are more urgent and due for longer. */
async function claiming(ours: Ours, block: Block | "none", count: number): Promise<() => Promise<number>> {
  if (block !== "none") await fill(ours, { count, identifier: IN_FRONT, priority: "0" });
  await fill(ours, { count: MAY_RUN, scheduledFor: "clock_timestamp()" });
  await ours.vacuum();
  const front = {
    none: { identifier: IN_FRONT },
    paused: { identifier: IN_FRONT },
    unknown: undefined,
    limited: { identifier: IN_FRONT, concurrency: 1 },
    "too long": { identifier: IN_FRONT, timeoutMs: 600_000 },
  }[block];
  const speaker = await speakerFor(ours.database, [
    { identifier: nothing.identifier },
    ...(front === undefined ? [] : [front]),
  ]);
  if (block === "paused") await ours.client.query("INSERT INTO paused_identifier (identifier) VALUES ($1)", [IN_FRONT]);
  // It holds the one that may run, and keeps it.
  if (block === "limited" && (await speaker.say({ want: 1 })).tasks[0]?.identifier !== IN_FRONT)
    throw new Error("The first claim did not bring the limited task.");
  return () => clockClaim(ours, speaker, MAY_RUN, block === "too long" ? { remainingMs: 120_000 } : {});
}
