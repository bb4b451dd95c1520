import { setTimeout as sleep } from "node:timers/promises";
import { ApiError, Drop, statementTimeout, unavailable } from "./errors.ts";
import type { Chance, FaultOptions } from "./options.ts";

export type AfterRun = "commitThenDrop" | "commitThenError" | undefined;

/** Of them a call gets one at the most. */
const failures = [
  "dropBefore",
  "throttle",
  "serverError",
  "statementTimeout",
  "commitThenDrop",
  "commitThenError",
] as const;
const chances = [...failures, "latency"] as const;

export class Faults {
  readonly injected: Record<string, number> = {};
  #options: FaultOptions = {};
  #left: Partial<Record<string, number>> = {};
  #resumedAt: number | undefined;
  #random = randomFrom(1);

  /** Replaces all that was set before. @throws RangeError naming what it does not understand */
  set(options: FaultOptions): void {
    check(options);
    this.#options = options;
    this.#left = {};
    this.#resumedAt = undefined;
    this.#random = randomFrom(options.seed ?? 1);
    for (const name of chances) {
      const chance = options[name];
      if (typeof chance === "object") this.#left[name] = chance.next;
    }
  }

  clear(): void {
    this.set({});
  }

  /** Called before a call runs. @returns what is to happen after it has run */
  async beforeRun(sql: string): Promise<AfterRun> {
    const { match, latencyMs, latency, resumingForMs } = this.#options;
    if (match !== undefined && !sql.includes(match)) return undefined;
    if (resumingForMs !== undefined) this.#resuming(resumingForMs);
    const fault = failures.find((name) => this.#strikes(name));
    if (latencyMs && (latency === undefined || this.#strikes("latency"))) {
      this.#count("latencyMs");
      await sleep(latencyMs);
    }
    if (fault) this.#count(fault);
    switch (fault) {
      case "dropBefore":
        throw new Drop();
      case "throttle":
        throw new ApiError("ThrottlingException", 400, "Rate exceeded");
      case "serverError":
        throw this.someServerError();
      case "statementTimeout":
        throw statementTimeout(0);
      default:
        return fault;
    }
  }

  someServerError(): ApiError {
    const errors = [
      new ApiError("InternalServerErrorException", 500, "An internal error occurred."),
      new ApiError("ServiceUnavailableError", 503, "The service is unavailable."),
      unavailable(),
    ];
    return errors[Math.floor(this.#random() * errors.length)]!;
  }

  #resuming(forMs: number): void {
    this.#resumedAt ??= Date.now() + forMs;
    if (Date.now() >= this.#resumedAt) return;
    this.#count("resumingForMs");
    throw new ApiError(
      "DatabaseResumingException",
      400,
      "The Aurora DB instance is resuming after being auto-paused. Please wait a few seconds and try again.",
    );
  }

  #strikes(name: (typeof chances)[number]): boolean {
    const chance = this.#options[name];
    if (typeof chance === "number") return this.#random() < chance;
    const left = this.#left[name] ?? 0;
    if (left <= 0) return false;
    this.#left[name] = left - 1;
    return true;
  }

  #count(name: string): void {
    this.injected[name] = (this.injected[name] ?? 0) + 1;
  }
}

function check(options: FaultOptions): void {
  for (const [name, value] of Object.entries(options)) {
    const good =
      name === "match"
        ? typeof value === "string"
        : ["seed", "latencyMs", "resumingForMs"].includes(name)
          ? Number.isFinite(value) && (value as number) >= 0
          : (chances as readonly string[]).includes(name) && isChance(value as Chance);
    if (!good) throw new RangeError(`Not a fault: ${name} = ${JSON.stringify(value)}`);
  }
  if (options.latency !== undefined && !options.latencyMs)
    throw new RangeError("latency is of no use without latencyMs");
}

function isChance(value: Chance): boolean {
  if (typeof value === "number") return value >= 0 && value <= 1;
  return typeof value === "object" && value !== null && Number.isInteger(value.next) && value.next >= 0;
}

/** mulberry32 */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
