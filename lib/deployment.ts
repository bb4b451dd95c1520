/** What a deployment does to the database before the new code serves: migrations, then roles with the passwords of their secrets. */
import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import type { Context } from "aws-lambda";
import { pause } from "./clock.ts";
import type { Database } from "./database/port.ts";
import { codeOf, StintError } from "./errors.ts";
import { lazyRuntime } from "./runtime.ts";
import { type MigrationReport, migrate } from "./sql/migrate.ts";
import { applyRoles, ROLE_KINDS, type RoleKind, type RoleOrder, type RoleReport } from "./sql/roles.ts";

export interface DeploymentReport extends MigrationReport {
  readonly roles: readonly RoleReport[];
}

export interface DeploymentOptions {
  /** `producer=ARN,worker=ARN`: secrets of the shape { "username": ..., "password": ... }. Empty: no roles are made. */
  readonly roleSecrets: string | undefined;
  /** Secrets Manager's, unless told otherwise. */
  readonly readSecret?: (arn: string) => Promise<string>;
}

/** The part of CloudFormation's request to a custom resource that is used. */
interface CustomResource {
  readonly RequestType?: "Create" | "Update" | "Delete";
  readonly ResponseURL?: string;
  readonly StackId?: string;
  readonly RequestId?: string;
  readonly LogicalResourceId?: string;
  readonly PhysicalResourceId?: string;
}

/** A paused cluster is back within this. */
const RESUME_MS = 120_000;
const RETRY_MS = 3000;
/** For the answer to CloudFormation, which else waits for an hour. */
const ANSWER_MS = 10_000;

/**
 * The function that CloudFormation calls as a custom resource, and `serverless invoke` with {}. Deleting the stack leaves the database as it is.
 * Answers CloudFormation in any case, with the error's code and what to do.
 */
export function createDeploymentHandler(options: DeploymentOptions) {
  const runtime = lazyRuntime();
  return async (
    event: CustomResource | null,
    context?: Pick<Context, "getRemainingTimeInMillis">,
  ): Promise<unknown> => {
    const untilMs = Math.min(RESUME_MS, (context?.getRemainingTimeInMillis() ?? RESUME_MS + ANSWER_MS) - ANSWER_MS);
    const work = async (): Promise<DeploymentReport[]> => {
      if (event?.RequestType === "Delete") return [];
      const orders = await readOrders(options);
      const reports: DeploymentReport[] = [];
      for (const database of (await runtime()).databases) reports.push(await prepare(database, orders, untilMs));
      return reports;
    };
    if (event?.ResponseURL === undefined) {
      return await work().catch((error: unknown) => {
        throw error instanceof StintError ? Object.assign(error, { message: said(error) }) : error;
      });
    }
    const answered = await within(work(), untilMs + ANSWER_MS / 2).then(
      () => ({ Status: "SUCCESS" }),
      (error: unknown) => ({ Status: "FAILED", Reason: said(error) }),
    );
    await answer(event, answered);
    return answered;
  };
}

async function prepare(database: Database, orders: readonly RoleOrder[], untilMs: number): Promise<DeploymentReport> {
  const deadline = performance.now() + untilMs;
  for (;;) {
    try {
      const report = await migrate(database);
      return { ...report, roles: orders.length === 0 ? [] : await applyRoles(database, orders) };
    } catch (error) {
      // Both are safe to repeat, so an outcome nobody knows is asked for again.
      const passing = ["database_unavailable", "database_outcome_unknown"].includes(codeOf(error) ?? "");
      if (!passing || performance.now() + RETRY_MS > deadline) throw error;
      await pause(RETRY_MS);
    }
  }
}

const said = (error: unknown): string => {
  const message = error instanceof Error ? error.message : String(error);
  const code = codeOf(error);
  return code === undefined || message.startsWith(`${code}: `) ? message : `${code}: ${message}`;
};

async function readOrders({
  roleSecrets,
  readSecret = readFromSecretsManager,
}: DeploymentOptions): Promise<RoleOrder[]> {
  if (roleSecrets === undefined || roleSecrets === "") return [];
  return await Promise.all(
    roleSecrets.split(",").map(async (one) => {
      const [kind = "", arn = ""] = one.split(/=(.*)/s);
      if (!(ROLE_KINDS as readonly string[]).includes(kind) || arn === "")
        throw new StintError(
          "config_invalid",
          `STINT_ROLE_SECRETS is ${ROLE_KINDS.map((each) => `${each}=ARN`).join(",")}, or some of them.`,
        );
      const secret = readLogin(await readSecret(arn));
      if (secret === undefined)
        throw new StintError(
          "config_invalid",
          `The secret of the ${kind} is not { "username": ..., "password": ... }.`,
        );
      return { kind: kind as RoleKind, name: secret.username, password: secret.password };
    }),
  );
}

function readLogin(text: string): { username: string; password: string } | undefined {
  try {
    const { username, password } = JSON.parse(text) as Record<string, unknown>;
    if (typeof username === "string" && typeof password === "string") return { username, password };
  } catch {}
  return undefined;
}

let client: SecretsManagerClient | undefined;
async function readFromSecretsManager(arn: string): Promise<string> {
  client ??= new SecretsManagerClient({});
  return (await client.send(new GetSecretValueCommand({ SecretId: arn }))).SecretString ?? "";
}

async function within<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(
          new StintError(
            "database_unavailable",
            `The database was not ready within ${Math.round(ms / 1000)} s: deploy again.`,
          ),
        ),
      ms,
    );
  });
  return await Promise.race([work, late]).finally(() => clearTimeout(timer));
}

const MOST_REASON = 1000;

async function answer(event: CustomResource, { Status, Reason }: { Status: string; Reason?: string }): Promise<void> {
  const { StackId, RequestId, LogicalResourceId, PhysicalResourceId } = event;
  const body = JSON.stringify({
    Status,
    ...(Reason !== undefined && { Reason: Reason.slice(0, MOST_REASON) }),
    StackId,
    RequestId,
    LogicalResourceId,
    // The same for ever: another would make CloudFormation delete the one before.
    PhysicalResourceId: PhysicalResourceId ?? "stint-schema",
  });
  await fetch(event.ResponseURL!, { method: "PUT", body, headers: { "content-type": "" } });
}
