/** What is simulated: the work, the deployment, and what is assumed of AWS where nobody publishes a figure. */
import { HOURS_A_MONTH } from "./prices.ts";

export type Profile = "strict" | "standard" | "quiet";
export const PROFILES: readonly Profile[] = ["strict", "standard", "quiet"];
export const RESIDENTS: Readonly<Record<Profile, number>> = { strict: 2, standard: 1, quiet: 0 };
export const MONTH_MS = HOURS_A_MONTH * 3_600_000;

export interface Workload {
  readonly tasksPerMonth: number;
  /** How long a task runs: waiting, not computing, so that the places of an invocation run side by side. */
  readonly taskMs: number;
  readonly memoryMb: number;
  readonly slots: number;
  readonly residents: number;
  /** TASK_PROCESSOR_QUEUE_POP_SIZE: places of an invocation. */
  readonly places: number;
  /** Nobody polls: producers call, a queue calls at due times, a tick an hour. */
  readonly quiet: boolean;
  readonly sleepIntervalMs: number;
  readonly graceMs: number;
  readonly tickMs: number;
  /** The function's time limit. */
  readonly invocationMs: number;
}

export const workloadOf = (
  profile: Profile,
  given: Pick<Workload, "tasksPerMonth" | "taskMs" | "memoryMb" | "slots" | "places"> & { residents?: number },
): Workload => ({
  ...given,
  residents: given.residents ?? Math.min(RESIDENTS[profile], given.slots),
  quiet: profile === "quiet",
  sleepIntervalMs: 2000,
  graceMs: 20_000,
  tickMs: profile === "quiet" ? 3_600_000 : 60_000,
  invocationMs: 900_000,
});

/** None of these is measured on AWS. They stand in README.md with their reasons. */
export interface Assumptions {
  /** A Data API request, there and back. */
  readonly requestMs: number;
  /** From a call of Lambda (tick, wake, queue) until the handler runs in a warm environment. */
  readonly startMs: number;
  /** More, in a new environment; billed. */
  readonly coldStartMs: number;
  /** An environment unused for so long is gone. */
  readonly environmentIdleMs: number;
  /** A tick comes anywhere within so long of its due time. */
  readonly jitterMs: number;
  readonly lostTicks: number;
  readonly doubledTicks: number;
  /** Invocations that die without a word, an hour of running. */
  readonly killsAnHour: number;
  /** Share of the tasks that come in bursts, and how many seconds' worth of all tasks a burst is. At least 50 tasks. */
  readonly burstShare: number;
  readonly burstSeconds: number;
  /** A paused cluster is there again after so long; it pauses so long after the last request (quiet only). */
  readonly resumeMs: number;
  readonly pauseAfterMs: number;
}

export const ASSUMPTIONS: Assumptions = {
  requestMs: 20,
  startMs: 60,
  coldStartMs: 400,
  environmentIdleMs: 300_000,
  jitterMs: 60_000,
  lostTicks: 0.001,
  doubledTicks: 0.001,
  killsAnHour: 0.01,
  burstShare: 0.1,
  burstSeconds: 10,
  resumeMs: 15_000,
  pauseAfterMs: 300_000,
};
