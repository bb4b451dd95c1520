import pg from "pg";

/** Connections for the application's own statements. One that the server ends must not end the process, idle or in use. */
export function openPool(connectionString: string): pg.Pool {
  const pool = new pg.Pool({ connectionString, max: 10 });
  pool.on("connect", (client) => void client.on("error", () => {}));
  pool.on("error", (error) => console.error(`A connection was lost: ${error.message}`));
  return pool;
}
