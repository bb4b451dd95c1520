/** An exchange whose results the database may refuse. */
import { DatabaseError } from "./database/failure.ts";
import type { Lease } from "./lease.ts";
import type { Answer, Request, Result } from "./messages.ts";

/**
 * One refused result must not block the others: one by one under new numbers; one that cannot be stored becomes a failure.
 * @throws LeaseOver, DatabaseError as Lease.exchange
 */
export async function handIn(lease: Lease, request: Request, signal: AbortSignal | undefined): Promise<Answer> {
  try {
    return await lease.exchange(request, signal);
  } catch (error) {
    if (!(error instanceof DatabaseError && /^2[23]/.test(error.sqlState ?? "")) || request.results.length === 0)
      throw error;
    for (const result of request.results) {
      const alone = { ...request, want: 0, alone: false, ending: false, floors: [] };
      await lease.exchange({ ...alone, results: [result] }, signal).catch((cause: unknown) => {
        if (!(cause instanceof DatabaseError)) throw cause;
        const { retryAt: _, ...rest } = result;
        const refused: Result = {
          ...rest,
          outcome: "FAILURE",
          delayMs: 60_000,
          error: `The result was refused: ${cause.sqlState}`,
        };
        return lease.exchange({ ...alone, results: [refused] }, signal);
      });
    }
    return await lease.exchange({ ...request, results: [] }, signal);
  }
}
