/** Stands in for EventBridge Scheduler and Lambda: at each tick every slot gets an invocation, a process of its own. */
import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";

export interface SchedulerOptions {
  readonly slots: number;
  readonly everyMs: number;
  /** Of the invocations; nothing else of this process's environment reaches them. */
  readonly environment: Readonly<Record<string, string>>;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #running = new Set<ChildProcess>();
  #timer: NodeJS.Timeout | undefined;
  /** Invocations that ended with an error. */
  crashed = 0;

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  get running(): number {
    return this.#running.size;
  }

  start(): void {
    const tick = (): void => {
      // On a machine that is too busy to start them in time, more of them would only be more to start.
      if (this.running > this.#options.slots) return;
      for (let slot = 0; slot < this.#options.slots; slot += 1) void this.invoke({ slot, resident: slot === 0 });
    };
    tick();
    this.#timer = setInterval(tick, this.#options.everyMs);
  }

  /** No further ticks; what runs goes on. */
  stop(): void {
    clearInterval(this.#timer);
  }

  /** Resolves when the invocation has ended, however it did. */
  async invoke(event: { slot: number; resident: boolean }): Promise<void> {
    const child = fork(join(import.meta.dirname, "invocation.ts"), [JSON.stringify(event)], {
      env: { PATH: process.env.PATH, ...this.#options.environment },
      execArgv: [],
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    this.#running.add(child);
    const code = await new Promise((resolve) => {
      child.once("error", resolve);
      child.once("exit", resolve);
    });
    this.#running.delete(child);
    if (code !== 0) this.crashed += 1;
  }

  kill(): void {
    this.stop();
    for (const child of this.#running) child.kill("SIGKILL");
  }
}
