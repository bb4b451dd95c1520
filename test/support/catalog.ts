import type pg from "pg";

const QUERIES = [
  `SELECT 'column' AS kind, c.relname || '.' || a.attname AS name, format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' ' || a.attidentity::text || a.attgenerated::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '') AS definition
   FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
   WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped`,
  `SELECT 'options' AS kind, relname AS name, coalesce(reloptions::text, '') AS definition FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'`,
  "SELECT 'index' AS kind, indexname AS name, indexdef AS definition FROM pg_indexes WHERE schemaname = current_schema()",
  "SELECT 'constraint' AS kind, conrelid::regclass || '.' || conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE connamespace = current_schema()::regnamespace",
  "SELECT 'function' AS kind, oid::regprocedure::text AS name, pg_get_functiondef(oid) AS definition FROM pg_proc WHERE pronamespace = current_schema()::regnamespace",
];

/** What the schema on the search path consists of, to hold two of them equal; without the migrations' own table. */
export async function describeSchema(client: pg.Client): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const query of QUERIES) {
    for (const { kind, name, definition } of (await client.query(query)).rows) {
      if (!/migration/.test(name)) found.set(`${kind} ${name}`, asSent(definition));
    }
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The migrations are sent without their comments and what lines begin with; schema.sql is read with them. */
const asSent = (text: string): string => text.replaceAll(/[ \t]*--.*$/gm, "").replaceAll(/\n\s+/g, "\n");
