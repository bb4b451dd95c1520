/** Tables for people. What producers store may hold anything: nothing of it reaches the terminal as a control character. */

export const plain = (text: string): string => text.replaceAll(/\p{Cc}|\p{Cf}/gu, "�");

/** Columns as wide as their widest cell; numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number | null)[])[]): string {
  const cells = [head, ...rows.map((row) => row.map((cell) => plain(String(cell ?? "-"))))];
  const widths = head.map((_, place) => Math.max(...cells.map((row) => row[place]!.length)));
  const right = head.map((_, place) => rows.length > 0 && rows.every((row) => typeof row[place] !== "string"));
  return cells
    .map((row) =>
      row
        .map((cell, place) => (right[place] ? cell.padStart(widths[place]!) : cell.padEnd(widths[place]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** 950 ms, 12.3 s, 4 min, 3.2 h, 5 d */
export function ago(ms: number | null): string {
  if (ms === null) return "-";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${(ms / 3_600_000).toFixed(1)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}

/** An estimate is told as one. */
export const number = ({ count, estimated }: { count: number; estimated: boolean }): string =>
  `${estimated ? "~" : ""}${count}`;

export const print = (text: string): void => void process.stdout.write(`${text}\n`);
