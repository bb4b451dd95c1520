import { RDSData } from "@aws-sdk/client-rds-data";
import { Kysely, sql } from "kysely";
import { DataApiDialect } from "kysely-data-api";
import { failureOf, show, target } from "./exercise.js";

const { endpoint, region, resourceArn, secretArn, database } = target;
const client = new RDSData({ endpoint, region });
const db = new Kysely({
  dialect: new DataApiDialect({ mode: "postgres", driver: { client, resourceArn, secretArn, database } }),
});
const hinted = (typeHint, stringValue) => ({ typeHint, value: { stringValue } });

const created = await db
  .insertInto("invoice")
  .values({
    customer: "Ada",
    amount: hinted("DECIMAL", "12.50"),
    issued_at: new Date("2026-01-02T03:04:05.678Z"),
    due: hinted("DATE", "2026-02-01"),
    reference: hinted("UUID", "9b0f3c5e-0000-4000-8000-000000000000"),
    details: hinted("JSON", JSON.stringify({ lines: [{ text: "it's ünïcode" }] })),
    weight: 1.5,
    number: 9_007_199_254_740_991,
  })
  .returningAll()
  .executeTakeFirstOrThrow();
await db
  .insertInto("invoice")
  .values([{ customer: "Bob" }, { customer: "Cleo" }])
  .execute();
const updated = await db
  .updateTable("invoice")
  .set({ paid: true, amount: null })
  .where("customer", "=", "Bob")
  .executeTakeFirst();
const found = await db
  .selectFrom("invoice")
  .selectAll()
  .where("reference", "=", hinted("UUID", created.reference))
  .execute();
await db.deleteFrom("invoice").where("customer", "=", "Cleo").execute();

await db.transaction().execute((tx) => tx.insertInto("invoice").values({ customer: "committed" }).execute());
const rolledBack = await failureOf(() =>
  db.transaction().execute(async (tx) => {
    await tx.insertInto("invoice").values({ customer: "rolled back" }).execute();
    throw new Error("on purpose");
  }),
);

show({
  created,
  updated: Number(updated.numUpdatedRows),
  found: found.length,
  rolledBack,
  customers: (await db.selectFrom("invoice").select("customer").orderBy("id").execute()).map(
    ({ customer }) => customer,
  ),
  tags: (await sql`SELECT ARRAY['a', 'b,c'] AS tags`.execute(db)).rows,
  duplicate: await failureOf(() => db.insertInto("invoice").values({ customer: "Ada" }).execute()),
  syntax: await failureOf(() => sql`SELEC 1`.execute(db)),
  missingCast: await failureOf(() =>
    db.selectFrom("invoice").selectAll().where("reference", "=", created.reference).execute(),
  ),
});
