import { text as readAll } from "node:stream/consumers";
import { Command } from "commander";
import type { Database } from "../../lib/database/port.ts";
import {
  applyRoles,
  ROLE_KINDS,
  type RoleKind,
  type RoleOrder,
  randomPassword,
  roleExists,
} from "../../lib/sql/roles.ts";
import { CommandError, configOf, withDatabases } from "./environment.ts";

interface Options {
  readonly prefix?: string;
  readonly producer?: string;
  readonly worker?: string;
  readonly monitor?: string;
  readonly operator?: string;
  readonly only?: string;
  readonly stdin?: boolean;
  readonly rotate?: boolean;
}

type Passwords = Partial<Record<RoleKind, string>>;

export function rolesCommand(): Command {
  const command = new Command("roles")
    .description(
      "Make the database roles of least privilege and grant them their rights: producer may only enqueue, worker only process, monitor only read, operator act. Safe to repeat.",
    )
    .option("--prefix <prefix>", "their names are PREFIX_producer and so on (default: the schema's name)");
  for (const kind of ROLE_KINDS)
    command.option(`--${kind} <name>`, `the ${kind}'s name; a role that is there is taken`);
  return command
    .option("--only <kinds>", "some of them, by comma")
    .option("--stdin", 'passwords from standard input, as JSON: { "producer": "..." }')
    .option("--rotate", "a new password also for roles that are there")
    .addHelpText(
      "after",
      `
Passwords: from standard input, else from STINT_PRODUCER_PASSWORD, STINT_WORKER_PASSWORD, STINT_MONITOR_PASSWORD and
STINT_OPERATOR_PASSWORD, else made for roles that are new (or with --rotate) and printed once, a line of JSON each.`,
    )
    .action(async (options: Options) => {
      const kinds = kindsOf(options.only);
      const config = configOf();
      const given = options.stdin ? passwordsOf(await readAll(process.stdin)) : fromEnvironment();
      const names = (kind: RoleKind): string => options[kind] ?? `${options.prefix ?? config.schema}_${kind}`;
      await withDatabases(config, async (databases) => {
        const made: Passwords = {};
        for (const database of databases) {
          const orders: RoleOrder[] = [];
          for (const kind of kinds) orders.push(await order(database, kind, names(kind), given, made, options.rotate));
          for (const { kind, name, done } of await applyRoles(database, orders)) {
            const password = done === "kept" ? undefined : made[kind];
            process.stdout.write(`${JSON.stringify({ kind, name, done, ...(password && { password }) })}\n`);
          }
        }
      });
    });
}

/** One password a kind, also over two databases of one server. */
async function order(
  database: Database,
  kind: RoleKind,
  name: string,
  given: Passwords,
  made: Passwords,
  rotate = false,
): Promise<RoleOrder> {
  if (given[kind] !== undefined) return { kind, name, password: given[kind] };
  if (made[kind] === undefined && !rotate && (await roleExists(database, name))) return { kind, name };
  made[kind] ??= randomPassword();
  return { kind, name, password: made[kind] };
}

function kindsOf(only: string | undefined): readonly RoleKind[] {
  if (only === undefined) return ROLE_KINDS;
  const kinds = only.split(",").map((one) => one.trim());
  const unknown = kinds.filter((one) => !(ROLE_KINDS as readonly string[]).includes(one));
  if (unknown.length > 0)
    throw new CommandError("option_invalid", `--only takes ${ROLE_KINDS.join(", ")}, not ${unknown.join(", ")}.`);
  return kinds as RoleKind[];
}

const fromEnvironment = (): Passwords =>
  Object.fromEntries(
    ROLE_KINDS.map((kind) => [kind, process.env[`STINT_${kind.toUpperCase()}_PASSWORD`]]).filter(([, one]) => one),
  );

function passwordsOf(text: string): Passwords {
  try {
    const read: unknown = JSON.parse(text);
    if (typeof read === "object" && read !== null && !Array.isArray(read)) {
      const wrong = Object.entries(read).filter(
        ([kind, one]) => !(ROLE_KINDS as readonly string[]).includes(kind) || typeof one !== "string",
      );
      if (wrong.length === 0) return read;
    }
  } catch {}
  throw new CommandError(
    "option_invalid",
    'Standard input holds { "producer": "...", "worker": "...", "monitor": "...", "operator": "..." }, or some of them.',
  );
}
