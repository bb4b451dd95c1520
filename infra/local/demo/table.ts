import { type KindCount, sumOf } from "./counts.ts";
import { KINDS } from "./tasks.ts";

const COUNTS = ["enqueued", "succeeded", "failed", "retried", "runs"] as const;

/** For people: a row a kind, in the order in which the demo explains them, and their sum. */
export function table(kinds: readonly KindCount[]): string {
  const order = Object.keys(KINDS);
  const sorted = [...kinds].sort((a, b) => order.indexOf(a.identifier) - order.indexOf(b.identifier));
  const numbers = (counts: Omit<KindCount, "identifier">): string[] => COUNTS.map((name) => format(counts[name]));
  const body = sorted.map((kind) => [kind.identifier, ...numbers(kind), KINDS[kind.identifier] ?? ""]);
  const rows = [["kind", ...COUNTS, ""], ...body, ["in all", ...numbers(sumOf(kinds)), ""]];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const isText = (column: number): boolean => column === 0 || column === COUNTS.length + 1;
  const lines = rows.map((row) =>
    row
      .map((cell, column) => (isText(column) ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join("  ")
      .trimEnd(),
  );
  const rule = "-".repeat(Math.max(...lines.map((line) => line.length)));
  return [lines[0], rule, ...lines.slice(1, -1), rule, lines.at(-1)].join("\n");
}

export const format = (count: number): string => count.toLocaleString("en-US");
