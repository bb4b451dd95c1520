/** Suspects in a process with several threads: the poison among them must not cost the others their attempts. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { runTaskProcessor } from "../infra/run-task-processor.ts";
import { Ahead } from "../lib/ahead.ts";
import { pause } from "../lib/clock.ts";
import { readConfig } from "../lib/config.ts";
import type { Database } from "../lib/database/port.ts";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { silentLog } from "../lib/log.ts";
import { createRegistry } from "../lib/registry.ts";
import { exchange } from "../lib/sql/exchange.ts";
import { type Holder, Suspects } from "../lib/suspects.ts";
import { type InvocationOptions, runInvocation } from "../lib/worker.ts";
import { openDatabase, reset, type TestDatabase } from "./support/database.ts";

const note = defineTask({ identifier: "note", payload: z.object({ n: z.number() }) });
const lost = defineTask({ identifier: "lost", payload: z.object({ n: z.number() }) });

/** What ran beside each suspect, and how many tasks have ended. */
class Watch {
  readonly order: string[] = [];
  readonly #running = new Set<string>();
  beside = 0;

  async run(name: string, ms: number | Promise<number>): Promise<void> {
    this.#running.add(name);
    this.#look();
    await pause(await ms);
    this.#look();
    this.#running.delete(name);
    this.order.push(name);
  }

