/** What the tasks do to their process. Each start, fault, moment of belief in the lease and end is a line of the process's log. */
import { setImmediate as turn, setTimeout as wait } from "node:timers/promises";
import { pause } from "../../lib/clock.ts";
import { TaskCancelError, type TaskContext, type TaskHandler } from "../../lib/index.ts";
import { FOREVER_MS, KINDS, RESCUE, returnsNothing, tick } from "./tasks.ts";

interface Payload {
  readonly token: string;
  readonly serial?: string | undefined;
}

/** Microseconds of a clock that all processes of the machine share. */
const at = (): number => Number(process.hrtime.bigint() / 1000n);

const blockFor = (ms: number): void => {
  for (const until = performance.now() + ms; performance.now() < until; );
};

/** An attempt can be lost before it starts; two seldom are. */
const FIRST = 2;

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
      return returnsNothing(context.taskId) ? undefined : { token };
    };
  /** Written down before it is done: some leave no time after it. */
  const fault = ({ log }: TaskContext, name: string): void => log.debug("fault", { fault: name });

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
      logged(({ token }, context) => {
        if (context.attempt > 2) return;
        fault(context, context.attempt === 1 ? "throws" : "throws_no_error");
        throw context.attempt === 1 ? new Error("\0 not yet \ud800") : NO_ERRORS[spread(token, NO_ERRORS.length)];
      }),
    ),
    KINDS.cancels.handle(
      logged((_, context) => {
        fault(context, "cancels_itself");
        throw new TaskCancelError("for good");
      }),
    ),
    KINDS.never.handle(
      logged((_, context) => {
        fault(context, "never_settles");
        return new Promise(() => {});
      }),
    ),
    KINDS.holds.handle(
      logged(({ token }, context) => {
        if (context.attempt > 1) return work(token === RESCUE ? 0 : 60, context);
        fault(context, "outstays_grace");
        return work(graceMs * 1.8, context);
      }),
    ),
    KINDS.leaks.handle(
      logged(({ token }, context) => {
        setInterval(() => {}, 1000);
        if (context.attempt > FIRST) return;
        fault(context, "leaves_promise");
        setTimeout(() => void Promise.reject(new Error("left behind")), spread(token, 50));
      }),
    ),
    KINDS.exits.handle(
      logged(({ token }, context) => {
        if (context.attempt > FIRST) return;
        fault(context, "exits");
        process.exit(spread(token, 2));
      }),
    ),
    KINDS.blocks.handle(
      logged((_, context) => {
        if (context.attempt > FIRST) return;
        fault(context, "blocks");
        blockFor(graceMs * 1.4);
      }),
    ),
    KINDS.stalls.handle(
      logged((_, context) => {
        fault(context, "blocks_for_ever");
        blockFor(FOREVER_MS);
      }),
    ),
    KINDS.eats.handle(
      logged((_, context) => {
        if (context.attempt > FIRST) return;
        fault(context, "eats_memory");
        for (const eaten: number[][] = []; ; ) eaten.push(new Array(1_000_000).fill(eaten.length));
      }),
    ),
    KINDS.poison.handle(
      logged((_, context) => {
        fault(context, "kills_its_process");
        process.kill(process.pid, "SIGKILL");
      }),
    ),
    tick.handle((payload, context) => logged(() => {})(payload as Payload, context)),
  ];
}
