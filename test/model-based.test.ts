import fc from "fast-check";
import { expect, test } from "vitest";
import { begin, commands, Real } from "./model/real.ts";
import { openDatabase } from "./support/database.ts";

const NUM_RUNS = Number(process.env.STINT_MODEL_RUNS ?? 200);

test("whatever invocations do and suffer, the exchange leaves the database as the pure model says", {
  timeout: 60_000 + NUM_RUNS * 1000,
}, async () => {
  const real = new Real(await openDatabase("pg"));
  await fc.assert(
    fc.asyncProperty(commands(), async (sequence) => {
      await fc.asyncModelRun(() => begin(real), sequence);
    }),
    {
      numRuns: NUM_RUNS,
      ...(process.env.STINT_MODEL_SEED !== undefined && { seed: Number(process.env.STINT_MODEL_SEED) }),
    },
  );
  // Sequences in which nothing happens would prove nothing.
  if (process.env.STINT_MODEL_RUNS !== undefined) console.log(Object.fromEntries(real.seen));
  for (const what of [
    "ok",
    "gone",
    "old",
    "seat_taken",
    "repeated",
    "superseded",
    "rescued",
    "suspect told",
    "told again",
    "forged",
  ])
    expect(real.seen.get(what) ?? 0, what).toBeGreaterThan(NUM_RUNS / 50);
});
