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
    const seconds = ((now - this.#startedAt) / 1000).toFixed(1).padStart(4);
    const counts = [
      `enqueued ${format(enqueued).padStart(5)}`,
      `succeeded ${format(succeeded).padStart(5)}`,
      `failed ${format(failed).padStart(2)}`,
      `waiting ${format(waiting).padStart(5)}`,
      `running ${format(running).padStart(2)}`,
    ];
    // Within 80 columns, so that it never wraps.
    const line = `${seconds} s  ${counts.join("  ")}`;
    process.stdout.write(terminal ? `\r\x1b[2K${line}` : `${line}\n`);
    this.#open = terminal;
  }

  end(): void {
    if (this.#open) process.stdout.write("\n");
    this.#open = false;
  }
}
