import type pg from "pg";
import type { TaskClient } from "../../lib/index.ts";
import { deliverWebhook, sendWelcomeEmail } from "./tasks.ts";

/** The customer, the e-mail and the webhooks, or none of them. The id, or undefined when the address is taken. */
export async function signUp(pool: pg.Pool, tasks: TaskClient, email: string): Promise<string | undefined> {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const { rows } = await client.query<{ id: string }>(
      "INSERT INTO customer (email) VALUES ($1) ON CONFLICT DO NOTHING RETURNING id",
      [email],
    );
    const customerId = rows[0]?.id;
    if (customerId !== undefined) {
      await tasks.enqueue(sendWelcomeEmail, { customerId }, { transaction: client });
      await tellSubscribers(client, tasks, "customer.signed_up", { customerId });
    }
    await client.query("COMMIT");
    return customerId;
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}

/** A task for each subscriber: one that does not answer is tried again alone. */
async function tellSubscribers(client: pg.PoolClient, tasks: TaskClient, event: string, body: Record<string, string>) {
  const { rows } = await client.query<{ url: string }>("SELECT url FROM subscriber");
  const payloads = rows.map(({ url }) => ({ url, event, body }));
  await tasks.enqueueMany(deliverWebhook, payloads, { transaction: client });
}
