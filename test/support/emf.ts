/** Reads CloudWatch's embedded metric format, and refuses what CloudWatch would drop in silence. */
import { expect } from "vitest";

export interface MetricsDocument {
  readonly namespace: string;
  readonly dimensions: readonly Record<string, string>[];
  readonly values: Readonly<Record<string, readonly number[]>>;
}

const UNITS = new Set(
  "Seconds,Microseconds,Milliseconds,Bytes,Kilobytes,Megabytes,Gigabytes,Terabytes,Bits,Kilobits,Megabits,Gigabits,Terabits,Percent,Count,None".split(
    ",",
  ),
);
const MOST_BYTES = 1_048_576;

/** The documents among the lines, checked by the rules of the Embedded Metric Format Specification. */
export const documentsIn = (output: string): MetricsDocument[] =>
  output
    .trim()
    .split("\n")
    .filter((line) => line.includes('"_aws"'))
    .map(check);

function check(line: string): MetricsDocument {
  expect(Buffer.byteLength(line)).toBeLessThan(MOST_BYTES);
  const document = JSON.parse(line);
  const { Timestamp, CloudWatchMetrics } = document._aws;
  expect(Number.isInteger(Timestamp)).toBe(true);
  expect(Math.abs(Date.now() - Timestamp)).toBeLessThan(2 * 3_600_000);
  expect(CloudWatchMetrics).toHaveLength(1);
  const [{ Namespace, Dimensions, Metrics, ...rest }] = CloudWatchMetrics;
  expect(rest).toEqual({});
  expect(Namespace).toMatch(/^[\w.\-/#:]{1,255}$/);
  expect(Dimensions.length).toBeGreaterThan(0);
  const dimensions = Dimensions.map((set: string[]) => {
    expect(set.length).toBeLessThanOrEqual(30);
    for (const name of set) expect(document[name], name).toMatch(/^[\x20-\x7e]{1,1024}$/);
    return Object.fromEntries(set.map((name) => [name, document[name]]));
  });
  expect(Metrics.length).toBeGreaterThan(0);
  expect(Metrics.length).toBeLessThanOrEqual(100);
  const values: Record<string, number[]> = {};
  for (const { Name, Unit, ...more } of Metrics) {
    expect(more).toEqual({});
    expect(Name).toMatch(/^\S.{0,1023}$/);
    expect(UNITS, Unit).toContain(Unit);
    expect(values).not.toHaveProperty(Name);
    const found: number[] = [document[Name]].flat();
    expect(found.length).toBeLessThanOrEqual(100);
    for (const value of found) expect(Number.isFinite(value), Name).toBe(true);
    values[Name] = found;
  }
  return { namespace: Namespace, dimensions, values };
}
