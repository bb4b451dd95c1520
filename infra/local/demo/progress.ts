import { format } from "./table.ts";

export interface Standing {
  readonly enqueued: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly waiting: number;
  readonly running: number;
}

/** One line that is refreshed on a terminal; elsewhere a line every second. */
export class Progress {
  readonly #startedAt = performance.now();
  #lastAt = Number.NEGATIVE_INFINITY;
  #open = false;

  show({ enqueued, succeeded, failed, waiting, running }: Standing): void {
    const now = performance.now();
    const terminal = process.stdout.isTTY;
    if (!terminal && now - this.#lastAt < 1000) return;
    this.#lastAt = now;
    const seconds = ((now - this.#startedAt) / 1000).toFixed(1).padStart(5);
    const counts = Object.entries({ enqueued, succeeded, failed, waiting, running });
    const line = `${seconds} s  ${counts.map(([name, count]) => `${name} ${format(count).padStart(5)}`).join("  ")}`;
    // The line's rest is cleared, and it stays within 80 columns so that it never wraps.
    process.stdout.write(terminal ? `\r\x1b[2K${line}` : `${line}\n`);
    this.#open = terminal;
  }

  end(): void {
    if (this.#open) process.stdout.write("\n");
    this.#open = false;
  }
}
