/** What was claimed a little before there is a place for it, so that none stands empty between two exchanges. */
import type { ClaimedTask } from "./messages.ts";
import type { Places } from "./places.ts";
import type { Registry } from "./registry.ts";
import type { Runs } from "./runs.ts";

/** Where all places are not left once in so long, nothing is claimed ahead; what has waited so long is given back, as another may run it. */
export const AHEAD_MS = 1000;
/** With so few places, who chose them may want each lost task alone. */
const FEWEST_PLACES = 4;

interface AheadOptions {
  readonly places: Places;
  readonly runs: Pick<Runs, "start" | "release">;
  readonly registry: Registry;
  readonly remainingMs?: () => number;
  readonly reserveMs: number;
  /** Nothing else is held in this process: a suspect may start. */
  readonly alone?: () => boolean;
}

export class Ahead {
  readonly #options: AheadOptions;
  /** By id, in the order priority, due time; what is equal as it was claimed. */
  #waiting = new Map<string, { readonly task: ClaimedTask; readonly since: number }>();

  constructor(options: AheadOptions) {
    this.#options = options;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** How many to claim beyond the free places: as many as will be left within `ms`, at most all of them, less those that wait. None beside one that waits too long. */
  wanted(ms: number): number {
    const { places } = this.#options;
    if (places.size < FEWEST_PLACES || places.turnMs > AHEAD_MS || this.lateInMs <= 0) return 0;
    const most = Math.floor(Math.min(places.size, places.leavingWithin(ms)));
    return Math.max(0, most - this.#waiting.size);
  }

  /** Milliseconds until one has waited too long. */
  get lateInMs(): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const { since } of this.#waiting.values()) oldest = Math.min(oldest, since);
    return oldest + AHEAD_MS - performance.now();
  }

  /** Starts what an answer brought; what finds no place waits. */
  take(tasks: readonly ClaimedTask[]): void {
    const { runs } = this.#options;
    const since = performance.now();
    const before = this.#waiting.size;
    for (const task of tasks) {
      if (this.#waiting.size === 0 && this.#mayStart(task)) runs.start(task);
      else if (!this.#waiting.has(task.id)) this.#waiting.set(task.id, { task, since });
    }
    if (before > 0 && this.#waiting.size > before)
      this.#waiting = new Map([...this.#waiting].sort(([, { task: a }], [, { task: b }]) => byUrgency(a, b)));
  }

  /** A place has become free, or what a suspect waits for has ended. One whose timeout does not fit into what is left of the invocation by now is given back. */
  start(): void {
    const { runs } = this.#options;
    for (const { task } of this.#waiting.values()) {
      if (!this.#mayStart(task)) return;
      this.#waiting.delete(task.id);
      if (this.#fits(task)) runs.start(task);
      else runs.release(task);
    }
  }

  /** A cancelled one that has not started needs no run: given back, it ends as cancelled. */
  cancel(ids: readonly string[]): void {
    for (const id of ids) this.#giveBack(id);
  }

  /** What waits goes back, never started and forgiven: all of it, or what has waited too long. */
  giveBack(which: "all" | "late"): void {
    const latest = which === "all" ? Number.POSITIVE_INFINITY : performance.now() - AHEAD_MS;
    for (const [id, { since }] of this.#waiting) if (since <= latest) this.#giveBack(id);
  }

  #giveBack(id: string): void {
    const entry = this.#waiting.get(id);
    if (entry === undefined) return;
    this.#waiting.delete(id);
    this.#options.runs.release(entry.task);
  }

  #mayStart({ suspect }: ClaimedTask): boolean {
    const { places, alone } = this.#options;
    return places.free > 0 && (!suspect || alone === undefined || alone());
  }

  #fits({ identifier }: ClaimedTask): boolean {
    const { registry, remainingMs, reserveMs } = this.#options;
    const timeoutMs = registry.handlers.get(identifier)?.definition.timeoutMs ?? 0;
    return remainingMs === undefined || timeoutMs <= remainingMs() - reserveMs;
  }
}

const byUrgency = (a: ClaimedTask, b: ClaimedTask): number =>
  a.priority - b.priority || Date.parse(a.scheduledFor) - Date.parse(b.scheduledFor);
