/** Database roles of least privilege: made or taken, remembered by the schema, granted what their kind needs. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import { type Database, statement, type Transaction } from "../database/port.ts";
import { StintError } from "../errors.ts";

export const ROLE_KINDS = ["producer", "worker", "monitor", "operator"] as const;
/** producer may only enqueue, worker only process, monitor only read, operator act. */
export type RoleKind = (typeof ROLE_KINDS)[number];

export interface RoleOrder {
  readonly kind: RoleKind;
  /** 1 to 63 characters, as Postgres knows it. */
  readonly name: string;
  /** Printable ASCII, at least 16 characters. Without one a role that is there keeps its own. */
  readonly password?: string;
}

/** made: there was none. changed: it has the password that was given. kept: its login is as it was. */
export type RoleReport = { readonly kind: RoleKind; readonly name: string; readonly done: "made" | "changed" | "kept" };

const makeRole = statement<{ done: RoleReport["done"] }>()(
  "make_role",
  { kind: "text", name: "text", verifier: "text" },
  ["done"],
  "SELECT {schema}.make_role_v1(:kind, :name, CAST(:verifier AS text)) AS done",
);

const secure = statement<{ secured: boolean }>()("secure", {}, ["secured"], "SELECT {schema}.secure_v1() AS secured");

const canSecure = statement<{ there: boolean }>()(
  "can_secure",
  { name: "text" },
  ["there"],
  "SELECT to_regproc(CAST(:name AS text)) IS NOT NULL AS there",
);

const exists = statement<{ there: boolean }>()(
  "role_exists",
  { name: "text" },
  ["there"],
  "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :name) AS there",
);

/** Rights on what a migration has just made or replaced. Nothing where the schema knows no roles yet. */
export async function secureSchema(transaction: Transaction, schema: string): Promise<void> {
  const [row] = await transaction.query(canSecure, { name: `"${schema}".secure_v1` });
  if (row?.there) await transaction.query(secure, {});
}

/** Whether the server has a role of this name; it need not be one of Stint's. */
export async function roleExists(database: Database, name: string): Promise<boolean> {
  const [row] = await database.query(exists, { name });
  return row?.there ?? false;
}

/**
 * Makes or takes these roles, all or none, and grants each what its kind needs. Safe to repeat. By the owner of the schema, who needs CREATEROLE.
 * @throws StintError option_invalid for a name or password that cannot be one, a superuser, one that serves as another kind
 */
export async function applyRoles(database: Database, orders: readonly RoleOrder[]): Promise<RoleReport[]> {
  for (const { kind, name, password } of orders) check(kind, name, password);
  return await database.transaction(async (transaction) => {
    const reports: RoleReport[] = [];
    for (const { kind, name, password } of orders) {
      const verifier = password === undefined ? null : scramVerifier(password);
      const [row] = await transaction.query(makeRole, { kind, name, verifier });
      reports.push({ kind, name, done: row!.done });
    }
    await transaction.query(secure, {});
    return reports;
  });
}

function check(kind: RoleKind, name: string, password: string | undefined): void {
  if (!/^[a-z_][a-z0-9_-]{0,62}$/.test(name) || name.startsWith("pg_"))
    throw new StintError("option_invalid", `The ${kind}'s name is 1 to 63 of a-z, 0-9, _ and -, and no pg_ first.`);
  if (password !== undefined && !/^[\x21-\x7e]{16,200}$/.test(password))
    throw new StintError(
      "option_invalid",
      `The ${kind}'s password is 16 to 200 printable ASCII characters, no blanks.`,
    );
}

const ITERATIONS = 4096;

/** What Postgres stores of a password (RFC 5803), so that the password itself is in no statement and no server log. */
export function scramVerifier(password: string, salt: Buffer = randomBytes(16)): string {
  const salted = pbkdf2Sync(password, salt, ITERATIONS, 32, "sha256");
  const keyed = (text: string): Buffer => createHmac("sha256", salted).update(text).digest();
  const stored = createHash("sha256").update(keyed("Client Key")).digest("base64");
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString("base64")}$${stored}:${keyed("Server Key").toString("base64")}`;
}

/** 32 letters and digits, some 190 bits. */
export const randomPassword = (): string => {
  let text = "";
  while (text.length < 32)
    text += randomBytes(48)
      .toString("base64")
      .replaceAll(/[^A-Za-z0-9]/g, "");
  return text.slice(0, 32);
};
