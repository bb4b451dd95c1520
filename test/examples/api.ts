/** The API as a process: DATABASE_URL, PORT. */
import { readFile } from "node:fs/promises";
import { serve } from "@hono/node-server";
import { connectDatabase, createTaskClient } from "../../lib/index.ts";
import { createApp } from "./app.ts";
import { openPool } from "./pool.ts";
import { databaseUrl, port } from "./settings.ts";

const url = databaseUrl();
const pool = openPool(url);
await pool.query(await readFile(new URL("schema.sql", import.meta.url), "utf8"));

const database = await connectDatabase({ kind: "pg", url });
const app = createApp(pool, createTaskClient({ database }));
const server = serve({ fetch: app.fetch, port: port() }, (address) => {
  console.log(`The API listens on http://localhost:${address.port}`);
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.once(signal, () => server.close(() => Promise.all([pool.end(), database.close()])));
}
