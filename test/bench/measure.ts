export interface Times {
  readonly median: number;
  /** A tenth of the calls were faster: on a busy machine nearer to what a call costs. */
  readonly tenth: number;
}

/** Milliseconds a call. Interleaved rounds: what disturbs the machine for a while disturbs every contestant. */
export async function interleaved<Name extends string>(
  contestants: Readonly<Record<Name, () => Promise<unknown>>>,
  { rounds, calls, warmUp = calls }: { rounds: number; calls: number; warmUp?: number },
): Promise<Record<Name, Times>> {
  const names = Object.keys(contestants) as Name[];
  const times = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  for (const name of names) for (let call = 0; call < warmUp; call++) await contestants[name]();
  for (let round = 0; round < rounds; round++) {
    // Each goes first as often as any other.
    for (let place = 0; place < names.length; place++) {
      const name = names[(round + place) % names.length]!;
      for (let call = 0; call < calls; call++) {
        const startedAt = performance.now();
        await contestants[name]();
        times[name].push(performance.now() - startedAt);
      }
    }
  }
  const quantile = (name: Name, part: number) =>
    times[name].sort((a, b) => a - b)[Math.floor(times[name].length * part)]!;
  return Object.fromEntries(
    names.map((name) => [name, { median: quantile(name, 0.5), tenth: quantile(name, 0.1) }]),
  ) as Record<Name, Times>;
}

export const rounded = (value: number, digits = 3): number => Number(value.toFixed(digits));
