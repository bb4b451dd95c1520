/** The producers' book: what they mean to do is written down first, and then what they were told. */
import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";
import type { Counts } from "./report.ts";

/** What is known of a payload: stored for sure, under this id if it was told; certainly not stored; or either. */
export type Fate = "stored" | "not_stored" | "unknown" | "shares_key";

export interface Intent {
  readonly token: string;
  fate: Fate;
  id?: string;
}

export class Intents {
  readonly all = new Map<string, Intent>();
  /** As they were told, those of open transactions among them; not of tasks that came alone: these shall run. */
  readonly ids: string[] = [];
  readonly #log: string;
  readonly #counts: Counts;

  constructor(log: string, counts: Counts) {
    this.#log = log;
    this.#counts = counts;
  }

  intend(count: number): Intent[] {
    const intents = Array.from({ length: count }, (): Intent => ({ token: randomUUID(), fate: "unknown" }));
    this.#write({ intends: intents.map(({ token }) => token) });
    for (const intent of intents) this.all.set(intent.token, intent);
    return intents;
  }

  async told(intents: readonly Intent[], enqueue: () => Promise<readonly string[]>): Promise<void> {
    try {
      const ids = await enqueue();
      for (const [place, intent] of intents.entries()) {
        intent.id = ids[place]!;
        intent.fate = "stored";
      }
      this.#write({ told: intents.map(({ token, id }) => [token, id]) });
    } catch (error) {
      this.#counts.add(`producers.refused.${(error as { code?: string }).code ?? "other"}`);
      this.#write({ refused: intents.map(({ token }) => token), error: String(error) });
    }
  }

  settle(intent: Intent, fate: Fate): void {
    intent.fate = fate;
    this.#write({ settled: intent.token, fate });
  }

  /** To whoever acts on tasks. */
  offer(intents: readonly Intent[]): void {
    for (const { id } of intents) if (id !== undefined) this.ids.push(id);
  }

  #write(line: object): void {
    appendFileSync(this.#log, `${JSON.stringify(line)}\n`);
  }
}
