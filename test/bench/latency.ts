import { pause } from "../../lib/clock.ts";
import { createTaskClient } from "../../lib/enqueue.ts";
import { type Arena, inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { inGraphile, runGraphile } from "./support/graphile.ts";
import { quantile, rounded } from "./support/measure.ts";
import { inOurs, invoke, nothing, settingsOf } from "./support/ours.ts";

const SLEEP_MS = 500;

export const about = `From the enqueue's call to the handler's start when nothing else is due, over pg: a resident that polls with a sleep interval of ${SLEEP_MS} ms; beside it graphile-worker 0.18.0, concurrency 10, which listens. Milliseconds.`;

export const targets: readonly Target[] = [{ figure: "polling, p99 beyond the sleep interval, ms", atMost: 100 }];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const samples = quick ? 4 : 200;
    const polling = await pollingTimes(arena, samples);
    const graphile = await graphileTimes(arena, samples);
    return {
      ...quantiles("polling", polling),
      "polling, p99 beyond the sleep interval, ms": rounded(quantile(polling, 0.99) - SLEEP_MS, 1),
      ...quantiles("graphile-worker, LISTEN", graphile),
    };
  });

const quantiles = (what: string, times: readonly number[]): Figures => ({
  [`${what}, p50, ms`]: rounded(quantile(times, 0.5), 1),
  [`${what}, p99, ms`]: rounded(quantile(times, 0.99), 1),
});

/** Enqueues one, hears of its start, and lets it become idle again for a while that is not in step with any interval. */
class Stopwatch {
  #startedAt = (): void => {};

  readonly started = (): void => this.#startedAt();

  async times(samples: number, enqueue: () => Promise<unknown>): Promise<number[]> {
    const times: number[] = [];
    for (let sample = 0; sample < samples; sample++) {
      await pause(50 + Math.random() * SLEEP_MS);
      const enqueuedAt = performance.now();
      const startedAt = new Promise<number>((resolve) => {
        this.#startedAt = () => resolve(performance.now());
      });
      await enqueue();
      times.push((await startedAt) - enqueuedAt);
    }
    return times;
  }
}

const pollingTimes = (arena: Arena, samples: number): Promise<number[]> =>
  inOurs(arena, async ({ database }) => {
    const client = createTaskClient({ database });
    const watch = new Stopwatch();
    const leave = new AbortController();
    const staying = invoke(database, [nothing.handle(watch.started)], {
      slot: 0,
      settings: settingsOf(10, SLEEP_MS),
      resident: true,
      signal: leave.signal,
    });
    const times = await watch.times(samples, () => client.enqueue(nothing, { n: 0 }));
    leave.abort();
    await staying;
    return times;
  });

const graphileTimes = (arena: Arena, samples: number): Promise<number[]> =>
  inGraphile(arena, async ({ url, utils }) => {
    const watch = new Stopwatch();
    const runner = await runGraphile(url, "plain", { nothing: watch.started });
    const times = await watch.times(samples, () => utils.addJob("nothing", { n: 0 }));
    await runner.stop();
    return times;
  });