  #look(): void {
    const suspects = [...this.#running].filter((name) => name.startsWith("lost"));
    if (suspects.length > 0) this.beside = Math.max(this.beside, this.#running.size - 1);
  }

  handlers = (noteMs: () => number | Promise<number>, lostMs = 30) => [
    note.handle(({ n }) => this.run(`note ${n}`, noteMs())),
    lost.handle(({ n }) => this.run(`lost ${n}`, lostMs)),
  ];
}

const addSuspects = async (db: TestDatabase, count: number, age: string, first = 0): Promise<unknown> =>
  await db.sql(
    `INSERT INTO task (identifier, payload, suspect_since, scheduled_for, attempt)
    SELECT 'lost', json_build_object('n', $2::int + n), clock_timestamp() - $3::interval, clock_timestamp() - $3::interval, 1 FROM generate_series(1, $1::int) AS n`,
    [count, first, age],
  );

const addNotes = async (db: TestDatabase, count: number): Promise<unknown> =>
  await createTaskClient({ database: db.database }).enqueueMany(
    note,
    Array.from({ length: count }, (_, n) => ({ n })),
  );

describe("who may claim", () => {
  const holder = (): Holder & { busy: boolean; holds: boolean; woken: number } => ({
    busy: false,
    holds: false,
    woken: 0,
    wake() {
      this.woken += 1;
    },
  });
  const open = () => {
    const [suspects, a, b] = [new Suspects(), holder(), holder()];
    const leave = suspects.join(a);
    suspects.join(b);
    return { suspects, a, b, leave };
  };

  test("without a suspect all claim, and nobody is woken", () => {
    const { suspects, a, b } = open();
    a.busy = a.holds = true;
    suspects.changed();
    expect([suspects.mayClaim(a), suspects.mayClaim(b)]).toEqual([true, true]);
    expect([suspects.isAlone(a), suspects.isAlone(b)]).toEqual([true, false]);
    expect([a.woken, b.woken]).toEqual([0, 0]);
  });

  test("nobody claims beside one that has a suspect; its end wakes all", () => {
    const { suspects, a, b } = open();
    a.busy = a.holds = true;
    suspects.took(a);
    expect([suspects.mayClaim(a), suspects.mayClaim(b)]).toEqual([false, false]);
    a.busy = false;
    suspects.changed();
    expect([suspects.mayClaim(a), suspects.mayClaim(b)]).toEqual([true, true]);
    expect([a.woken, b.woken]).toEqual([1, 1]);
  });

  test("two that starve do not wait for each other", () => {
    const { suspects, a, b } = open();
    suspects.starve(a, true);
    suspects.starve(b, true);
    b.busy = b.holds = true;
    expect([suspects.mayClaim(a), suspects.mayClaim(b)]).toEqual([false, false]);
    b.busy = b.holds = false;
    suspects.changed();
    expect([suspects.mayClaim(a), suspects.mayClaim(b)]).toEqual([true, true]);
    a.holds = true;
    expect([suspects.mayClaim(a), suspects.mayClaim(b)]).toEqual([true, false]);
  });

  test("one that leaves while it starves bars nobody", () => {
    const { suspects, a, b, leave } = open();
    suspects.starve(a, true);
    expect(suspects.mayClaim(b)).toBe(false);
    leave();
    expect(suspects.mayClaim(b)).toBe(true);
    expect(b.woken).toBe(1);
  });
});

const first = await openDatabase("pg");
const second = await openDatabase("pg");
beforeEach(async () => {
  await reset(first);
  await reset(second);
});

describe("in a container", () => {
  const work = async (watch: Watch, handlers: ReturnType<Watch["handlers"]>, total: number) => {
    const config = readConfig({
      DATABASE_URL: first.url!,
      TASK_PROCESSOR_DATABASE_URL: second.url!,
      TASK_PROCESSOR_NUM_THREADS: "3",
      TASK_PROCESSOR_SLEEP_INTERVAL_MS: "100",
      TASK_PROCESSOR_GRACE_PERIOD_MS: "20000",
      ENABLE_CLEAN_UP_OLD_TASKS: "false",
    });
    const stop = new AbortController();
    const databases = [first.database, second.database];
    const done = runTaskProcessor({ config, databases, handlers, log: silentLog, signal: stop.signal });
    try {
      await vi.waitUntil(() => watch.order.length >= total, 40_000);
    } finally {
      stop.abort();
      await done;
    }
    expect(await first.sql("SELECT FROM task_run WHERE result <> 'SUCCESS'")).toEqual([]);
  };

  test("suspects of two databases run one after another in all threads together", async () => {
    const watch = new Watch();
    await addSuspects(first, 3, "1 s");
    await addSuspects(second, 3, "1 s", 10);
    await work(
      watch,
      watch.handlers(() => 20),
      6,
    );
    expect(watch.beside).toBe(0);
    expect(new Set(watch.order).size).toBe(6);
  }, 180_000);

  test("those that starve run before the others' work is at its end, alone", async () => {
    const watch = new Watch();
    await addNotes(first, 600);
    let added: Promise<unknown> | undefined;
    const handlers = watch.handlers(async () => {
      // None that starts from here on ends before they are there.
      if (watch.order.length >= 60) {
        added ??= Promise.all([addSuspects(first, 1, "1 h"), addSuspects(second, 1, "1 h", 10)]);
        await added;
      }
      return 20 + Math.random() * 60;
    });
    await work(watch, handlers, 602);
    expect(watch.beside).toBe(0);
    expect(watch.order.lastIndexOf("lost 1")).toBeLessThan(400);
    expect(watch.order.lastIndexOf("lost 11")).toBeLessThan(400);
  }, 180_000);
});

describe("an exchange under way while a suspect is asked for", () => {
  const settings = { sleepIntervalMs: 100, graceMs: 60_000, queuePopSize: 10, backoffDefaultMs: 0, invocationMs: null };

  /** Two threads of one process over one database: the second hears its first answer when the suspect is the other's. */
  const side = (watch: Watch, suspects: Suspects, noteMs: () => number | Promise<number>) => {
    const taken = Promise.withResolvers<void>();
    const took = suspects.took.bind(suspects);
    vi.spyOn(suspects, "took").mockImplementation((holder) => {
      took(holder);
      taken.resolve();
    });
    const stop = new AbortController();
    let asked = (): void => {};
    const asking = new Promise<void>((resolve) => {
      asked = resolve;
    });
    let late = true;
    const query: Database["query"] = async (statement, values, options) => {
      const rows = await first.database.query(statement, values, options);
      if (statement.name === exchange.name && late) {
        late = false;
        asked();
        await taken.promise;
      }
      return rows;
    };
    const start = (slot: number, database: Database, more: Partial<InvocationOptions> = {}) =>
      runInvocation({
        databases: [database],
        registry: createRegistry(watch.handlers(noteMs), null),
        slot,
        resident: true,
        settings,
        suspects,
        log: silentLog,
        signal: stop.signal,
        ...more,
      });
    return { stop, asking, start, slow: { ...first.database, query } };
  };

  afterEach(() => void vi.restoreAllMocks());

  /** As short as the time is in which a suspect waits, however slow the machine. */
  const short = (): number => {
    vi.spyOn(Ahead.prototype, "giveBack").mockReturnValue();
    vi.spyOn(Ahead.prototype, "lateInMs", "get").mockReturnValue(Number.POSITIVE_INFINITY);
    return 50;
  };
  /** Until the suspect, claimed for the second time, is given back. */
  const long = async (): Promise<number> => {
    const back = "SELECT FROM task WHERE identifier = 'lost' AND attempt = 2 AND held_by IS NULL";
    await vi.waitUntil(async () => (await first.sql(back)).length === 1, 20_000);
    return 0;
  };

  test.each([
    ["short tasks: the suspect waits for them", short, 2],
    ["long ones: the suspect is given back, forgiven, and runs later", long, 3],
  ])(
    "%s",
    async (_, noteMs, attempt) => {
      const watch = new Watch();
      const suspects = new Suspects();
      const { stop, asking, start, slow } = side(watch, suspects, noteMs);
      await addNotes(first, 2);
      const late = start(0, slow);
      await asking;
      // Before the notes, and not one that starves.
      await addSuspects(first, 1, "30 s");
      // As one that asked before the other did, and so found itself alone.
      const alone = vi.spyOn(suspects, "isAlone").mockReturnValueOnce(true);
      const prompt = start(1, first.database);
      await vi.waitUntil(() => watch.order.length === 3, 20_000);
      expect(alone).toHaveBeenCalled();
      stop.abort();
      await Promise.all([late, prompt]);
      expect(watch.beside).toBe(0);
      expect(watch.order.at(-1)).toBe("lost 1");
      expect(await first.sql("SELECT result, attempt FROM task_run WHERE identifier = 'lost'")).toEqual([
        { result: "SUCCESS", attempt },
      ]);
    },
    180_000,
  );
});
