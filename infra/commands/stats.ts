import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { performAction } from "../../lib/operator.ts";
import { actionSchema } from "../../lib/operator-schema.ts";
import { readStats } from "../../lib/stats.ts";
import type { Stats } from "../../lib/stats-schema.ts";
import { configOf, withDatabases } from "./environment.ts";
import { stopSignal } from "./stop-signal.ts";
import { ago, number, plain, print, table } from "./table.ts";
import { checked } from "./tasks.ts";

const read = (): Promise<Stats> => {
  const config = configOf();
  return withDatabases(config, (databases) => readStats(databases, config));
};

export const statsCommand = (): Command =>
  new Command("stats")
    .description("Print per identifier what waits, runs and failed, and how long runs take.")
    .option("--json", "for programs: what GET /processor/stats answers")
    .action(async ({ json }: { json?: boolean }) => {
      const stats = await read();
      print(json ? JSON.stringify(stats) : overview(stats));
    });

export const slotsCommand = (): Command =>
  new Command("slots")
    .description("Print each slot with its holder and when that was last seen.")
    .option("--json", "for programs")
    .action(async ({ json }: { json?: boolean }) => {
      const { slots } = await read();
      print(json ? JSON.stringify(slots) : slots.length === 0 ? "No task processor has run yet." : slotTable(slots));
    });

export const topCommand = (): Command =>
  new Command("top")
    .description("Show stats and slots, again and again, until Ctrl-C.")
    .option("--every <seconds>", "1 to 60", "2")
    .action(async ({ every }: { every: string }) => {
      const everyMs = Math.min(60, Math.max(1, Number(every) || 2)) * 1000;
      const stop = new AbortController();
      void stopSignal().then(() => stop.abort());
      // Nobody reads any more.
      process.stdout.once("error", () => stop.abort());
      const config = configOf();
      await withDatabases(config, async (databases) => {
        while (!stop.signal.aborted) {
          // A failure is shown and may pass.
          const screen = await readStats(databases, config).then(
            (stats) => `${overview(stats)}\n\n${slotTable(stats.slots)}`,
            (error: unknown) => plain(String(error)),
          );
          // Home, each line with the rest of it cleared, then what is below: it does not flicker.
          if (process.stdout.isTTY)
            process.stdout.write(`\u001b[H${screen.replaceAll("\n", "\u001b[K\n")}\u001b[K\n\u001b[J`);
          else print(`${screen}\n`);
          await sleep(everyMs, undefined, { signal: stop.signal }).catch(() => {});
        }
      });
    });

export function pauseCommand(name: "pause" | "resume"): Command {
  return new Command(name)
    .description(
      name === "pause" ? "Nothing of this identifier is claimed any more; * is all." : "It is claimed again.",
    )
    .argument("<identifier>")
    .action(async (identifier: string) => {
      const action = checked(actionSchema, { action: name, identifier });
      const { count } = await withDatabases(configOf(), (databases) => performAction(databases, action, "cli"));
      const state = name === "pause" ? "paused" : "not paused";
      print(`${plain(identifier)} ${count === 0 ? `was ${state} before` : `is ${state} now`}.`);
    });
}

function overview(stats: Stats): string {
  const head = [
    "identifier",
    "waiting",
    "running",
    "scheduled",
    "retrying",
    "failed",
    "oldest",
    "runs/h",
    "failed/h",
    "p50",
    "p95",
    "p99",
    "",
  ];
  const rows = [...stats.identifiers, { identifier: "all", known: true, paused: false, ...stats.totals }].map((one) => [
    one.identifier,
    ...[one.waiting, one.running, one.scheduled, one.retrying, one.failed].map(number),
    ago(one.oldestWaitingMs),
    number({ count: one.hour.succeeded + one.hour.failed, estimated: one.hour.estimated }),
    number({ count: one.hour.failed, estimated: one.hour.estimated }),
    ...[one.hour.p50Ms, one.hour.p95Ms, one.hour.p99Ms].map(ago),
    [one.paused && "paused", !one.known && "unknown"].filter(Boolean).join(" "),
  ]);
  const { succeeded, failed, estimated } = stats.throughput.at(-2) ?? { succeeded: 0, failed: 0, estimated: false };
  const lines = [
    `${stats.at}  ${number({ count: succeeded + failed, estimated })} runs in the last full minute`,
    "",
    table(head, rows),
  ];
  if (stats.paused.length > 0) lines.push("", `paused: ${stats.paused.map(plain).join(", ")}`);
  if (stats.truncated) lines.push("", "There are more identifiers than these.");
  return lines.join("\n");
}

const slotTable = (slots: Stats["slots"]): string =>
  table(
    ["database", "slot", "state", "epoch", "seen ago", "holds", "succeeded", "failed", "release", "holder"],
    slots.map((one) => [
      one.database,
      one.slot,
      one.state,
      one.epoch,
      ago(one.seenAgoMs),
      one.held,
      one.succeeded,
      one.failed,
      one.release?.slice(0, 12) ?? null,
      one.holder,
    ]),
  );
