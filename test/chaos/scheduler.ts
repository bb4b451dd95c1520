/** Does what EventBridge Scheduler and Lambda do, at a scaled-down interval, and what they and their machines do wrong. */
import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import type { WorkerSettings } from "../../lib/worker.ts";
import type { Order, Target, TickEvent } from "./invocation.ts";
import type { Random } from "./random.ts";
import type { Broken, Counts } from "./report.ts";
import type { World } from "./world.ts";

export interface Timing {
  readonly slots: number;
  readonly residents: number;
  readonly everyMs: number;
  /** A tick comes anywhere within this share of its interval (default 0.9, as EventBridge may); 0: as regular as a clock. */
  readonly jitter?: number;
  /** The platform's time limit. */
  readonly limitMs: number;
  readonly settings: WorkerSettings;
}

/** Which release an invocation is of: the one before this, either, or this. */
export type Releases = "old" | "both" | "new";

/** Chances, per tick or per invocation. */
export interface Mishaps {
  readonly lost: number;
  readonly late: number;
  readonly duplicate: number;
  readonly kill: number;
  readonly freeze: number;
}

const NO_MISHAPS: Mishaps = { lost: 0, late: 0, duplicate: 0, kill: 0, freeze: 0 };
const HEAP_MB = 96;
/** In front of an invocation's number: its name in the database. */
export const INVOCATION = "invocation-";
/** An end, and a refusal by the database. A task may call process.exit(0), too, which cannot be told from an end. */
const IN_ORDER: ReadonlySet<number | null> = new Set([0, 3]);
/** A slot's processes at a time. Lambda has a machine for each; here a busy one must not drown in those that only start. */
const MOST_PER_SLOT = 3;
/** Without mishaps the time limit must not be one either. */
const CALM_LIMIT_MS = 60_000;

export interface Invoked {
  readonly child: ChildProcess;
  readonly slot: number;
  readonly logFile: string;
  readonly gone: Promise<unknown>;
}

export class Scheduler {
  readonly #world: World;
  readonly #timing: Timing;
  readonly #random: Random;
  readonly #counts: Counts;
  readonly running = new Set<Invoked>();
  /** Calls that should not have been. */
  readonly broken: Broken[] = [];
  /** Processes that died before the calm, of a signal or of a task. */
  kills = 0;
  releases: Releases = "new";
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #due = new Map<string, number>();
  #mishaps: Mishaps;
  #ticks: NodeJS.Timeout | undefined;
  #started = 0;
  #calm = false;
  #over = false;

  constructor(world: World, timing: Timing, random: Random, counts: Counts, mishaps: Mishaps = NO_MISHAPS) {
    this.#world = world;
    this.#timing = timing;
    this.#random = random;
    this.#counts = counts;
    this.#mishaps = mishaps;
  }

  start(): void {
    this.#tick();
    this.#ticks = setInterval(() => this.#tick(), this.#timing.everyMs);
  }

  /** From now on everything happens in time, and once; what was frozen goes on. */
  calmDown(): void {
    this.#mishaps = NO_MISHAPS;
    this.#calm = true;
    for (const { child } of this.running) child.kill("SIGCONT");
  }

