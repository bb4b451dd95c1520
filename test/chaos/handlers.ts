/** What the tasks do to their process. Each start, each moment of belief in the lease and each end is a line of the process's log. */
import { setImmediate as turn, setTimeout as wait } from "node:timers/promises";
import { pause } from "../../lib/clock.ts";
import { TaskCancelError, type TaskContext, type TaskHandler } from "../../lib/index.ts";
import { FOREVER_MS, KINDS, RESCUE, tick } from "./tasks.ts";

interface Payload {
  readonly token: string;
  readonly serial?: string | undefined;
}

/** Microseconds of a clock that all processes of the machine share. */
const at = (): number => Number(process.hrtime.bigint() / 1000n);

const blockFor = (ms: number): void => {
  for (const until = performance.now() + ms; performance.now() < until; );
};

const NO_ERRORS: readonly unknown[] = [
  undefined,
  null,
  "text",
  0,
  Symbol("thrown"),
  {
    toString: () => {
      throw new Error("no text");
    },
  },
  "\0 and \ud800",
];

export function createHandlers(graceMs: number): TaskHandler[] {
  const logged =
    (run: (payload: Payload, context: TaskContext) => unknown) => async (payload: Payload, context: TaskContext) => {
      const { token, serial } = payload;
      context.log.debug("start", { at: at(), token, ...(serial !== undefined && { serial }) });
      await run(payload, context);
      context.signal.throwIfAborted();
      context.log.debug("end", { at: at() });
      return { token };
    };

  /**
   * The moment is taken first, and logged only when the signal has not aborted after every timer that was due at it has fired. A
   * process that thaws past its lease therefore logs nothing more; a line is a moment at which it believed, rightly or not.
   */
  const believe = async ({ signal, log }: TaskContext): Promise<void> => {
    const moment = at();
    await wait(1);
    await turn();
    if (!signal.aborted) log.debug("believes", { at: moment });
  };
  const work = async (ms: number, context: TaskContext): Promise<void> => {
    for (const until = performance.now() + ms; performance.now() < until; ) {
      await pause(20, context.signal);
      await believe(context);
      context.signal.throwIfAborted();
    }
  };
  const spread = (token: string, count: number): number => Number.parseInt(token.slice(-4), 16) % count;

  return [
    KINDS.quick.handle(logged(() => {})),
    KINDS.single.handle(logged(() => {})),
    KINDS.slow.handle(logged(({ token }, context) => work(20 + spread(token, 500), context))),
    KINDS.serial.handle(logged(({ token }, context) => work(20 + spread(token, 60), context))),
    KINDS.flaky.handle(
      logged(({ token }, { attempt }) => {
        if (attempt === 1) throw new Error("\0 not yet \ud800");
        if (attempt === 2) throw NO_ERRORS[spread(token, NO_ERRORS.length)];
      }),
    ),
    KINDS.cancels.handle(
      logged(() => {
        throw new TaskCancelError("for good");
      }),
    ),
    KINDS.never.handle(logged(() => new Promise(() => {}))),
    KINDS.holds.handle(
      logged(({ token }, context) => {
        const again = token === RESCUE ? 0 : 60;
        return work(context.attempt === 1 ? graceMs * 1.8 : again, context);
      }),
    ),
    KINDS.leaks.handle(
      logged(({ token }, { attempt }) => {
        setInterval(() => {}, 1000);
        if (attempt === 1) setTimeout(() => void Promise.reject(new Error("left behind")), spread(token, 50));
      }),
    ),
    KINDS.exits.handle(
      logged(({ token }, { attempt }) => {
        if (attempt === 1) process.exit(spread(token, 2));
      }),
    ),
    KINDS.blocks.handle(
      logged((_, { attempt }) => {
        if (attempt === 1) blockFor(graceMs * 1.4);
      }),
    ),
    KINDS.stalls.handle(logged(() => blockFor(FOREVER_MS))),
    KINDS.eats.handle(
      logged((_, { attempt }) => {
        const eaten: number[][] = [];
        while (attempt === 1) eaten.push(new Array(1_000_000).fill(eaten.length));
      }),
    ),
    KINDS.poison.handle(logged(() => process.kill(process.pid, "SIGKILL"))),
    tick.handle((payload, context) => logged(() => {})(payload as Payload, context)),
  ];
}
