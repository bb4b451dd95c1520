/** Interleaved rounds: what disturbs the machine for a while disturbs every contestant. */
import { cpus } from "node:os";
import { pause } from "../../../lib/clock.ts";

export interface Times {
  readonly median: number;
  /** A tenth of the calls were faster: on a busy machine nearer to what a call costs. */
  readonly tenth: number;
}

/** Milliseconds a call. */
export const interleaved = <Name extends string>(
  contestants: Readonly<Record<Name, () => Promise<unknown>>>,
  how: { rounds: number; calls: number; warmUp?: number },
): Promise<Record<Name, Times>> =>
  interleavedTimes(
    Object.fromEntries(
      Object.entries<() => Promise<unknown>>(contestants).map(([name, call]) => [name, () => timed(call)]),
    ) as Record<Name, () => Promise<number>>,
    how,
  );

/** As interleaved, where each call says how many milliseconds count: what it prepares does not. */
export async function interleavedTimes<Name extends string>(
  contestants: Readonly<Record<Name, () => Promise<number>>>,
  { rounds, calls, warmUp = calls }: { rounds: number; calls: number; warmUp?: number },
): Promise<Record<Name, Times>> {
  const names = Object.keys(contestants) as Name[];
  const times = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  for (const name of names) for (let call = 0; call < warmUp; call++) await contestants[name]();
  for (let round = 0; round < rounds; round++)
    for (const name of rotated(names, round))
      for (let call = 0; call < calls; call++) times[name].push(await contestants[name]());
  return Object.fromEntries(
    names.map((name) => [name, { median: quantile(times[name], 0.5), tenth: quantile(times[name], 0.1) }]),
  ) as Record<Name, Times>;
}

/**
 * The median of what each contestant says of its turn, once a round. Before the first, each has one turn of a size that does not count, so
 * that the first is not the one that compiles.
 */
export async function rounds<Name extends string>(
  contestants: Readonly<Record<Name, (tasks: number) => Promise<number>>>,
  { tasks, warmUp, count }: { tasks: number; warmUp: number; count: number },
): Promise<Record<Name, number>> {
  const names = Object.keys(contestants) as Name[];
  const heard = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  if (warmUp > 0) for (const name of names) await contestants[name](warmUp);
  for (let round = 0; round < count; round++)
    for (const name of rotated(names, round)) heard[name].push(await contestants[name](tasks));
  return Object.fromEntries(names.map((name) => [name, rounded(quantile(heard[name], 0.5), 1)])) as Record<
    Name,
    number
  >;
}

/** Each goes first as often as any other. */
const rotated = <Name>(names: readonly Name[], round: number): Name[] =>
  names.map((_, place) => names[(round + place) % names.length]!);

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

/** @param part 0.5 for the median */
export const quantile = (values: readonly number[], part: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))]!;

export const rounded = (value: number, digits = 3): number => Number(value.toFixed(digits));

/** How many cores are busy, over three seconds in which this process does nothing. */
export async function busyCores(): Promise<number> {
  const count = () => cpus().reduce((sum, { times: { user, nice, sys, irq } }) => sum + user + nice + sys + irq, 0);
  const before = count();
  const ms = await timed(() => pause(3000));
  return rounded((count() - before) / ms, 2);
}
