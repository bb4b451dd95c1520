/** The bill and the waits of a month, as a table for people and as JSON. */
import { PRICES, REGION, totalOf } from "./prices.ts";
import type { Percentiles, Simulated } from "./simulate.ts";
import { type Line, sumOf } from "./usage.ts";
import { MONTH_MS } from "./workload.ts";

export interface Column {
  readonly name: string;
  readonly lines: readonly Line[];
  /** What was simulated; the alternatives are arithmetic. */
  readonly month?: Simulated;
}

/** USD by line and in all, amounts, waits in milliseconds. */
export function jsonOf(columns: readonly Column[], freeTier: boolean): Record<string, unknown> {
  return Object.fromEntries(
    columns.map(({ name, lines, month }) => [
      name,
      {
        usd: Object.fromEntries(lines.map(({ what, usage }) => [what, totalOf(usage, freeTier)])),
        totalUsd: sumOf(lines, freeTier),
        usage: Object.fromEntries(lines.map(({ what, usage }) => [what, usage])),
        ...(month && { month }),
      },
    ]),
  );
}

export function textOf(columns: readonly Column[], freeTier: boolean): string {
  const whats = [...new Set(columns.flatMap(({ lines }) => lines.map(({ what }) => what)))];
  const money = whats.map((what) => [
    what,
    ...columns.map(({ lines }) => {
      const line = lines.find((one) => one.what === what);
      return line === undefined ? "" : usd(totalOf(line.usage, freeTier));
    }),
  ]);
  const simulated = (what: string, show: (month: Simulated) => string): string[] => [
    what,
    ...columns.map(({ month }) => (month === undefined ? "" : show(month))),
  ];
  const rows = [
    [`USD a month, ${REGION}`, ...columns.map(({ name }) => name)],
    ...money,
    ["in all", ...columns.map(({ lines }) => usd(sumOf(lines, freeTier)))],
    [""],
    simulated("pick-up p50 / p99", ({ pickUpMs }) => waits(pickUpMs)),
    simulated("rescue p50 / p99", ({ rescueMs }) => waits(rescueMs)),
    simulated("invocations", ({ invocations }) => amount(invocations)),
    simulated("requests to the database", ({ requests }) => amount(requests)),
    simulated("Aurora awake", ({ awakeMs }) => `${Math.round((awakeMs / MONTH_MS) * 100)} %`),
    simulated("simulated of the month", ({ sampledMs }) => span(sampledMs)),
  ];
  const behind = columns.filter(({ month }) => month?.fallsBehind).map(({ name }) => name);
  const notes = [
    ...behind.map((name) => `${name}: falls behind. More slots or places are needed; its waits grow without end.`),
    `Free tiers are ${freeTier ? "taken off" : "not taken off"}. Aurora is counted in full: take it off where it is awake anyway.`,
    "Prices, assumptions and what could not be verified: infra/cost/README.md.",
  ];
  return `${aligned(rows)}\n\n${notes.join("\n")}\n`;
}

/** The table of prices, in Markdown. */
export function priceTable(): string {
  const rows = Object.values(PRICES).map((price: (typeof PRICES)[keyof typeof PRICES]) => {
    const tiers = price.tiers.map(({ from, usd: each }) => `${small(each)}${from > 0 ? ` from ${amount(from)}` : ""}`);
    const free = price.freeUnits > 0 ? amount(price.freeUnits) : "";
    const doubt = "doubt" in price ? price.doubt : "";
    return `| ${price.what} | ${tiers.join(", ")} | ${price.unit} | ${free} | ${price.asOf} | [source](${price.source}) | ${doubt} |`;
  });
  return [
    "| what | USD | a | free a month | as of | where | not certain |",
    "|---|---|---|---|---|---|---|",
    ...rows,
  ].join("\n");
}

const usd = (amountUsd: number): string => (amountUsd >= 1000 ? amount(amountUsd) : amountUsd.toFixed(2));

const small = (amountUsd: number): string =>
  amountUsd < 1e-5 ? `${Number((amountUsd * 1e6).toPrecision(3))} a million` : String(amountUsd);

function amount(value: number): string {
  if (value >= 1e9) return `${Number((value / 1e9).toPrecision(3))} G`;
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
  return value >= 1e4 ? `${Math.round(value / 1000)} k` : String(Math.round(value));
}

const waits = ({ p50, p99 }: Percentiles): string => (Number.isNaN(p50) ? "none" : `${seconds(p50)} / ${seconds(p99)}`);

const seconds = (ms: number): string => (ms < 10_000 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 1000).toFixed(0)} s`);

const span = (ms: number): string => {
  if (ms > MONTH_MS * 0.999) return "all";
  return ms > 86_400_000 ? `${(ms / 86_400_000).toFixed(1)} days` : `${(ms / 60_000).toFixed(1)} min`;
};

function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join("  "),
    )
    .map((line) => line.trimEnd())
    .join("\n");
}
