import connect from "data-api-client";
import { failureOf, show, target } from "./exercise.js";

const { endpoint, region, resourceArn, secretArn, database } = target;
const db = connect({ engine: "pg", resourceArn, secretArn, database, options: { endpoint, region, maxRetries: 0 } });
const insert = "INSERT INTO invoice (customer) VALUES (:customer)";

const { records } = await db.query(
  `INSERT INTO invoice (customer, amount, issued_at, due, reference, details, weight, number)
   VALUES (:customer, :amount, :issuedAt, :due, :reference, :details, :weight, :number) RETURNING *`,
  [
    { name: "customer", value: "Ada" },
    { name: "amount", value: "12.50", cast: "numeric" },
    { name: "issuedAt", value: "2026-01-02T03:04:05.678Z", cast: "timestamptz" },
    { name: "due", value: "2026-02-01", cast: "date" },
    { name: "reference", value: "9b0f3c5e-0000-4000-8000-000000000000", cast: "uuid" },
    { name: "details", value: JSON.stringify({ lines: [{ text: "it's ünïcode" }] }), cast: "jsonb" },
    { name: "weight", value: 1.5 },
    { name: "number", value: 9_007_199_254_740_991 },
  ],
);
const batch = await db.query(insert, [[{ customer: "Bob" }], [{ customer: "Cleo" }]]);
const updated = await db.query("UPDATE invoice SET paid = true, amount = :none WHERE customer = :customer", {
  customer: "Bob",
  none: null,
});
const found = await db.query("SELECT * FROM invoice WHERE reference = CAST(:reference AS uuid)", {
  reference: records[0].reference,
});
await db.query("DELETE FROM invoice WHERE customer = :customer", { customer: "Cleo" });

const committed = await db.transaction().query(insert, { customer: "committed" }).commit();
let rollback;
const rolledBack = await failureOf(() =>
  db
    .transaction()
    .query(insert, { customer: "rolled back" })
    .query(insert, { customer: "Ada" })
    .rollback((_, answer) => {
      rollback = answer.transactionStatus;
    })
    .commit(),
);

show({
  created: records[0],
  batch: batch.updateResults,
  updated: updated.numberOfRecordsUpdated,
  found: found.records.length,
  committed: committed.at(-1),
  rollback,
  rolledBack,
  customers: (await db.query("SELECT customer FROM invoice ORDER BY id")).records.map(({ customer }) => customer),
  syntax: await failureOf(() => db.query("SELEC 1")),
  missingCast: await failureOf(() =>
    db.query("SELECT 1 FROM invoice WHERE reference = :r", { r: records[0].reference }),
  ),
});
