import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { openDatabase } from "./support/database.ts";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");

test("the README's SQL runs as it stands, trigger included", async () => {
  const [, sql] = /```sql\n([\s\S]*?)```/.exec(readme)!;
  const db = await openDatabase("pg");
  const client = await db.client();
  await client.query("SET search_path = public; CREATE TABLE invoice (id uuid)");
  await client.query(sql!);
  await client.query(
    "CREATE TRIGGER invoice_created AFTER INSERT ON invoice FOR EACH ROW EXECUTE FUNCTION invoice_created()",
  );
  await client.query("BEGIN; INSERT INTO invoice VALUES (gen_random_uuid()); ROLLBACK");
  await client.query("INSERT INTO invoice VALUES (gen_random_uuid())");
  expect(
    await db.sql("SELECT count(*)::int AS n, count(DISTINCT payload->>'invoiceId')::int AS invoices FROM task"),
  ).toEqual([{ n: 3, invoices: 2 }]);
});

test("every configuration variable of the README is read, and every one that is read stands in it", () => {
  const variables = readFileSync(new URL("../lib/config-variables.ts", import.meta.url), "utf8");
  const read = [...variables.matchAll(/^ {2}([A-Z_]{8,}):/gm)].map(([, name]) => name!);
  expect(read.length).toBeGreaterThan(20);
  const hidden = read.filter(
    (name) => !readme.includes(name) && !/^TASK_PROCESSOR_DATABASE_(RESOURCE|SECRET|NAME)|^AWS_/.test(name),
  );
  expect(hidden).toEqual([]);
});
