/** This application's own settings. Stint's are read by lib/config.ts. */
import { env } from "node:process";

/** Signs webhooks. */
export const webhookSigningKey = (): string | undefined => env.WEBHOOK_SIGNING_KEY || undefined;
