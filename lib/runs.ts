/** What an invocation runs for one database: starts what was claimed, keeps results and progress until they are handed in. */
import { Attempt, type AttemptSurroundings, describeError } from "./attempt.ts";
import { pause } from "./clock.ts";
import { Counters } from "./counters.ts";
import { StintError } from "./errors.ts";
import type { Lease } from "./lease.ts";
import type { Log, LogFields } from "./log.ts";
import { type ClaimedTask, countThatFit, type Progress, type Result } from "./messages.ts";
import type { Places } from "./places.ts";
import type { Registry } from "./registry.ts";
import type { Sample } from "./sample.ts";
import { traceField } from "./trace.ts";
import type { OnFailure, WorkerSettings } from "./worker.ts";

/** How long an invocation that leaves waits for the application's hook. */
const HOOK_MS = 2000;

export interface RunsOptions {
  readonly lease: Lease;
  readonly registry: Registry;
  readonly places: Places;
  readonly pickUps: Sample;
  readonly settings: WorkerSettings;
  readonly log: Log;
  readonly onFailure?: OnFailure;
  /** Aborts all that runs. */
  readonly signal: AbortSignal;
  /** There is something new to hand in. */
  readonly onResult: () => void;
}

export class Runs {
  readonly #options: RunsOptions;
  readonly #around: AttemptSurroundings;
  readonly #running = new Map<string, { readonly attempt: Attempt; readonly ended: Promise<void> }>();
  readonly #hooks = new Set<Promise<void>>();
  readonly #progress = new Map<string, Progress>();
  readonly #counters = new Counters();
  #results: Result[] = [];
  /** When the oldest result that was not handed in came, in milliseconds of the monotonic clock. */
  firstResultAt = 0;

  constructor(options: RunsOptions) {
    this.#options = options;
    const { lease, log, settings } = options;
    this.#around = {
      mayStart: () => lease.holds(),
      onProgress: ({ id, attempt }, value) => void this.#progress.set(id, { id, attempt, value }),
      backoffDefaultMs: settings.backoffDefaultMs,
      logOf: ({ id, identifier, attempt, traceParent }) =>
        log.with({ task: id, identifier, attempt, ...traceField(traceParent) }),
    };
    const { signal } = options;
    // One listener for all: a signal's own list is walked for each that comes or goes.
    signal.addEventListener("abort", () => {
      for (const { attempt } of this.#running.values()) attempt.leave(signal.reason);
    });
  }

  get running(): number {
    return this.#running.size;
  }

  get results(): number {
    return this.#results.length;
  }

  /** The oldest, as many as fit into one request. */
  takeResults(): Result[] {
    return this.#results.splice(0, countThatFit(this.#results));
  }

  /** What has run so far, results not yet taken among it. */
  get counters(): Counters {
    return this.#counters;
  }

  /** As many as fit into one request. */
  takeProgress(): Progress[] {
    const all = [...this.#progress.values()];
    const progress = all.slice(0, countThatFit(all));
    for (const { id } of progress) this.#progress.delete(id);
    return progress;
  }

  /** Until nothing runs, and the application has heard of each failure: what is under way when a function answers may never end. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#running.values()].map(({ ended }) => ended));
    const heard = new AbortController();
    const hooks = Promise.allSettled(this.#hooks).then(() => heard.abort());
    await Promise.race([hooks, pause(HOOK_MS, heard.signal)]);
  }

  cancel(ids: readonly string[]): void {
    for (const id of ids)
      this.#running.get(id)?.attempt.cancel(new StintError("aborted", "The task was cancelled by an operator."));
  }

  start(task: ClaimedTask): void {
    const { lease, registry, places, signal } = this.#options;
    const handler = registry.handlers.get(task.identifier);
    // Told again: it runs already. A lease that has run out: it is somebody else's.
    if (this.#running.has(task.id) || !lease.holds()) return;
    if (handler === undefined || signal.aborted) {
      this.release(task);
      return;
    }
    places.enter(task.suspect);
    const startedAt = performance.now();
    this.#options.pickUps.add(pickUpMs(task));
    const run = new Attempt(handler, task, this.#around);
    const ended = run.done.then(({ result, error }) => {
      this.#running.delete(task.id);
      this.#progress.delete(task.id);
      this.#count(task, result);
      this.#keep(result);
      places.leave(performance.now() - startedAt);
      this.#tell(task, result, error);
    });
    this.#running.set(task.id, { attempt: run, ended });
  }

  /** Gives back what never started: forgiven. */
  release({ id, attempt }: ClaimedTask): void {
    this.#keep({ id, attempt, outcome: "RELEASED", startedAt: 0, finishedAt: 0 });
  }

  #count({ identifier, occurrence }: ClaimedTask, { outcome, startedAt, finishedAt }: Result): void {
    if (outcome === "RELEASED") return;
    this.#counters.record({
      identifier,
      taskType: occurrence === null ? "standard" : "recurring",
      result: outcome === "SUCCESS" ? "success" : "failure",
      durationMs: finishedAt - startedAt,
    });
  }

  #keep(result: Result): void {
    if (this.#results.length === 0) this.firstResultAt = performance.now();
    this.#results.push(result);
    this.#options.onResult();
  }

  #tell(task: ClaimedTask, result: Result, error: unknown): void {
    const { outcome, startedAt, finishedAt } = result;
    this.#logRun(task, { outcome, durationMs: Math.round(finishedAt - startedAt) });
    if (this.#options.onFailure === undefined || (outcome !== "FAILURE" && outcome !== "CANCELLED")) return;
    const hook = this.#callHook(this.#options.onFailure, {
      task,
      error,
      final: outcome === "CANCELLED" || task.used >= task.maxAttempts,
    });
    this.#hooks.add(hook);
    void hook.finally(() => this.#hooks.delete(hook));
  }

  /** A log of the application's own may throw: a line costs neither the task nor the process anything. */
  #logRun(task: ClaimedTask, fields: LogFields): void {
    try {
      this.#around.logOf(task).info("task run", fields);
    } catch {}
  }

  async #callHook(onFailure: OnFailure, failure: Parameters<OnFailure>[0]): Promise<void> {
    try {
      await onFailure(failure);
    } catch (cause) {
      try {
        this.#options.log.error("onFailure threw", { task: failure.task.id, error: describeError(cause) });
      } catch {}
    }
  }
}

/** From due to started. One that was due for ever (`-infinity`) counts as 0. */
const pickUpMs = ({ scheduledFor }: ClaimedTask): number => Math.max(0, Date.now() - Date.parse(scheduledFor)) || 0;
