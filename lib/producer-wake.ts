/** A producer's call for a processor, so that a task need not wait for the next tick where nobody polls. */
import { pause } from "./clock.ts";
import { createLog } from "./log.ts";

/** Calls a processor: `() => lambdaWake(name)({ wake: true })`, or whatever starts one. */
export type ProducerWake = () => Promise<unknown>;

/** What is called stays at least half a second longer than this, and finds what is enqueued meanwhile. */
export const WAKE_EVERY_MS = 1000;
/** Of an enqueue's minute, so much for a call that does not settle. */
const WAIT_MS = 5000;

/**
 * At most one call in flight, and one a second: who asks within it is heard by the one who was called before. A call that fails is
 * logged and costs no task: the next tick runs it. One that does not settle is waited for `waitMs`, and what comes of it later is ignored.
 */
export function throttleWake(wake: ProducerWake, log = createLog(), waitMs = WAIT_MS): () => Promise<void> {
  let calling: Promise<void> | undefined;
  let acceptedAt = Number.NEGATIVE_INFINITY;
  return async () => {
    // The one in flight may be accepted before what was just committed could be seen; it stays long enough.
    if (calling !== undefined) return await calling;
    if (performance.now() - acceptedAt < WAKE_EVERY_MS) return;
    calling = within(Promise.resolve().then(wake), waitMs)
      .then(
        () => {
          acceptedAt = performance.now();
        },
        (error: unknown) => log.warn("could not wake a processor", { error: String(error) }),
      )
      .finally(() => {
        calling = undefined;
      });
    await calling;
  };
}

/** @throws Error when it has not settled by then */
async function within(work: Promise<unknown>, ms: number): Promise<void> {
  const settled = new AbortController();
  const late = pause(ms, settled.signal).then(() => {
    if (!settled.signal.aborted) throw new Error(`no answer within ${ms} ms`);
  });
  await Promise.race([work, late]).finally(() => settled.abort());
}
