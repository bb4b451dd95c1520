/** Applications that enqueue meanwhile. Each writes down what it is about to do, and then what it was told. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  BeginTransactionCommand,
  CommitTransactionCommand,
  RDSDataClient,
  RollbackTransactionCommand,
} from "@aws-sdk/client-rds-data";
import pg from "pg";
import { LOCAL } from "../../infra/local/stack.ts";
import type { Database, ProducerTransaction } from "../../lib/database/port.ts";
import { createTaskClient, type EnqueueOptions, type Priority, type TaskClient } from "../../lib/index.ts";
import { type Fate, type Intent, Intents } from "./intents.ts";
import type { Deal, Random } from "./random.ts";
import type { Counts } from "./report.ts";
import { KINDS, type Kind } from "./tasks.ts";
import type { World } from "./world.ts";

export type Weights = Readonly<Record<Kind, number>>;

export interface ProducerOptions {
  readonly tasks: number;
  /** Spread over so long; 0: as fast as it goes. */
  readonly overMs: number;
  readonly weights: Weights;
  readonly batch: number;
}

const PRIORITIES: readonly Priority[] = ["HIGHEST", "HIGH", "NORMAL", "LOW", "LOWER"];

export class Producers {
  readonly #intents: Intents;
  readonly #world: World;
  readonly #random: Random;
  readonly #counts: Counts;
  readonly #options: ProducerOptions;
  readonly #startedAt = performance.now();
  /** Each kind once at first. */
  readonly #kinds: Deal<Kind>;
  #stopped = false;

  constructor(world: World, random: Random, counts: Counts, options: ProducerOptions) {
    this.#world = world;
    this.#random = random;
    this.#counts = counts;
    this.#options = options;
    this.#kinds = random.deal(options.weights);
    this.#intents = new Intents(join(world.folder, "producers.log"), counts);
  }

  get intents(): ReadonlyMap<string, Intent> {
    return this.#intents.all;
  }

  /** Of tasks that anybody may act on. */
  get ids(): readonly string[] {
    return this.#intents.ids;
  }

  /** Resolves when all has been enqueued, or they were stopped. */
  async run(): Promise<void> {
    const adapters = ["pg", "data-api"] as const;
    await Promise.all([
      ...adapters.map((one) => this.#enqueueing(one)),
      this.#inPgTransactions(),
      this.#inApiTransactions(),
    ]);
  }

  stop(): void {
    this.#stopped = true;
  }

  get #open(): boolean {
    return !this.#stopped && this.#intents.all.size < this.#options.tasks;
  }

