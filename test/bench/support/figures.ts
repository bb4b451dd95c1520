/** What a module of the bench gives. */
export interface BenchOptions {
  /** Small and once: a smoke test, whose figures mean nothing. */
  readonly quick: boolean;
}

/** By what they are, unit last. */
export type Figures = Readonly<Record<string, number | string>>;

export interface Target {
  /** A figure's name. */
  readonly figure: string;
  readonly atLeast?: number;
  readonly atMost?: number;
}

export interface BenchModule {
  /** One sentence: what is measured, under which configuration, in which unit. */
  readonly about: string;
  /** @throws Error when a result is wrong: a task that did not run exactly once, a history with gaps */
  bench(options: BenchOptions): Promise<Figures>;
  readonly targets?: readonly Target[];
  /** Figures to draw beside each other: a rate each. */
  readonly charted?: readonly string[];
}

/** In the order they are run and shown. A test holds this equal to the folder. */
export const NAMES = [
  "drain",
  "drain-data-api",
  "burst",
  "small",
  "limit",
  "requests",
  "enqueue",
  "backlog",
  "old-snapshot",
  "latency",
  "blocked",
  "mixed",
  "io",
  "slots",
  "cold-start",
  "memory",
  "data-api",
  "stats",
] as const;

export type Name = (typeof NAMES)[number];

export const load = async (name: Name): Promise<BenchModule> => (await import(`../${name}.ts`)) as BenchModule;

/** "at least 2", "at most 1.3", "exactly 1", or nothing. */
export const wording = ({ atLeast, atMost }: Partial<Target> = {}): string => {
  if (atLeast !== undefined && atLeast === atMost) return `exactly ${atLeast}`;
  return [atLeast !== undefined && `at least ${atLeast}`, atMost !== undefined && `at most ${atMost}`]
    .filter(Boolean)
    .join(", ");
};

export const isMet = (
  { atLeast = Number.NEGATIVE_INFINITY, atMost = Number.POSITIVE_INFINITY }: Target,
  value: number,
): boolean => value >= atLeast && value <= atMost;
