/** Numbers, durations and moments as a person reads them. Moments are in UTC. */
import type { Count } from "../stats-schema.ts";
import { type Html, html } from "./html.ts";

export const whole = (value: number): string => value.toLocaleString("en-US", { maximumFractionDigits: 0 });

/** An estimate says so: `~ 1,200,000`, two digits of it. */
export function count({ count: value, estimated }: Count): string {
  if (!estimated) return whole(value);
  const unit = 10 ** Math.max(0, Math.floor(Math.log10(Math.max(1, value))) - 1);
  return `~ ${whole(Math.round(value / unit) * unit)}`;
}

/** Runs of a window, or of several. */
export const runs = (all: readonly { succeeded: number; failed: number; estimated: boolean }[]): Count => ({
  count: all.reduce((sum, one) => sum + one.succeeded + one.failed, 0),
  estimated: all.some((one) => one.estimated),
});

export function duration(ms: number | null): string {
  if (ms === null) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const pair = (large: number, one: string, small: number, other: string): string =>
    small === 0 ? `${large} ${one}` : `${large} ${one} ${small} ${other}`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return pair(minutes, "min", Math.floor(seconds % 60), "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return pair(hours, "h", minutes % 60, "min");
  return pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

export const clockTime = (iso: string): string => new Date(iso).toISOString().slice(11, 19);

/** `2 min ago`, `in 5 s`; the moment itself stands in the title. */
export function when(iso: string | null, now: string): Html {
  if (iso === null) return html`<span class="none">–</span>`;
  const away = Date.parse(iso) - Date.parse(now);
  const text = Math.abs(away) < 1000 ? "now" : away < 0 ? `${duration(-away)} ago` : `in ${duration(away)}`;
  return html`<time datetime="${iso}" title="${moment(iso)}">${text}</time>`;
}

/** `2026-11-24 12:03:04 UTC` */
export const moment = (iso: string): string => `${new Date(iso).toISOString().slice(0, 19).replace("T", " ")} UTC`;

export const plural = (value: number, one: string, many = `${one}s`): string =>
  `${whole(value)} ${value === 1 ? one : many}`;

const PRIORITIES: Readonly<Record<number, string>> = {
  0: "Highest",
  25: "High",
  50: "Normal",
  75: "Low",
  100: "Lower",
};
export const PRIORITY_NAMES = Object.entries(PRIORITIES).map(([value, name]) => ({ value: Number(value), name }));
export const priorityName = (value: number | null): string =>
  value === null ? "–" : (PRIORITIES[value] ?? `${value}`);

/** Stored as the JSON of its definition: `every 5m`, `0 3 * * * in Europe/Berlin`. */
export function scheduleText(stored: string): string {
  try {
    const { every, cron, timeZone } = JSON.parse(stored) as { every?: unknown; cron?: unknown; timeZone?: unknown };
    if (every !== undefined) return `every ${every}`;
    if (cron !== undefined) return timeZone === undefined ? String(cron) : `${cron} in ${timeZone}`;
  } catch {
    // Text already.
  }
  return stored;
}
