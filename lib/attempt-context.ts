/** What a handler is given beside its payload. One is made for each run: what a handler does not ask for is not made. */
import type { Log } from "./log.ts";
import type { ClaimedTask } from "./messages.ts";
import type { TaskContext } from "./task.ts";

interface Telling {
  readonly signal: AbortSignal;
  /** @throws StintError option_invalid */
  report(value: unknown): void;
}

export class Context implements TaskContext {
  readonly attempt: number;
  readonly taskId: string;
  readonly #of: Telling;
  readonly #task: ClaimedTask;
  readonly #logOf: (task: ClaimedTask) => Log;
  readonly #deadlineMs: number;

  constructor(of: Telling, task: ClaimedTask, logOf: (task: ClaimedTask) => Log, deadlineMs: number) {
    this.attempt = task.attempt;
    this.taskId = task.id;
    this.#of = of;
    this.#task = task;
    this.#logOf = logOf;
    this.#deadlineMs = deadlineMs;
  }

  get signal(): AbortSignal {
    return this.#of.signal;
  }

  get deadline(): Date {
    return new Date(this.#deadlineMs);
  }

  get log(): Log {
    return this.#logOf(this.#task);
  }

  get progress(): TaskContext["progress"] {
    return (value) => this.#of.report(value);
  }
}
