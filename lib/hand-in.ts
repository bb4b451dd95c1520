/** An exchange whose results the database may refuse. */
import { storable } from "./attempt.ts";
import { DatabaseError } from "./database/failure.ts";
import type { Lease } from "./lease.ts";
import type { Answer, Request, Result } from "./messages.ts";

/** How long a task waits whose result was refused, in milliseconds. */
const REFUSED_DELAY_MS = 60_000;

/**
 * One refused result must not block the others: those that are refused together are handed in by halves, under new numbers, down to one by
 * one. One that cannot be stored becomes a failure, or a success whose value is not kept.
 * @throws LeaseOver, DatabaseError as Lease.exchange
 */
export async function handIn(lease: Lease, request: Request, signal: AbortSignal | undefined): Promise<Answer> {
  try {
    return await lease.exchange(request, signal);
  } catch (error) {
    if (!isOfContent(error)) throw error;
    const { results, progress, ...rest } = request;
    if (results.length > 0) {
      // Without what only the last answer is heard for, such as the seats to wake.
      const { wake: _, ...apart } = { ...rest, want: 0, alone: false, ending: false, floors: [] };
      const unstorable = await handInApart((some) => lease.exchange({ ...apart, results: some }, signal), results);
      if (unstorable !== undefined) throw unstorable;
      return await handIn(lease, { ...request, results: [] }, signal);
    }
    if (progress === undefined) throw error;
    // It is there to be looked at: not worth the lease.
    return await lease.exchange({ ...rest, results }, signal);
  }
}

/** What a statement says of the values in it: they do not fit (22), break a constraint (23), or are too much (54). */
const isOfContent = (error: unknown): error is DatabaseError =>
  error instanceof DatabaseError && /^(2[23]|54)/.test(error.sqlState ?? "");

type Send = (results: readonly Result[]) => Promise<unknown>;

/** What none of its stand-ins could be stored for is the answer; the others are handed in all the same. */
async function handInApart(send: Send, results: readonly Result[]): Promise<DatabaseError | undefined> {
  const refusal = await refusalOf(send, results);
  if (refusal === undefined) return undefined;
  if (results.length === 1) return await handInOtherwise(send, results[0]!, refusal);
  const half = Math.ceil(results.length / 2);
  const first = await handInApart(send, results.slice(0, half));
  const second = await handInApart(send, results.slice(half));
  return first ?? second;
}

async function handInOtherwise(send: Send, result: Result, why: DatabaseError): Promise<DatabaseError | undefined> {
  let refusal: DatabaseError | undefined = why;
  for (const other of insteadOf(result, `The result was refused (${why.sqlState}): ${why.message}`)) {
    if (refusal !== undefined) refusal = await refusalOf(send, [other]);
  }
  return refusal;
}

async function refusalOf(send: Send, results: readonly Result[]): Promise<DatabaseError | undefined> {
  try {
    await send(results);
    return undefined;
  } catch (error) {
    if (isOfContent(error)) return error;
    throw error;
  }
}

/** What may be stored in place of a result, each saying less than the one before. A task that has succeeded does not run again for its value. */
function insteadOf({ value: _, retryAt: __, delayMs, ...result }: Result, reason: string): Result[] {
  const failure = { ...result, outcome: "FAILURE", delayMs: delayMs ?? REFUSED_DELAY_MS } as const;
  return [
    ...(result.outcome === "SUCCESS" ? [result] : []),
    ...(result.error === undefined ? [] : [{ ...failure, error: storable(`${reason}\n${result.error}`) }]),
    { ...failure, error: storable(reason) },
  ];
}
