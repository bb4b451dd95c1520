/** The routes, apart from the server: a test asks them without a port. */
import { Hono } from "hono";
import type pg from "pg";
import * as z from "zod/mini";
import type { TaskClient } from "../../lib/index.ts";
import { signUp } from "./sign-up.ts";

const signUpRequest = z.object({ email: z.email() });

export function createApp(pool: pg.Pool, tasks: TaskClient): Hono {
  const app = new Hono();
  app.post("/sign-ups", async (context) => {
    const request = signUpRequest.safeParse(await context.req.json().catch(() => undefined));
    if (!request.success) return context.json({ error: "An e-mail address is needed." }, 400);
    const customerId = await signUp(pool, tasks, request.data.email);
    if (customerId === undefined) return context.json({ error: "There is an account with this address." }, 409);
    return context.json({ customerId }, 201);
  });
  app.get("/health", async (context) => {
    await pool.query("SELECT");
    return context.json({ status: "ok" });
  });
  return app;
}
