/** What a month uses of AWS: of Stint as simulated, and of what one would take instead. */
import { HOURS_A_MONTH, totalOf, type Usage } from "./prices.ts";
import type { Simulated } from "./simulate.ts";
import { MONTH_MS, type Workload } from "./workload.ts";

/** A line of the bill. */
export interface Line {
  readonly what: string;
  readonly usage: Usage;
}

/** Measured on the embedded Postgres 17 with a payload of 60 bytes; see README.md. */
const RUN_BYTES = 250;
const WAL_BYTES_OF_A_RUN = 900;
/** Aurora counts what it writes in 4 KB; a commit is at least one. */
const IO_BYTES = 4096;
/** One line a task run; of an invocation its lines, its metrics and the platform's. */
const LOG_BYTES = { task: 600, invocation: 3400, platform: 400 };
/** Processor time of the database: an estimate from the benches (test/bench). */
const DATABASE_MS = { request: 1, task: 0.06 };
/** A db.r6g.large has 2 vCPU and 16 GiB, an ACU 2 GiB. */
const ACU_A_VCPU = 4;
const BUSY_AT_MOST = 0.7;
const LEAST_ACU = 0.5;
const RETENTION_DAYS = 30;

/** What infra/resources makes: the deployment's own secrets, and the owner's that RDS manages. */
export const FIXED = { metrics: 12, alarms: 9, dashboards: 1, secrets: 7 };

/** Lambda's five pollers of a queue wait 20 s each time. */
const EMPTY_RECEIVES = 5 * 3 * 60 * HOURS_A_MONTH;
/** Messages that one call of Lambda takes, once so many come within a tenth of a second. */
const SQS_BATCH = 10;

const FARGATE = { vcpu: 0.25, memoryGb: 0.5, places: 50 };

const gigabytes = (bytes: number): number => bytes / 1e9;

const aurora = (tasks: number, requests: number, awakeMs: number): Line[] => {
  const awakeSeconds = awakeMs / 1000;
  const busyVcpu = (requests * DATABASE_MS.request + tasks * DATABASE_MS.task) / 1000 / Math.max(1, awakeSeconds);
  const acu = Math.max(LEAST_ACU, (busyVcpu * ACU_A_VCPU) / BUSY_AT_MOST);
  const storage = gigabytes(tasks * RUN_BYTES * ((RETENTION_DAYS * 24) / HOURS_A_MONTH));
  // Each request commits, an enqueue too.
  const io = requests + tasks * (1 + WAL_BYTES_OF_A_RUN / IO_BYTES);
  return [
    { what: "Aurora capacity", usage: { auroraAcuHours: (acu * awakeSeconds) / 3600 } },
    { what: "Aurora storage and I/O", usage: { auroraStorage: storage, auroraIo: io } },
  ];
};

export function stintUsage(workload: Workload, month: Simulated): Line[] {
  const { tasks, invocations, billedMs, requests, ticks, queued, awakeMs } = month;
  return [
    {
      what: "Lambda",
      usage: { lambdaRequests: invocations, lambdaGbSeconds: (billedMs / 1000) * (workload.memoryMb / 1024) },
    },
    { what: "Data API, processing", usage: { dataApiRequests: requests } },
    { what: "Data API, enqueueing one by one", usage: { dataApiRequests: tasks } },
    { what: "Scheduler", usage: { schedulerInvocations: ticks } },
    { what: "queue of wakes", usage: { sqsRequests: workload.quiet ? 3 * queued + EMPTY_RECEIVES : 0 } },
    ...aurora(tasks, requests, awakeMs),
    { what: "logs", usage: { logs: gigabytes(tasks * LOG_BYTES.task + invocations * LOG_BYTES.invocation) } },
    { what: "metrics, alarms, secrets", usage: FIXED },
  ];
}

/** A message a task; no transaction with one's data, no history, no pause. Its batches run side by side, as Stint's do. */
export function sqsUsage({ tasksPerMonth, taskMs, memoryMb }: Workload): Line[] {
  const batch = tasksPerMonth / MONTH_MS > SQS_BATCH / 100 ? SQS_BATCH : 1;
  const invocations = tasksPerMonth / batch;
  return [
    {
      what: "Lambda",
      usage: { lambdaRequests: invocations, lambdaGbSeconds: invocations * (taskMs / 1000) * (memoryMb / 1024) },
    },
    { what: "SQS", usage: { sqsRequests: tasksPerMonth + 2 * invocations + EMPTY_RECEIVES } },
    { what: "logs", usage: { logs: gigabytes(tasksPerMonth * LOG_BYTES.task + invocations * LOG_BYTES.platform) } },
  ];
}

/** `stint run-task-processor` on Arm, always on, over pg: a quarter of a vCPU for each 50 tasks at a time. */
export function fargateUsage({ tasksPerMonth, taskMs }: Workload): Line[] {
  const atATime = (tasksPerMonth / MONTH_MS) * taskMs;
  const containers = Math.max(1, Math.ceil(atATime / (FARGATE.places * BUSY_AT_MOST)));
  const hours = containers * HOURS_A_MONTH;
  const polls = (containers * MONTH_MS) / 2000;
  return [
    { what: "Fargate", usage: { fargateCpu: hours * FARGATE.vcpu, fargateMemory: hours * FARGATE.memoryGb } },
    { what: "public address", usage: { publicAddress: hours } },
    ...aurora(tasksPerMonth, polls + tasksPerMonth / SQS_BATCH, MONTH_MS),
    { what: "logs", usage: { logs: gigabytes(tasksPerMonth * LOG_BYTES.task) } },
  ];
}

export const sumOf = (lines: readonly Line[], freeTier: boolean): number =>
  lines.reduce((sum, { usage }) => sum + totalOf(usage, freeTier), 0);
