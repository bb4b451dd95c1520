import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { rounded, rounds } from "./support/measure.ts";
import { checkHistory, fill, inOurs } from "./support/ours.ts";
import { startWorker } from "./support/processes.ts";

export const about =
  "100,000 no-op tasks drained by 1, 2, 4 and 8 invocations, each a process of its own as on Lambda, queue pop size 500, over pg, on this machine's cores with Postgres on them too; tasks a second from the word go.";

const SLOTS = [1, 2, 4, 8];

export const targets: readonly Target[] = [{ figure: "8 to the best, ratio", atLeast: 0.7 }];

export const charted = SLOTS.map((slots) => `slots ${slots}`);

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const drain = (slots: number) => (tasks: number) =>
      inOurs(arena, async (ours) => {
        await fill(ours, { count: tasks });
        await ours.vacuum();
        const workers = await Promise.all(Array.from({ length: slots }, (_, slot) => startWorker(ours.url, slot, 500)));
        const startedAt = performance.now();
        const ended = await Promise.all(workers.map((worker) => worker.go()));
        const seconds = (performance.now() - startedAt) / 1000;
        const ran = ended.reduce((sum, { succeeded }) => sum + succeeded, 0);
        if (ran !== tasks) throw new Error(`${ran} successes of ${tasks} tasks.`);
        await checkHistory(ours, tasks);
        return tasks / seconds;
      });
    const median = await rounds(
      Object.fromEntries(SLOTS.map((slots) => [`slots ${slots}`, drain(slots)])),
      quick ? { tasks: 2_000, warmUp: 0, count: 1 } : { tasks: 100_000, warmUp: 5_000, count: 5 },
    );
    return { ...median, "8 to the best, ratio": rounded(median["slots 8"]! / Math.max(...Object.values(median)), 2) };
  });
