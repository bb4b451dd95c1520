import { Agent, get } from "node:http";
import { inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { rounded, rounds } from "./support/measure.ts";
import { checkHistory, fill, inOurs, invoke, nothing, settingsOf } from "./support/ours.ts";
import { type Server, serveAnswer } from "./support/servers.ts";
import { Tally } from "./support/tally.ts";

const LANES = 100;
const WAIT_MS = 50;

export const about = `Tasks that wait ${WAIT_MS} ms for an answer over HTTP, one worker, queue pop size ${LANES}, over pg; tasks a second. Ideal: ${LANES} loops of the same calls with nothing else to do, which is what full lanes give on this machine; by arithmetic it is ${(LANES * 1000) / WAIT_MS}.`;

export const targets: readonly Target[] = [{ figure: "share of the ideal", atLeast: 0.95 }];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const server = await serveAnswer("{}", WAIT_MS);
    try {
      const median = await rounds(
        {
          ours: (tasks) =>
            inOurs(arena, async (ours) => {
              await fill(ours, { count: tasks });
              await ours.vacuum();
              const call = caller(server);
              const tally = new Tally("ours", tasks);
              const handler = nothing.handle(async ({ n }) => {
                await call();
                tally.run(n);
              });
              const startedAt = performance.now();
              await invoke(ours.database, [handler], { slot: 0, settings: settingsOf(LANES) });
              const seconds = (performance.now() - startedAt) / 1000;
              tally.check();
              await checkHistory(ours, tasks);
              return tasks / seconds;
            }),
          ideal: (tasks) => loops(server, tasks),
        },
        quick ? { tasks: 2_000, warmUp: 0, count: 1 } : { tasks: 20_000, warmUp: 2_000, count: 5 },
      );
      return {
        ...median,
        "share of the ideal": rounded(median.ours / median.ideal),
        "share of the arithmetic ideal": rounded(median.ours / ((LANES * 1000) / WAIT_MS)),
      };
    } finally {
      await server.stop();
    }
  });

/** As an application calls: over connections that are kept. */
function caller({ endpoint }: Server): () => Promise<void> {
  const agent = new Agent({ keepAlive: true });
  return () =>
    new Promise((resolve, reject) => {
      get(endpoint, { agent }, (response) => response.resume().on("end", resolve).on("error", reject)).on(
        "error",
        reject,
      );
    });
}

async function loops(server: Server, calls: number): Promise<number> {
  const call = caller(server);
  let left = calls;
  const startedAt = performance.now();
  await Promise.all(
    Array.from({ length: LANES }, async () => {
      while (left > 0) {
        left -= 1;
        await call();
      }
    }),
  );
  return (calls * 1000) / (performance.now() - startedAt);
}
