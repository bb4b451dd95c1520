/** Charts as SVG made by the server: they need no script, follow the colour scheme, and stand beside a table of the same numbers. */
import { max, nice, ticks } from "d3-array";
import { stack } from "d3-shape";
import type { Count, Stats } from "../stats-schema.ts";
import { clockTime, count, duration, runs, whole } from "./format.ts";
import { type Html, html } from "./html.ts";

const HEIGHT = 100;
const BAR = 10;
type Minute = Stats["throughput"][number];

/** Runs that finished in each of 60 minutes, failed ones on top. */
export function throughputChart(minutes: readonly Minute[]): Html {
  const most = max(minutes, (one) => one.succeeded + one.failed) ?? 0;
  const [, top] = nice(0, Math.max(most, 4), 4);
  const steps = ticks(0, top, 4);
  const series = stack<Minute, "succeeded" | "failed">().keys(["succeeded", "failed"])([...minutes]);
  const y = (value: number): number => Math.round((1 - value / top) * HEIGHT * 100) / 100;
  const bars = series.map((one) =>
    one.map(([low, high], index) =>
      high > low
        ? html`<rect class="${one.key}" x="${index * BAR + 1}" y="${y(high)}" width="${BAR - 2}" height="${(y(low) - y(high)).toFixed(2)}" />`
        : null,
    ),
  );
  const all = runs(minutes);
  const failed = { count: minutes.reduce((sum, one) => sum + one.failed, 0), estimated: all.estimated };
  const busiest = {
    count: most,
    estimated: minutes.some((one) => one.estimated && one.succeeded + one.failed === most),
  };
  return html`<div class="chart" role="img" aria-label="Runs per minute over the last hour: ${count(all)} in all, ${count(failed)} of them failed, ${count(busiest)} in the busiest minute. The table below has each minute.">
  <div class="y" aria-hidden="true">${[...steps].reverse().map((step) => html`<span>${whole(step)}</span>`)}</div>
  <div class="plot" aria-hidden="true">
    <svg viewBox="0 0 ${minutes.length * BAR} ${HEIGHT}" preserveAspectRatio="none" focusable="false">
      ${steps.map((step) => html`<line class="grid" x1="0" x2="${minutes.length * BAR}" y1="${y(step)}" y2="${y(step)}" />`)}
      ${bars}
    </svg>
    <div class="hits">${minutes.map((one) => html`<i><b>${clockTime(one.minute).slice(0, 5)} ${estimate(one)}${whole(one.succeeded)} ok${one.failed > 0 && html`, <em>${estimate(one)}${whole(one.failed)} failed</em>`}</b></i>`)}</div>
  </div>
  <div class="x" aria-hidden="true">${[0, 15, 30, 45].map((at) => html`<span>${minutes[at] && clockTime(minutes[at].minute).slice(0, 5)}</span>`)}<span>now</span></div>
</div>
<details class="numbers" id="throughput-numbers"><summary>As a table</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Runs per minute"><table>
  <thead><tr><th scope="col">Minute, UTC</th><th scope="col" class="n">Succeeded</th><th scope="col" class="n">Failed</th></tr></thead>
  <tbody>${[...minutes].reverse().map((one) => html`<tr><th scope="row">${clockTime(one.minute).slice(0, 5)}</th><td class="n">${estimate(one)}${whole(one.succeeded)}</td><td class="n">${estimate(one)}${whole(one.failed)}</td></tr>`)}</tbody>
</table></div></details>`;
}

const estimate = (one: Minute): string => (one.estimated ? "~ " : "");

interface Spread {
  readonly label: string;
  readonly runs: Count;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
}

/** From the median to the slowest percent, on a logarithmic axis of whole decades. */
export function durationsChart(rows: readonly Spread[]): Html {
  const low = Math.floor(Math.log10(Math.max(0.1, Math.min(...rows.map((row) => row.p50Ms)))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(1, ...rows.map((row) => row.p99Ms)))));
  const x = (ms: number): string => (((Math.log10(Math.max(ms, 10 ** low)) - low) / (high - low)) * 1000).toFixed(1);
  const decades = ticks(low, high, high - low).filter(Number.isInteger);
  return html`<table class="spread">
  <thead><tr><th scope="col">Identifier</th><th scope="col"><span class="sr">Spread</span><span class="decades" aria-hidden="true">${decades.map((one) => html`<span>${decade(one)}</span>`)}</span></th>
    <th scope="col" class="n">p50</th><th scope="col" class="n minor">p95</th><th scope="col" class="n">p99</th></tr></thead>
  <tbody>${rows.map(
    (
      row,
    ) => html`<tr data-key="d-${row.label}"><th scope="row" title="${row.label}"><span class="clip">${row.label}</span><small>${count(row.runs)} ${row.runs.count === 1 ? "run" : "runs"}</small></th>
    <td class="range"><svg viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true" focusable="false">
      ${decades.map((one) => html`<line class="grid" x1="${x(10 ** one)}" x2="${x(10 ** one)}" y1="0" y2="20" />`)}
      <line class="span" x1="${x(row.p50Ms)}" x2="${x(row.p99Ms)}" y1="10" y2="10" />
      <line class="p50" x1="${x(row.p50Ms)}" x2="${x(row.p50Ms)}" y1="4" y2="16" />
      <line class="p95" x1="${x(row.p95Ms)}" x2="${x(row.p95Ms)}" y1="5" y2="15" />
      <line class="p99" x1="${x(row.p99Ms)}" x2="${x(row.p99Ms)}" y1="5" y2="15" />
    </svg></td><td class="n">${duration(row.p50Ms)}</td><td class="n minor">${duration(row.p95Ms)}</td><td class="n">${duration(row.p99Ms)}</td></tr>`,
  )}</tbody></table>`;
}

const decade = (power: number): string => {
  const ms = 10 ** power;
  if (ms < 1000) return `${ms} ms`;
  return `${whole(ms / 1000)} s`;
};