  /** No more ticks; ends every process, at once. */
  async kill(): Promise<void> {
    this.#over = true;
    clearInterval(this.#ticks);
    for (const { child } of this.running) child.kill("SIGKILL");
    await this.#allGone();
  }

  #tick(): void {
    const { slots, everyMs, jitter = 0.9 } = this.#timing;
    const { lost, late, duplicate } = this.#mishaps;
    for (let slot = 0; slot < slots; slot += 1) {
      if (this.#happens(lost, "tick.lost")) continue;
      if ([...this.running].filter((one) => one.slot === slot).length >= MOST_PER_SLOT) {
        this.#counts.add("tick.throttled");
        continue;
      }
      const times = this.#happens(duplicate, "tick.duplicate") ? 2 : 1;
      for (let time = 0; time < times; time += 1) {
        const lateMs = this.#happens(late, "tick.late") ? everyMs * 1.5 : 0;
        this.#later(this.#random.between(0, everyMs * jitter) + lateMs, () => void (this.#over || this.invoke(slot)));
      }
    }
  }

  invoke(slot: number, { woken = false, target }: { woken?: boolean; target?: Target } = {}): Invoked {
    const { settings, residents, slots } = this.#timing;
    const limitMs = Math.max(this.#calm ? CALM_LIMIT_MS : 0, this.#timing.limitMs);
    this.#started += 1;
    const adapter = this.#started % 2 === 0 ? "pg" : "data-api";
    const old = this.releases === "old" || (this.releases === "both" && this.#random.chance(0.5));
    if (old) this.#counts.add("invocations.release_before");
    const order: Order = {
      event: woken ? { slot, woken } : { slot, resident: slot < residents },
      slots,
      outOfTimeAt: Date.now() + limitMs,
      // The release before does not know all that is enqueued.
      without: old ? "chaos.flaky" : undefined,
      settings,
      target: target ?? this.#targetOf(adapter),
      logFile: join(this.#world.folder, `invocation-${this.#started}.log`),
    };
    const child = fork(old ? this.#world.invocationBefore! : this.#world.invocation, [JSON.stringify(order)], {
      env: {
        PATH: process.env.PATH,
        AWS_REGION: process.env.AWS_REGION,
        AWS_ACCESS_KEY_ID: process.env.AWS_ACCESS_KEY_ID,
        AWS_SECRET_ACCESS_KEY: process.env.AWS_SECRET_ACCESS_KEY,
      },
      execArgv: [`--max-old-space-size=${HEAP_MB}`],
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    this.#counts.add("invocations");
    this.#counts.add(`invocations.${adapter}`);
    const gone = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
    const invoked: Invoked = { child, slot, logFile: order.logFile, gone };
    this.running.add(invoked);
    child.on("message", ({ slot: called }: { slot: number }) => this.#wake(called, order.event));
    const timers: NodeJS.Timeout[] = [];
    // A stopped process takes a SIGKILL as well.
    timers.push(this.#later(limitMs, () => this.#end(child, "kill.time_limit")));
    if (this.#isDue(this.#mishaps.kill, "kill")) {
      const afterMs = this.#random.between(0, Math.min(limitMs, this.#timing.everyMs * 1.5));
      timers.push(this.#later(afterMs, () => this.#end(child, "kill.any_moment")));
    }
    if (this.#isDue(this.#mishaps.freeze, "freeze")) {
      const afterMs = this.#random.between(100, this.#timing.everyMs);
      const forMs = this.#random.between(0.5, 2.5) * settings.graceMs;
      timers.push(this.#later(afterMs, () => timers.push(this.#freeze(child, forMs))));
    }
    child.on("error", () => void this.running.delete(invoked));
    child.once("exit", (code, signal) => {
      for (const timer of timers) clearTimeout(timer);
      this.running.delete(invoked);
      if (this.#over) return;
      this.#counts.add(`ended.${signal ?? `code_${code}`}`);
      if (!this.#calm && !IN_ORDER.has(code)) this.kills += 1;
    });
    return invoked;
  }

  /** Over pg, each under a name of its own in the database: its connections can be counted. */
  #targetOf(adapter: "pg" | "data-api"): Target {
    const target = this.#world.targets[adapter];
    if (target.kind !== "pg") return target;
    const url = new URL(target.url);
    url.searchParams.set("application_name", `${INVOCATION}${this.#started}`);
    return { ...target, url: url.href };
  }

  /** Lambda accepts an asynchronous call and runs it when there is room. */
  #wake(slot: number, by: TickEvent): void {
    this.#counts.add("wakes");
    if (by.woken)
      this.broken.push({ invariant: 13, what: `one that was woken called for slot ${slot}`, task: undefined });
    if (this.#over || this.#happens(this.#mishaps.lost, "wake.lost")) return;
    if ([...this.running].filter((one) => one.slot === slot).length >= MOST_PER_SLOT) {
      this.#counts.add("wake.throttled");
      return;
    }
    this.invoke(slot, { woken: true });
  }

  #freeze(child: ChildProcess, forMs: number): NodeJS.Timeout {
    if (child.kill("SIGSTOP"))
      this.#counts.add(forMs > this.#timing.settings.graceMs ? "freeze.past_grace" : "freeze.short");
    return this.#later(forMs, () => void child.kill("SIGCONT"));
  }

  #end(child: ChildProcess, why: string): void {
    if (child.kill("SIGKILL")) this.#counts.add(why);
  }

  #happens(chance: number, name: string): boolean {
    const happens = this.#isDue(chance, name);
    if (happens) this.#counts.add(name);
    return happens;
  }

  /** By chance, and at the latest where it would have been once on average: a short run has what is rare, too. */
  #isDue(chance: number, name: string): boolean {
    const due = (this.#due.get(name) ?? 0) + chance;
    const happens = this.#random.chance(chance) || due >= 1;
    this.#due.set(name, happens ? 0 : due);
    return happens;
  }

  #later(ms: number, work: () => void): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  async #allGone(): Promise<void> {
    while (this.running.size > 0) await Promise.all([...this.running].map(({ gone }) => gone));
    for (const timer of this.#timers) clearTimeout(timer);
  }
}
