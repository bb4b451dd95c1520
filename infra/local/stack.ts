/** Everything an application of Stint needs on this machine: Postgres, the Data API in front of it, the schema. */
import { connectDataApi } from "../../lib/database/data-api.ts";
import type { Database } from "../../lib/database/port.ts";
import { type MigrationReport, migrate } from "../../lib/sql/migrate.ts";
import { applyRoles, ROLE_KINDS, type RoleKind, type RoleOrder, randomPassword } from "../../lib/sql/roles.ts";
import { type DataApi, startDataApi } from "./data-api/index.ts";
import { type LocalPostgres, startPostgres } from "./postgres.ts";

/** Literals of stage `local`: the stand-in knows this one cluster. */
export const LOCAL = {
  resourceArn: "arn:aws:rds:us-east-1:000000000000:cluster:stint-local",
  /** Of the schema's owner. */
  secretArn: "arn:aws:secretsmanager:us-east-1:000000000000:secret:stint-local",
  database: "postgres",
  region: "us-east-1",
} as const;

/** Of a role of least privilege: what a function may not do on AWS fails on this machine too. */
export const localSecretOf = (kind: RoleKind): string => `${LOCAL.secretArn}-${kind}`;

export interface StackOptions {
  /** Kept between runs; without it a temp folder, swept afterwards. */
  readonly dataDir?: string;
  /** The stand-in's port; 0 takes any. */
  readonly dataApiPort?: number;
  readonly schema?: string;
}

export interface Stack {
  readonly postgres: LocalPostgres;
  readonly dataApi: DataApi;
  readonly migrations: MigrationReport;
  /** For processes that are to use this stack: the cluster, the endpoint, dummy credentials. */
  readonly environment: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

export async function startStack({
  dataDir,
  dataApiPort = 0,
  schema = "task_processor",
}: StackOptions = {}): Promise<Stack> {
  const postgres = await startPostgres(dataDir === undefined ? {} : { dataDir });
  let dataApi: DataApi | undefined;
  const logins = ROLE_KINDS.map((kind) => ({ kind, name: `${schema}_${kind}`, password: randomPassword() }));
  const secrets = {
    [LOCAL.secretArn]: { user: decodeURIComponent(new URL(postgres.url.replace("@/", "@localhost/")).username) },
    ...Object.fromEntries(
      logins.map(({ kind, name: user, password }) => [localSecretOf(kind), { user, password }] as const),
    ),
  };
  try {
    dataApi = await startDataApi({
      port: dataApiPort,
      clusters: [{ resourceArn: LOCAL.resourceArn, url: postgres.url, database: LOCAL.database, secrets }],
    });
    const environment = {
      DATABASE_RESOURCE_ARN: LOCAL.resourceArn,
      DATABASE_SECRET_ARN: LOCAL.secretArn,
      DATABASE_NAME: LOCAL.database,
      TASK_PROCESSOR_SCHEMA: schema,
      AWS_ENDPOINT_URL_RDS_DATA: dataApi.endpoint,
      AWS_REGION: LOCAL.region,
      AWS_ACCESS_KEY_ID: "local",
      AWS_SECRET_ACCESS_KEY: "local",
    };
    // A profile would be read instead of the dummy credentials.
    delete process.env.AWS_PROFILE;
    Object.assign(process.env, {
      AWS_REGION: environment.AWS_REGION,
      AWS_ACCESS_KEY_ID: "local",
      AWS_SECRET_ACCESS_KEY: "local",
    });
    const database = connectDataApi({ ...LOCAL, schema, endpoint: dataApi.endpoint });
    const migrations = await prepare(database, logins).finally(() => database.close());
    const api = dataApi;
    return {
      postgres,
      dataApi,
      migrations,
      environment,
      async stop() {
        await api.close();
        await postgres.stop();
      },
    };
  } catch (error) {
    await dataApi?.close();
    await postgres.stop();
    throw error;
  }
}

async function prepare(database: Database, logins: readonly RoleOrder[]): Promise<MigrationReport> {
  const report = await migrate(database);
  await applyRoles(database, logins);
  return report;
}
