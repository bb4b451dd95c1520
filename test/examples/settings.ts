/** This application's own settings. Stint's are read by lib/config.ts. */
import { env } from "node:process";

function needed(name: string): string {
  const value = env[name];
  if (!value) throw new Error(`${name} is not set.`);
  return value;
}

export const databaseUrl = (): string => needed("DATABASE_URL");
/** 0 takes a free port. */
export const port = (): number => Number(env.PORT ?? 3000);
/** Where e-mail is handed over: POST { to, subject, text }. */
export const mailUrl = (): string => needed("MAIL_URL");
