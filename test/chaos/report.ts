/** Counters, and what a run prints. */
export class Counts {
  readonly #counts = new Map<string, number>();

  add(name: string, count = 1): void {
    this.#counts.set(name, this.of(name) + count);
  }

  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  addAll(others: Counts): void {
    for (const [name, count] of others.#counts) this.add(name, count);
  }

  /** The greatest value seen. */
  most(name: string, value: number): void {
    this.#counts.set(name, Math.max(this.of(name), value));
  }

  sum(prefix: string): number {
    return [...this.#counts].reduce((sum, [name, count]) => (name.startsWith(prefix) ? sum + count : sum), 0);
  }

  toJSON(): Record<string, number> {
    return Object.fromEntries([...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

export interface Broken {
  readonly invariant: number | "connections";
  readonly what: string;
  readonly task?: string | undefined;
}

export interface Outcome {
  readonly seed: number;
  readonly seconds: number;
  /** Tasks that were ever stored. */
  readonly tasks: number;
  readonly states: Readonly<Record<string, number>>;
  /** Processes that died before the calm: killed, or of a task of theirs. */
  readonly kills: number;
  readonly lost: number;
  readonly invariants: Readonly<Record<string, number>>;
  readonly faults: Readonly<Record<string, number>>;
  readonly measured: Readonly<Record<string, number>>;
}

export const INVARIANTS: Readonly<Record<number, string>> = {
  1: "one process that believes in its lease",
  2: "one accepted result per attempt",
  3: "expired or ended changes nothing",
  4: "epochs grow, only the newest holder frees",
  5: "a silent holder's tasks are rescued",
  6: "a due task is claimed",
  7: "attempts are bounded, a suspect is alone",
  8: "nothing is lost, nothing is made up",
  9: "one task per occurrence",
  10: "a repeated exchange does nothing more",
  11: "nothing is held that was never told",
  12: "one resident a slot but for a hand-over",
  13: "wake chains end",
};

export function printOutcome(outcome: Outcome, write: (line: string) => void): void {
  const table = (title: string, values: Readonly<Record<string, number>>): void => {
    write(`\n${title}`);
    for (const [name, count] of Object.entries(values)) write(`  ${name.padEnd(36)} ${String(count).padStart(9)}`);
  };
  write(
    `\nseed ${outcome.seed}, ${outcome.seconds} s, ${outcome.tasks} tasks, ${outcome.kills} processes killed, ${outcome.lost} lost`,
  );
  table("tasks", outcome.states);
  table("injected", outcome.faults);
  table("measured", outcome.measured);
  write("\ninvariants broken");
  for (const [number, count] of Object.entries(outcome.invariants))
    write(`  ${number.padStart(2)} ${INVARIANTS[Number(number)]!.padEnd(44)} ${String(count).padStart(6)}`);
}
