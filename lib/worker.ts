/** One invocation: takes a slot, claims and runs, hands in each result as it comes, leaves. */
import { randomUUID } from "node:crypto";
import type { Bell } from "./bell.ts";
import type { Database } from "./database/port.ts";
import { Drain } from "./drain.ts";
import type { Log } from "./log.ts";
import type { ClaimedTask } from "./messages.ts";
import { Places } from "./places.ts";
import { drainReserveMs, type Registry } from "./registry.ts";
import { Sample } from "./sample.ts";
import { Suspects } from "./suspects.ts";
import type { Wake } from "./wake.ts";

export interface InvocationOptions {
  /** Drained in this order. */
  readonly databases: readonly Database[];
  readonly registry: Registry;
  readonly slot: number;
  /** Keep polling until superseded or out of time; else run what is due and leave. */
  readonly resident: boolean;
  /** Take the slot only when nobody has it, as a container does. */
  readonly onlyFree?: boolean;
  readonly settings: WorkerSettings;
  readonly log: Log;
  /** Milliseconds left of the platform's time limit; without it there is none. */
  readonly remainingMs?: () => number;
  /** Aborts to leave early: nothing more is claimed, what runs may end within the grace period. */
  readonly signal?: AbortSignal;
  readonly onFailure?: OnFailure;
  /** Calls invocations for further slots when more is due than this one can take. One that was called so gets none: chains end. */
  readonly wake?: Wake;
  /** Rung when something was enqueued: looks before its next poll. */
  readonly bell?: Bell;
  /** Awaited before the first task starts, or a silent one is waited for: what must be under way should this one die. */
  readonly beforeWork?: () => Promise<void>;
  /** A visitor looks again until so long after its start, in milliseconds (default 0). */
  readonly lingerMs?: number;
  /** Shared with invocations for other databases in this process, as a container's thread has one for each. Default: its own. */
  readonly places?: Places;
  /** Shared by all invocations of this process, as a suspect runs alone in it. Default: its own. */
  readonly suspects?: Suspects;
  /** Where recurring tasks are planned and fired. Default: the last database. */
  readonly recurringDatabase?: Database;
}

export interface WorkerSettings {
  readonly sleepIntervalMs: number;
  readonly graceMs: number;
  readonly queuePopSize: number;
  readonly backoffDefaultMs: number;
  /** The invocation's time limit, null in a container. */
  readonly invocationMs: number | null;
}

/** Hears of each failed run; `final` when the task will not be tried again. What it throws is logged. */
export type OnFailure = (failure: {
  readonly task: ClaimedTask;
  readonly error: unknown;
  readonly final: boolean;
}) => unknown;

export interface InvocationReport {
  readonly slot: number;
  readonly epoch: number;
  readonly claimed: number;
  /** Tasks. */
  readonly succeeded: number;
  /** Failed runs. */
  readonly failed: number;
  readonly rescued: number;
  readonly staleCompletions: number;
  readonly requests: number;
  readonly durationMs: number;
  /** From due to started, of the runs it started: a uniform sample of at most 99. */
  readonly pickUpMs: readonly number[];
  /** Why it left. "seat_taken" claims nothing. */
  readonly left: LeaveReason;
}

export type LeaveReason = "nothing_due" | "superseded" | "out_of_time" | "stopped" | "lease_lost" | "seat_taken";

/** CloudWatch takes 100 values of a metric in a document; Powertools ends the document with the hundredth. */
const PICK_UPS = 99;

/** @throws DatabaseError when a database refuses the exchange for good (schema_missing and the like); what is held is then released by its lease's end */
export async function runInvocation(options: InvocationOptions): Promise<InvocationReport> {
  const startedAt = performance.now();
  const places = options.places ?? new Places(options.settings.queuePopSize);
  const suspects = options.suspects ?? new Suspects();
  const recurringDatabase = options.recurringDatabase ?? options.databases.at(-1);
  const reserveMs = options.settings.invocationMs === null ? 0 : drainReserveMs(options.settings.invocationMs);
  const invocationId = randomUUID();
  const log = options.log.with({ slot: options.slot, invocation: invocationId });
  const pickUps = new Sample(PICK_UPS);
  const drains = options.databases.map(
    (database) =>
      new Drain({
        ...options,
        database,
        recurring: database === recurringDatabase,
        places,
        suspects,
        pickUps,
        invocationId,
        reserveMs,
        log,
      }),
  );
  const ends = await Promise.allSettled(drains.map((drain) => drain.run()));
  const refused = ends.find((end) => end.status === "rejected");
  if (refused !== undefined) throw refused.reason;
  const sum = (pick: (drain: Drain) => number): number => drains.reduce((total, drain) => total + pick(drain), 0);
  return {
    slot: options.slot,
    epoch: drains[0]?.answer?.epoch ?? 0,
    claimed: sum((drain) => drain.answer?.claimed ?? 0),
    succeeded: sum((drain) => drain.answer?.succeeded ?? 0),
    failed: sum((drain) => drain.answer?.failed ?? 0),
    rescued: sum((drain) => drain.rescued),
    staleCompletions: sum((drain) => drain.answer?.stale ?? 0),
    requests: sum((drain) => drain.requests),
    durationMs: Math.round(performance.now() - startedAt),
    pickUpMs: pickUps.values,
    left: drains[0]?.left ?? "nothing_due",
  };
}
