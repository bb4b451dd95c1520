import { type Figures, isMet, type Target, wording } from "./figures.ts";

export interface Row {
  readonly figure: string;
  readonly value: string;
  readonly target: string;
  readonly met: string;
}

export function rowsOf(figures: Figures, targets: readonly Target[]): Row[] {
  return Object.entries(figures).map(([figure, value]) => {
    const target = targets.find((one) => one.figure === figure);
    const met = target === undefined ? "" : isMet(target, Number(value)) ? "yes" : "no";
    return { figure, value: typeof value === "number" ? grouped(value) : value, target: wording(target), met };
  });
}

/** 12,345 and 0.98: as many digits as the figure was given with. */
const grouped = (value: number): string => value.toLocaleString("en-US", { maximumFractionDigits: 3 });

export function plainTable(figures: Figures, targets: readonly Target[]): string {
  const rows = rowsOf(figures, targets);
  const width = (pick: (row: Row) => string): number => Math.max(...rows.map((row) => pick(row).length));
  const figure = width((row) => row.figure);
  const value = width((row) => row.value);
  return rows
    .map((row) => {
      const judged = row.target === "" ? "" : `  ${row.target}: ${row.met === "yes" ? "met" : "MISSED"}`;
      return `  ${row.figure.padEnd(figure)}  ${row.value.padStart(value)}${judged}`;
    })
    .join("\n");
}

export const markdownTable = (figures: Figures, targets: readonly Target[]): string =>
  [
    "| figure | value | target | met |",
    "|---|---:|---|---|",
    ...rowsOf(figures, targets).map(
      ({ figure, value, target, met }) => `| ${figure} | ${value} | ${target} | ${met} |`,
    ),
  ].join("\n");
