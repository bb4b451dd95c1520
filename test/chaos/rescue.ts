/** How long the tasks of a killed resident wait: kills one that holds some, and takes the time until each runs again. */
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { createTaskClient } from "../../lib/index.ts";
import { Random } from "./random.ts";
import { Counts } from "./report.ts";
import { type Invoked, Scheduler } from "./scheduler.ts";
import { KINDS, RESCUE } from "./tasks.ts";
import { createWorld, type World } from "./world.ts";

export interface RescueOptions {
  readonly seed: number;
  readonly kills: number;
  readonly write: (line: string) => void;
}

interface Distribution {
  readonly withinBound: number;
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** The proportions of the defaults (20 s, 60 s, 2 s), a tenth of the time: the start of a process is not scaled down with them. */
const GRACE_MS = 2000;
const EVERY_MS = 6000;
const SLEEP_MS = 200;
const HELD = 3;

export async function measureRescue({ seed, kills, write }: RescueOptions): Promise<Record<string, unknown>> {
  const answer: Record<string, unknown> = { seed, graceMs: GRACE_MS, everyMs: EVERY_MS, sleepIntervalMs: SLEEP_MS };
  await Promise.all(
    ([1, 2] as const).map(async (residents) => {
      const name = residents === 1 ? "oneResident" : "twoResidents";
      answer[name] = await measure(new Random(seed), residents, kills, write);
      write(`${name}: ${JSON.stringify(answer[name])}`);
    }),
  );
  return answer;
}

async function measure(
  random: Random,
  residents: number,
  kills: number,
  write: RescueOptions["write"],
): Promise<object> {
  const boundMs = Math.round(residents === 1 ? GRACE_MS + EVERY_MS : (GRACE_MS + SLEEP_MS) * 1.05);
  const settings = {
    graceMs: GRACE_MS,
    sleepIntervalMs: SLEEP_MS,
    queuePopSize: HELD,
    backoffDefaultMs: 0,
    invocationMs: EVERY_MS * 2,
  };
  const world = await createWorld(settings);
  // A bound of one tick is one of regular ticks: anywhere within their intervals, two can be almost two intervals apart.
  const timing = { slots: residents, residents, everyMs: EVERY_MS, jitter: 0, limitMs: EVERY_MS * 2, settings };
  const scheduler = new Scheduler(world, timing, random, new Counts());
  const database = world.connect("pg");
  try {
    const client = createTaskClient({ database });
    const first: number[] = [];
    const last: number[] = [];
    scheduler.start();
    while (first.length < kills) {
      // Anywhere between two ticks.
      await sleep(random.between(0, EVERY_MS));
      await seated(world, residents);
      const payloads = Array.from({ length: HELD }, () => ({ token: RESCUE }));
      const answer = await client.enqueueMany(KINDS.holds, payloads);
      const waits = await killAndWait(world, scheduler, answer.status === "enqueued" ? answer.ids : []);
      if (waits.length === 0) continue;
      if (waits[0]! > boundMs) for (const line of await whoWas(world, waits[0]!)) write(`  ${line}`);
      first.push(waits[0]!);
      last.push(waits.at(-1)!);
    }
    return { kills, boundMs, first: distribution(first, boundMs), last: distribution(last, boundMs) };
  } finally {
    await scheduler.kill();
    await database.close();
    await world.close();
  }
}

/** The kill before this one has emptied a seat: until the next tick has filled it, there is one resident less. */
async function seated(world: World, residents: number): Promise<void> {
  const settled = `SELECT 1 FROM slot s JOIN heartbeat h ON h.invocation_id = s.holder
    WHERE h.ended_at IS NULL AND h.expired_at IS NULL AND h.last_seen_at > clock_timestamp() - $1 * interval '0.5 milliseconds'
      AND h.last_seen_at - h.seen_since > $1 * interval '0.25 milliseconds'`;
  while ((await world.sql(settled, [GRACE_MS])).length < residents) await sleep(20);
}

/** Milliseconds from the kill of their holder to the claim of each of its tasks, in order. */
async function killAndWait(world: World, scheduler: Scheduler, ids: readonly string[]): Promise<number[]> {
  let killedAt = 0;
  let held: string[] = [];
  for (let tries = 0; tries < 1000 && killedAt === 0; tries += 1) {
    await sleep(10);
    const rows = await world.sql<{ id: string; holder: string }>(
      "SELECT CAST(id AS text) AS id, held_by AS holder FROM task WHERE held_by IS NOT NULL AND id = ANY (CAST($1 AS bigint[]))",
      [ids],
    );
    const holder = rows[0]?.holder;
    const invoked = holder && processOf(scheduler, holder);
    if (!invoked) continue;
    held = rows.filter((row) => row.holder === holder).map(({ id }) => id);
    killedAt = Date.now();
    invoked.child.kill("SIGKILL");
  }
  for (;;) {
    const claims = await world.sql<{ at: Date }>(
      "SELECT at FROM chaos.claim WHERE attempt = 2 AND task = ANY (CAST($1 AS bigint[])) ORDER BY at",
      [held],
    );
    if (claims.length === held.length) return claims.map(({ at }) => at.getTime() - killedAt);
    await sleep(20);
  }
}

/** Who was there while the tasks waited for longer than they should have: milliseconds before their claim. */
async function whoWas(world: World, waitedMs: number): Promise<string[]> {
  const before = (column: string): string =>
    `CAST(EXTRACT(epoch FROM c.at - ${column}) * 1000 AS integer) AS ${column.replace("h.", "")}`;
  const rows = await world.sql<object>(
    `SELECT h.slot, h.epoch, ${["h.started_at", "h.seen_since", "h.last_seen_at", "h.expired_at", "h.ended_at"].map(before).join(", ")}
     FROM heartbeat h, (SELECT max(at) AS at FROM chaos.claim WHERE attempt = 2) c
     WHERE h.last_seen_at > c.at - ($1 + 2 * $2) * interval '1 millisecond' ORDER BY h.started_at`,
    [waitedMs, GRACE_MS],
  );
  return [`waited ${waitedMs} ms; milliseconds before the claim:`, ...rows.map((row) => JSON.stringify(row))];
}

const processOf = (scheduler: Scheduler, invocation: string): Invoked | undefined =>
  [...scheduler.running].find(
    ({ logFile }) => existsSync(logFile) && readFileSync(logFile, "utf8").includes(invocation),
  );

function distribution(waits: readonly number[], boundMs: number): Distribution {
  const sorted = waits.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
  const withinBound = sorted.filter((wait) => wait <= boundMs).length;
  return { withinBound, p50Ms: at(0.5), p90Ms: at(0.9), p99Ms: at(0.99), maxMs: at(1) };
}
