/** A moment on both clocks. A freeze may stop the monotonic one, a correction move the wall's. */
export interface Moment {
  readonly wall: number;
  readonly monotonic: number;
}

export const now = (): Moment => ({ wall: Date.now(), monotonic: performance.now() });

/** Milliseconds since then, by the clock that says more. */
export const elapsedMs = (since: Moment): number =>
  Math.max(Date.now() - since.wall, performance.now() - since.monotonic);

/** Resolves after `ms`, or at once when the signal aborts. Leaves no timer behind. */
export const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
