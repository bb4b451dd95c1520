import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { interleaved, interleavedTimes, rounded } from "./support/measure.ts";
import { fill, inOursEach } from "./support/ours.ts";
import { clockClaim, speakerFor } from "./support/speaker.ts";

export const about =
  "An exchange that claims 500 tasks with so many due (each taken is replaced), over pg, median; and one that finds nothing with 1 M tasks in the future, beside an empty table. Milliseconds.";

const BATCH = 500;

export const targets: readonly Target[] = [
  { figure: "claim, most due to second fewest, ratio", atMost: 1.25 },
  { figure: "empty claim, future tasks to none, ratio", atMost: 2 },
];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const sizes = quick ? [1_000, 10_000] : [1_000, 100_000, 1_000_000, 5_000_000];
    const future = quick ? 10_000 : 1_000_000;
    const claims = await inOursEach(arena, sizes.map(String), async (each) => {
      const contestants: Record<string, () => Promise<number>> = {};
      for (const [size, ours] of Object.entries(each)) {
        await fill(ours, { count: Number(size) });
        await ours.vacuum();
        const speaker = await speakerFor(ours.database);
        contestants[size] = () => clockClaim(ours, speaker, BATCH);
      }
      return await interleavedTimes(
        contestants,
        quick ? { rounds: 1, calls: 2 } : { rounds: 20, calls: 5, warmUp: 10 },
      );
    });
    const empty = await inOursEach(arena, ["none", "future"], async (each) => {
      await fill(each.future!, { count: future, scheduledFor: "now() + interval '1 day'" });
      const looks: Record<string, () => Promise<void>> = {};
      for (const [name, ours] of Object.entries(each)) {
        await ours.vacuum();
        const speaker = await speakerFor(ours.database);
        looks[name] = async () => {
          if ((await speaker.say({ want: BATCH })).tasks.length > 0) throw new Error("Claimed what is not due.");
        };
      }
      return await interleaved(looks, quick ? { rounds: 1, calls: 10 } : { rounds: 20, calls: 50 });
    });
    return {
      ...Object.fromEntries(sizes.map((size) => [`claim, ${size} due, ms`, rounded(claims[size]!.median, 2)])),
      "claim, most due to second fewest, ratio": rounded(claims[sizes.at(-1)!]!.median / claims[sizes[1]!]!.median, 2),
      "empty claim, empty table, ms": rounded(empty.none!.median, 2),
      [`empty claim, ${future} in the future, ms`]: rounded(empty.future!.median, 2),
      "empty claim, future tasks to none, ratio": rounded(empty.future!.median / empty.none!.median, 2),
    };
  });
