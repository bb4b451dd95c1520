/** What a drain took: time, and the processor time of both sides, which says what limits it also where the machine is busy with other things. */
import { existsSync, readdirSync, readFileSync } from "node:fs";

export interface Clocked {
  readonly tasksPerSecond: number;
  /** Processor time of this process, in microseconds a task. */
  readonly clientMicros: number;
  /** Of Postgres with all its processes, in microseconds a task; 0 where there is no /proc. */
  readonly serverMicros: number;
}

/** @param postmaster the process id of Postgres */
export async function clocked(postmaster: number, tasks: number, work: () => Promise<unknown>): Promise<Clocked> {
  const server = cpuMicrosOf(postmaster);
  const client = process.cpuUsage();
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(client);
  return {
    tasksPerSecond: tasks / seconds,
    clientMicros: (user + system) / tasks,
    serverMicros: (cpuMicrosOf(postmaster) - server) / tasks,
  };
}

const MICROS_A_TICK = 10_000;

/** Of a process, its children, and those of them that have ended. */
function cpuMicrosOf(postmaster: number): number {
  if (!existsSync("/proc/self/stat")) return 0;
  const ticks = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => statOf(pid))
    .filter((stat) => stat !== undefined && (stat.pid === postmaster || stat.parent === postmaster))
    .reduce((sum, stat) => sum + stat!.ticks, 0);
  return ticks * MICROS_A_TICK;
}

/** proc(5): after the name in parentheses state, parent ... and, from the twelfth, user, system, and those of waited-for children. */
function statOf(pid: string): { pid: number; parent: number; ticks: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text
      .slice(text.lastIndexOf(")") + 2)
      .split(" ")
      .map(Number);
    return { pid: Number(pid), parent: fields[1]!, ticks: fields[11]! + fields[12]! + fields[13]! + fields[14]! };
  } catch {
    // It has ended since.
    return undefined;
  }
}
