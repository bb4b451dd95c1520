/** When tasks come: at random, and a share of them in bursts. */
import { Chance, type Timeline } from "./timeline.ts";
import { type Assumptions, MONTH_MS, type Workload } from "./workload.ts";

/** Above so many a second they come in groups. */
const MOST_A_SECOND = 1000;
const BURST_LEAST = 50;

/** Calls `store` with how many come, from now on for as long as time runs. */
export function letArrive(
  { tasksPerMonth }: Workload,
  { burstShare, burstSeconds }: Assumptions,
  { time, seed }: { time: Timeline; seed: number },
  store: (count: number) => void,
): void {
  const aSecond = (tasksPerMonth / MONTH_MS) * 1000;
  const come = (perSecond: number, size: number, stream: number): void => {
    if (perSecond === 0) return;
    const chance = new Chance(seed, stream);
    const next = (): void =>
      time.in(chance.wait((size / perSecond) * 1000), () => {
        store(size);
        next();
      });
    next();
  };
  const steady = aSecond * (1 - burstShare);
  come(steady, Math.max(1, Math.round(steady / MOST_A_SECOND)), 1);
  come(aSecond * burstShare, Math.max(BURST_LEAST, Math.round(aSecond * burstSeconds)), 2);
}