  async #inTime(): Promise<void> {
    const { tasks, overMs } = this.#options;
    const dueAt = this.#startedAt + (this.#intents.all.size / tasks) * overMs;
    await sleep(Math.max(1, dueAt - performance.now()));
  }

  async #enqueueing(adapter: "pg" | "data-api"): Promise<void> {
    const database = this.#world.connect(adapter);
    const client = createTaskClient({ database });
    let name: Kind | undefined;
    while (this.#open) {
      await this.#inTime();
      if (this.#random.chance(0.3)) await this.#many(client, this.#random.below(this.#options.batch) + 1);
      else if (this.#random.chance(0.15)) await this.#keyed(client);
      else {
        name ??= this.#kinds.next();
        if ((await this.#one(client, name)).fate === "stored") name = undefined;
      }
    }
    await database.close();
  }

  async #many(client: TaskClient, count: number): Promise<void> {
    const intents = this.#intents.intend(count);
    // One kind a call; what would hurt comes one by one.
    const name = this.#random.chance(0.2) ? "slow" : "quick";
    this.#counts.add("producers.many");
    await this.#intents.told(intents, async () => {
      const answer = await client.enqueueMany(
        KINDS[name],
        intents.map(({ token }) => ({ token })),
        this.#details(),
      );
      return answer.status === "enqueued" ? answer.ids : [];
    });
    this.#intents.offer(intents);
  }

  async #one(client: TaskClient, name: Kind, transaction?: ProducerTransaction): Promise<Intent> {
    const [intent] = this.#intents.intend(1) as [Intent];
    const serial = name === "serial" ? `s${this.#random.below(5)}` : undefined;
    this.#counts.add(transaction === undefined ? "producers.one" : "producers.in_transaction");
    await this.#intents.told([intent], async () => {
      const answer = await client.enqueue(
        KINDS[name],
        { token: intent.token, ...(serial !== undefined && { serial }) },
        { ...this.#details(), ...(serial !== undefined && { serialKey: serial }), ...(transaction && { transaction }) },
      );
      return "id" in answer ? [answer.id] : [];
    });
    return intent;
  }

  /** A few keys only, so that they meet. A duplicate is told the id of the other; a replaced payload gives way to the new one. */
  async #keyed(client: TaskClient): Promise<void> {
    const [intent] = this.#intents.intend(1) as [Intent];
    const onDuplicate = this.#random.chance(0.5) ? "replace" : "keep";
    const key = `k${this.#random.below(10)}`;
    this.#counts.add("producers.keyed");
    await this.#intents.told([intent], async () => {
      const answer = await client.enqueue(
        KINDS.quick,
        { token: intent.token },
        { ...this.#details(), key, onDuplicate },
      );
      return "id" in answer ? [answer.id] : [];
    });
    this.#intents.offer([intent]);
    if (intent.fate === "stored" || intent.fate === "unknown") this.#intents.settle(intent, "shares_key");
  }

  async #inPgTransactions(): Promise<void> {
    const database = this.#world.connect("pg");
    const client = createTaskClient({ database });
    while (this.#open) {
      await this.#inTime();
      const connection = new pg.Client({ connectionString: this.#world.postgres.url });
      connection.on("error", () => {});
      try {
        await connection.connect();
      } catch {
        continue;
      }
      await this.#transaction(
        client,
        connection,
        () => connection.query("BEGIN"),
        () => connection.query("COMMIT"),
        () => connection.query("ROLLBACK"),
      );
      await connection.end().catch(() => {});
    }
    await database.close();
  }

  async #inApiTransactions(): Promise<void> {
    const database: Database = this.#world.connect("data-api");
    const client = createTaskClient({ database });
    const api = new RDSDataClient({ endpoint: this.#world.dataApi.endpoint, maxAttempts: 1 });
    const cluster = { resourceArn: LOCAL.resourceArn, secretArn: LOCAL.secretArn };
    while (this.#open) {
      await this.#inTime();
      const transaction = { transactionId: "" };
      const begin = async (): Promise<void> => {
        const begun = await api.send(new BeginTransactionCommand({ ...cluster, database: LOCAL.database }));
        transaction.transactionId = begun.transactionId!;
      };
      const commit = () => api.send(new CommitTransactionCommand({ ...cluster, ...transaction }));
      const rollback = () => api.send(new RollbackTransactionCommand({ ...cluster, ...transaction }));
      await this.#transaction(client, transaction, begin, commit, rollback);
    }
    api.destroy();
    await database.close();
  }

  async #transaction(
    client: TaskClient,
    transaction: ProducerTransaction,
    begin: () => Promise<unknown>,
    commit: () => Promise<unknown>,
    rollback: () => Promise<unknown>,
  ): Promise<void> {
    try {
      await begin();
    } catch {
      return;
    }
    const within: Intent[] = [];
    for (let left = this.#random.below(3) + 1; left > 0; left -= 1)
      within.push(await this.#one(client, this.#random.weighted(this.#options.weights), transaction));
    this.#intents.offer(within);
    const rollsBack = this.#random.chance(0.4) || within.some(({ fate }) => fate !== "stored");
    let fate: Fate = rollsBack ? "not_stored" : "stored";
    try {
      await (rollsBack ? rollback() : commit());
    } catch {
      // Without a COMMIT nothing can have been stored; with one it may.
      if (!rollsBack) fate = "unknown";
    }
    this.#counts.add(`producers.transaction_${fate}`);
    for (const intent of within) this.#intents.settle(intent, fate);
  }

  #details(): EnqueueOptions {
    return {
      ...(this.#random.chance(0.4) && { priority: this.#random.pick(PRIORITIES) }),
      ...(this.#random.chance(0.1) && { delayUntil: new Date(Date.now() + this.#random.between(0, 2000)) }),
    };
  }
}
