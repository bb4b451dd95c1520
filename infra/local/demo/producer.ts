/** The application's side: a shop that enqueues in bulk, one by one, for later, and in the transactions of its orders. */
import {
  BeginTransactionCommand,
  CommitTransactionCommand,
  ExecuteStatementCommand,
  RDSDataClient,
  RollbackTransactionCommand,
} from "@aws-sdk/client-rds-data";
import { createTaskClient, type Database, type EnqueueAnswer, type EnqueueManyAnswer } from "../../../lib/index.ts";
import { LOCAL } from "../stack.ts";
import { deliverFlaky, deliverOldKey, deliverSilent, deliverWebhook, remind } from "./tasks.ts";

export interface Told {
  /** Ids of tasks that the client was told are stored. */
  readonly stored: string[];
  /** Ids told within a transaction that was rolled back: none of them may exist. */
  readonly rolledBack: string[];
  orders: number;
}

export interface ProducerOptions {
  readonly database: Database;
  readonly databaseName: string;
  readonly endpoint: string;
}

const BATCHES = 4;
const BATCH = 300;
const ORDERS = 60;
const DELAY_MS = 4000;

export async function produce({ database, databaseName, endpoint }: ProducerOptions): Promise<Told> {
  const tasks = createTaskClient({ database });
  const told: Told = { stored: [], rolledBack: [], orders: 0 };
  const many = (event: string, count: number) => Array.from({ length: count }, (_, n) => ({ event, data: { n } }));

  const delayUntil = new Date(Date.now() + DELAY_MS);
  told.stored.push(...idsOf(await tasks.enqueueMany(remind, many("cart.abandoned", 40), { delayUntil })));
  told.stored.push(...idsOf(await tasks.enqueueMany(deliverFlaky, many("stock.changed", 60))));
  told.stored.push(...idsOf(await tasks.enqueueMany(deliverOldKey, many("price.changed", 20))));
  for (let n = 0; n < 10; n += 1) {
    told.stored.push(...idsOf(await tasks.enqueue(deliverSilent, { event: "invoice.issued", data: { n } })));
  }
  for (let batch = 0; batch < BATCHES; batch += 1) {
    told.stored.push(...idsOf(await tasks.enqueueMany(deliverWebhook, many("parcel.sent", BATCH))));
  }

  const api = new RDSDataClient({ endpoint, region: LOCAL.region });
  const cluster = { resourceArn: LOCAL.resourceArn, secretArn: LOCAL.secretArn };
  const inDatabase = { ...cluster, database: databaseName };
  await api.send(
    new ExecuteStatementCommand({ ...inDatabase, sql: "CREATE TABLE shop_order (id integer PRIMARY KEY)" }),
  );
  for (let id = 0; id < ORDERS; id += 1) {
    const { transactionId } = await api.send(new BeginTransactionCommand(inDatabase));
    const parameters = [{ name: "id", value: { longValue: id } }];
    const sql = "INSERT INTO shop_order (id) VALUES (:id)";
    await api.send(new ExecuteStatementCommand({ ...inDatabase, transactionId, sql, parameters }));
    const transaction = { transactionId: transactionId! };
    const ids = idsOf(await tasks.enqueue(deliverWebhook, { event: "order.paid", data: { id } }, { transaction }));
    // Every third card is declined: neither the order nor its webhook may remain.
    const declined = id % 3 === 2;
    await api.send(
      new (declined ? RollbackTransactionCommand : CommitTransactionCommand)({ ...cluster, transactionId }),
    );
    (declined ? told.rolledBack : told.stored).push(...ids);
    if (!declined) told.orders += 1;
  }
  api.destroy();
  return told;
}

function idsOf(answer: EnqueueAnswer | EnqueueManyAnswer): readonly string[] {
  if (answer.status !== "enqueued") throw new Error(`An enqueue was answered with ${answer.status}.`);
  return "ids" in answer ? answer.ids : [answer.id];
}
