/** LISTEN beside polling, for containers: rings when a producer that notifies has committed. What it misses, the next poll finds. */
import { randomUUID } from "node:crypto";
import type pg from "pg";
import { pause } from "../lib/clock.ts";
import { quoteIdentifier } from "../lib/database/port.ts";
import type { Log } from "../lib/log.ts";

export interface DoorbellOptions {
  readonly url: string;
  /** The Postgres schema of Stint's tables is the channel's name. */
  readonly schema: string;
  readonly ring: () => void;
  readonly log: Log;
  /** Aborts to stop listening. */
  readonly signal: AbortSignal;
}

const PROBE_EVERY_MS = 30_000;
const ECHO_MS = 5000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 60_000;

/** Listens on a connection of its own, and on another whenever that one is lost or silent, until the signal aborts. */
export async function attendDoorbell(options: DoorbellOptions): Promise<void> {
  const { log, signal } = options;
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      await listen(options, () => {
        failures = 0;
      });
    } catch (error) {
      if (signal.aborted) return;
      const waitMs = Math.round(Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.5 + Math.random() / 2));
      const message = error instanceof Error ? error.message : String(error);
      log.warn("the doorbell is out of order; polling goes on", { error: message, waitMs });
      await pause(waitMs, signal);
    }
  }
}

/** @throws whatever ends the connection; returns when the signal aborts */
async function listen(options: DoorbellOptions, onWorking: () => void): Promise<void> {
  const { url, schema, ring, signal, log } = options;
  const { default: library } = await import("pg");
  const client = new library.Client({
    connectionString: url,
    application_name: "stint doorbell",
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
  });
  const over = new AbortController();
  const fail = (error?: Error): void => over.abort(error ?? new Error("The connection has ended."));
  client.on("error", fail);
  client.on("end", () => fail());
  const ownChannel = `stint_${randomUUID()}`;
  let echo = (): void => {};
  client.on("notification", ({ channel }) => {
    if (channel === schema) ring();
    if (channel === ownChannel) echo();
  });
  try {
    await client.connect();
    await client.query(`LISTEN ${quoteIdentifier(schema)}`);
    await client.query(`LISTEN ${quoteIdentifier(ownChannel)}`);
    // Whoever rang while nobody listened.
    ring();
    const either = AbortSignal.any([signal, over.signal]);
    for (let first = true; !either.aborted; first = false) {
      await heardBack(client, ownChannel, either, (heard) => {
        echo = heard;
      });
      if (first && !either.aborted) log.info("the doorbell works");
      onWorking();
      await pause(PROBE_EVERY_MS, either);
    }
    if (!signal.aborted) throw over.signal.reason;
  } finally {
    // A connection that no longer answers must not be waited for.
    await Promise.race([client.end().catch(() => {}), pause(1000)]);
  }
}

/** A pooler in transaction mode takes LISTEN and never delivers: only hearing oneself proves the way. */
async function heardBack(
  client: pg.Client,
  channel: string,
  signal: AbortSignal,
  onEcho: (heard: () => void) => void,
): Promise<void> {
  const echoed = new AbortController();
  onEcho(() => echoed.abort());
  const late = pause(ECHO_MS, AbortSignal.any([signal, echoed.signal]));
  client.query("SELECT pg_notify($1, '')", [channel]).catch(() => {});
  await late;
  if (!echoed.signal.aborted && !signal.aborted)
    throw new Error(
      "A notification to itself did not come back: is there a pooler between, or a connection that died?",
    );
}
