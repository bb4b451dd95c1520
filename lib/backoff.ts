import { StintError } from "./errors.ts";

/** How long to wait before the next attempt: always the same, doubling with a cap, or as a function says (milliseconds). */
export type Backoff =
  | { readonly kind: "fixed"; readonly delayMs: number }
  | { readonly kind: "exponential"; readonly baseMs?: number; readonly capMs?: number }
  | ((numFailures: number) => number);

const BASE_MS = 2000;
const CAP_MS = 3_600_000;
/** Longer than any cap that makes sense; setTimeout's own limit is 24.8 days. */
const LONGEST_MS = 30 * 86_400_000;

/**
 * Milliseconds before the next attempt: 2 s, 4 s, 8 s ... at most 1 h, spread over the upper half
 * ("equal jitter", AWS Architecture Blog, 2015): 1..2 s, 2..4 s, 4..8 s.
 * @param numFailures 1 after the first failure
 * @throws RangeError below 1
 */
export function backoffMs(numFailures: number, random = Math.random(), baseMs = BASE_MS, capMs = CAP_MS): number {
  if (!(numFailures >= 1)) throw new RangeError(`numFailures is at least 1, not ${numFailures}`);
  const full = Math.min(capMs, baseMs * 2 ** Math.min(numFailures - 1, 52));
  return full / 2 + (full / 2) * random;
}

/** What a definition's back-off says; a function that throws or gives no usable number falls back to the default. */
export function delayFor(backoff: Backoff | undefined, numFailures: number): number {
  if (typeof backoff === "object") {
    return backoff.kind === "fixed"
      ? backoff.delayMs
      : backoffMs(numFailures, Math.random(), backoff.baseMs, backoff.capMs);
  }
  if (backoff === undefined) return backoffMs(numFailures);
  try {
    const delayMs = backoff(numFailures);
    if (Number.isFinite(delayMs) && delayMs >= 0) return Math.min(delayMs, LONGEST_MS);
  } catch {
    // The task has failed already; its back-off must not make that worse.
  }
  return backoffMs(numFailures);
}

/** @throws StintError definition_invalid */
export function checkBackoff(identifier: string, backoff: Backoff | undefined): void {
  const positive = (value: unknown): boolean =>
    value === undefined || (Number.isFinite(value) && (value as number) >= 0 && (value as number) <= LONGEST_MS);
  const fits =
    backoff === undefined ||
    typeof backoff === "function" ||
    (backoff?.kind === "fixed" && backoff.delayMs !== undefined && positive(backoff.delayMs)) ||
    (backoff?.kind === "exponential" && positive(backoff.baseMs) && positive(backoff.capMs));
  if (!fits) {
    throw new StintError(
      "definition_invalid",
      `${identifier}: backoff is { kind: "fixed", delayMs }, { kind: "exponential", baseMs, capMs } or a function; delays from 0 to ${LONGEST_MS} ms.`,
    );
  }
}
