import { runTaskProcessor } from "../../infra/run-task-processor.ts";
import { pause } from "../../lib/clock.ts";
import { readConfig } from "../../lib/config.ts";
import { createTaskClient } from "../../lib/enqueue.ts";
import { silentLog } from "../../lib/log.ts";
import { type Arena, inArena } from "./support/arena.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { inGraphile, runGraphile } from "./support/graphile.ts";
import { interleaved, quantile, rounded } from "./support/measure.ts";
import { inOurs, invoke, nothing, settingsOf } from "./support/ours.ts";

const SLEEP_MS = 500;

export const about = `From the enqueue's call to the handler's start when nothing else is due, over pg: a resident that polls with a sleep interval of ${SLEEP_MS} ms; beside it graphile-worker 0.18.0, concurrency 10, which listens, and \`run-task-processor --listen\` with five threads and a producer that notifies. And what NOTIFY adds to an enqueue. Milliseconds.`;

export const targets: readonly Target[] = [
  { figure: "polling, p99 beyond the sleep interval, ms", atMost: 100 },
  { figure: "rung to graphile-worker's LISTEN, p50, ratio", atMost: 1.5 },
];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  inArena(async (arena) => {
    const samples = quick ? 4 : 200;
    const polling = await pollingTimes(arena, samples);
    const rung: number[] = [];
    const graphile: number[] = [];
    for (let round = 0; round < 4; round++) {
      rung.push(...(await rungTimes(arena, samples / 4)));
      graphile.push(...(await graphileTimes(arena, samples / 4)));
    }
    return {
      ...quantiles("polling", polling),
      "polling, p99 beyond the sleep interval, ms": rounded(quantile(polling, 0.99) - SLEEP_MS, 1),
      ...quantiles("rung", rung),
      ...quantiles("graphile-worker, LISTEN", graphile),
      "rung to graphile-worker's LISTEN, p50, ratio": rounded(quantile(rung, 0.5) / quantile(graphile, 0.5), 2),
      ...(await costOfNotify(arena, quick)),
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

/** As a container runs it: five threads that poll every two seconds, and a doorbell. */
const rungTimes = (arena: Arena, samples: number): Promise<number[]> =>
  inOurs(arena, async ({ database, url }) => {
    const client = createTaskClient({ database, notify: true });
    const watch = new Stopwatch();
    const leave = new AbortController();
    const running = runTaskProcessor({
      config: readConfig({ DATABASE_URL: url, TASK_PROCESSOR_LISTEN: "true", ENABLE_CLEAN_UP_OLD_TASKS: "false" }),
      databases: [database],
      handlers: [nothing.handle(watch.started)],
      log: silentLog,
      signal: leave.signal,
    });
    await pause(2000);
    const times = await watch.times(samples, () => client.enqueue(nothing, { n: 0 }));
    leave.abort();
    await running;
    return times;
  });

/** One producer; with several, commits that notify queue one behind the other. */
const costOfNotify = (arena: Arena, quick: boolean): Promise<Figures> =>
  inOurs(arena, async ({ database }) => {
    const storing = (notify: boolean) => {
      const client = createTaskClient({ database, notify });
      return () => client.enqueue(nothing, { n: 0 });
    };
    const { silent, notifying } = await interleaved(
      { silent: storing(false), notifying: storing(true) },
      quick ? { rounds: 1, calls: 5 } : { rounds: 20, calls: 50 },
    );
    return {
      "enqueue, ms": rounded(silent.median, 2),
      "enqueue that notifies, ms": rounded(notifying.median, 2),
    };
  });

const graphileTimes = (arena: Arena, samples: number): Promise<number[]> =>
  inGraphile(arena, async ({ url, utils }) => {
    const watch = new Stopwatch();
    const runner = await runGraphile(url, "plain", { nothing: watch.started });
    const times = await watch.times(samples, () => utils.addJob("nothing", { n: 0 }));
    await runner.stop();
    return times;
  });
