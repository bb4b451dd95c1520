import { createHash } from "node:crypto";
import { StintError } from "./errors.ts";
import type { RecurringDefinition, RecurringHandler } from "./recurring-definition.ts";
import type { TaskHandler } from "./task.ts";

/** What a release can run. */
export interface Registry {
  /** A hash of the definitions: equal deployments share it. */
  readonly release: string;
  readonly handlers: ReadonlyMap<string, TaskHandler>;
  readonly recurring: ReadonlyMap<string, RecurringDefinition>;
}

/** What an invocation keeps of its time to hand in its last results: a tenth, at most 10 s. Nothing is claimed in it. */
export const drainReserveMs = (invocationMs: number): number => Math.min(10_000, invocationMs / 10);

/**
 * @param invocationMs the invocation's time limit, which every timeout must fit into; null in a container
 * @throws StintError definition_invalid for two handlers of one identifier, or a timeout that can never fit
 */
export function createRegistry(handlers: readonly TaskHandler[], invocationMs: number | null): Registry {
  const byIdentifier = new Map<string, TaskHandler>();
  const recurring = new Map<string, RecurringDefinition>();
  for (const handler of handlers) {
    const { identifier, timeoutMs } = handler.definition;
    if (byIdentifier.has(identifier)) throw new StintError("definition_invalid", `${identifier}: it has two handlers.`);
    const mostMs = invocationMs === null ? Number.POSITIVE_INFINITY : invocationMs - drainReserveMs(invocationMs);
    if (timeoutMs > mostMs) {
      throw new StintError(
        "definition_invalid",
        `${identifier}: timeoutMs ${timeoutMs} does not fit into an invocation: at most ${mostMs} with TASK_PROCESSOR_INVOCATION_MS=${invocationMs}.`,
      );
    }
    byIdentifier.set(identifier, handler);
    if ("recurring" in handler) recurring.set(identifier, (handler as RecurringHandler).recurring);
  }
  return { release: releaseOf(byIdentifier), handlers: byIdentifier, recurring };
}

/** The tasks of a release as the database stores them. */
export const registrationOf = (
  registry: Registry,
): { identifier: string; timeoutMs: number; maxAttempts: number; concurrency: number | null }[] =>
  definitionsOf(registry.handlers);

const definitionsOf = (handlers: ReadonlyMap<string, TaskHandler>) =>
  [...handlers.values()]
    .map(({ definition: { identifier, timeoutMs, maxAttempts, concurrency = null } }) => ({
      identifier,
      timeoutMs,
      maxAttempts,
      concurrency,
    }))
    .sort((a, b) => (a.identifier < b.identifier ? -1 : 1));

const releaseOf = (handlers: ReadonlyMap<string, TaskHandler>): string =>
  createHash("sha256")
    .update(JSON.stringify(definitionsOf(handlers)))
    .digest("hex")
    .slice(0, 16);
