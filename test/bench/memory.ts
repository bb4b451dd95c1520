import { inArena } from "./support/arena.ts";
import { startFunction, withBundles } from "./support/bundles.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { rounded, rounds } from "./support/measure.ts";
import { checkHistory, fill, inOurs } from "./support/ours.ts";
import { heard } from "./support/processes.ts";
import { serveDataApi } from "./support/servers.ts";

export const about =
  "Peak resident memory of the bundled processor's process that drains 100,000 tasks of 1 KB through the SDK and the Data API stand-in, queue pop size 100; beside a bundle that imports RDSDataClient alone and sends one request. MB.";

export const targets: readonly Target[] = [{ figure: "ratio", atMost: 1.5 }];

const PAYLOAD = "jsonb_build_object('n', n, 'text', repeat('x', 1000))";

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  withBundles((paths) =>
    inArena(async (arena) => {
      const peak = (bundle: keyof typeof paths) => (tasks: number) =>
        inOurs(arena, async (ours) => {
          await fill(ours, { count: bundle === "processor" ? tasks : 1, payload: PAYLOAD });
          await ours.vacuum();
          const api = await serveDataApi(ours.url);
          try {
            const more = { TASK_PROCESSOR_QUEUE_POP_SIZE: "100" };
            const child = startFunction(paths[bundle], { endpoint: api.endpoint, database: ours.name, more });
            await heard(child);
            const { succeeded, peakBytes } = (await heard(child)) as { succeeded: number; peakBytes: number };
            if (bundle === "processor") {
              if (succeeded !== tasks) throw new Error(`${succeeded} successes of ${tasks} tasks.`);
              await checkHistory(ours, tasks);
            }
            return peakBytes / 2 ** 20;
          } finally {
            await api.stop();
          }
        });
      const median = await rounds(
        { "processor, MB": peak("processor"), "RDSDataClient alone, MB": peak("bare") },
        quick ? { tasks: 2_000, warmUp: 0, count: 1 } : { tasks: 100_000, warmUp: 100, count: 3 },
      );
      return { ...median, ratio: rounded(median["processor, MB"] / median["RDSDataClient alone, MB"], 2) };
    }),
  );
