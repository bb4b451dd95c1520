import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/aws-data-api/pg";
import {
  bigint,
  boolean,
  date,
  doublePrecision,
  integer,
  jsonb,
  numeric,
  pgTable,
  text,
  timestamp,
  uuid,
} from "drizzle-orm/pg-core";
import { failureOf, show, target } from "./exercise.js";

const invoice = pgTable("invoice", {
  id: integer().primaryKey().generatedAlwaysAsIdentity(),
  customer: text().notNull(),
  amount: numeric(),
  paid: boolean().notNull().default(false),
  issuedAt: timestamp("issued_at", { withTimezone: true }),
  due: date(),
  reference: uuid(),
  details: jsonb(),
  weight: doublePrecision(),
  number: bigint({ mode: "number" }),
  tags: text().array(),
});

const { endpoint, region, resourceArn, secretArn, database } = target;
const db = drizzle({ connection: { endpoint, region, resourceArn, secretArn, database } });

const [created] = await db
  .insert(invoice)
  .values({
    customer: "Ada",
    amount: "12.50",
    issuedAt: new Date("2026-01-02T03:04:05.678Z"),
    due: "2026-02-01",
    reference: "9b0f3c5e-0000-4000-8000-000000000000",
    details: { lines: [{ text: "it's ünïcode" }] },
    weight: 1.5,
    number: 9_007_199_254_740_991,
  })
  .returning();
await db.insert(invoice).values([{ customer: "Bob" }, { customer: "Cleo" }]);
const [paid] = await db
  .update(invoice)
  .set({ paid: true, amount: null })
  .where(eq(invoice.customer, "Bob"))
  .returning();
const found = await db.select().from(invoice).where(eq(invoice.reference, created.reference));
await db.delete(invoice).where(eq(invoice.customer, "Cleo"));

await db.transaction(async (tx) => {
  await tx.insert(invoice).values({ customer: "committed" });
});
const rolledBack = await failureOf(() =>
  db.transaction(async (tx) => {
    await tx.insert(invoice).values({ customer: "rolled back" });
    throw new Error("on purpose");
  }),
);

show({
  created,
  paid,
  found: found.length,
  rolledBack,
  customers: (await db.select().from(invoice).orderBy(invoice.id)).map(({ customer }) => customer),
  tags: (await db.execute(sql`SELECT ARRAY['a', 'b,c'] AS tags`)).rows,
  duplicate: await failureOf(() => db.insert(invoice).values({ customer: "Ada" })),
  syntax: await failureOf(() => db.execute(sql`SELEC 1`)),
  missingCast: await failureOf(() => db.execute(sql`SELECT 1 FROM invoice WHERE reference = ${created.reference}`)),
});
