/** Embedded Postgres, or a database of the demo's own on the server of STINT_TEST_DATABASE_URL. Never DATABASE_URL. */
import pg from "pg";
import { connectDataApi } from "../../../lib/database/data-api.ts";
import { migrate } from "../../../lib/sql/migrate.ts";
import { startDataApi } from "../data-api/index.ts";
import { LOCAL, type Stack, startStack } from "../stack.ts";

export interface DemoStack extends Pick<Stack, "environment" | "migrations" | "stop"> {
  readonly endpoint: string;
  readonly place: string;
}

export async function openStack(): Promise<DemoStack> {
  // A profile of the caller's would be asked before the stand-in's dummy credentials, and may not even load.
  delete process.env.AWS_PROFILE;
  const server = process.env.STINT_TEST_DATABASE_URL;
  if (server) return await onServer(server);
  const { environment, migrations, dataApi, stop } = await startStack();
  return { environment, migrations, stop, endpoint: dataApi.endpoint, place: "started for this run" };
}

const PREFIX = "stint_demo_";

async function onServer(server: string): Promise<DemoStack> {
  const admin = new pg.Client({ connectionString: server });
  await admin.connect();
  const name = `${PREFIX}${process.pid}_${Date.now()}`;
  // A connection to it for as long as the demo lives: a database without one was left by a demo that was killed.
  const url = databaseUrl(server, name);
  const keeper = new pg.Client({ connectionString: url });
  keeper.on("error", () => {});
  await admin.query(`SELECT pg_advisory_lock(hashtext('${PREFIX}'))`);
  await sweep(admin);
  await admin.query(`CREATE DATABASE "${name}"`);
  await keeper.connect();
  await admin.query(`SELECT pg_advisory_unlock(hashtext('${PREFIX}'))`);

  const dataApi = await startDataApi({ clusters: [{ resourceArn: LOCAL.resourceArn, url, database: name }] });
  const credentials = { AWS_REGION: LOCAL.region, AWS_ACCESS_KEY_ID: "local", AWS_SECRET_ACCESS_KEY: "local" };
  Object.assign(process.env, credentials);
  const schema = "task_processor";
  const database = connectDataApi({ ...LOCAL, database: name, schema, endpoint: dataApi.endpoint });
  const migrations = await migrate(database).finally(() => database.close());
  return {
    endpoint: dataApi.endpoint,
    place: `database ${name} on the server of STINT_TEST_DATABASE_URL`,
    migrations,
    environment: {
      ...credentials,
      DATABASE_RESOURCE_ARN: LOCAL.resourceArn,
      DATABASE_SECRET_ARN: LOCAL.secretArn,
      DATABASE_NAME: name,
      TASK_PROCESSOR_SCHEMA: schema,
      AWS_ENDPOINT_URL_RDS_DATA: dataApi.endpoint,
    },
    async stop() {
      await dataApi.close();
      await keeper.end();
      await admin.query(`DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`);
      await admin.end();
    },
  };
}

async function sweep(admin: pg.Client): Promise<void> {
  const { rows } = await admin.query(
    "SELECT datname FROM pg_database d WHERE starts_with(datname, $1) AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)",
    [PREFIX],
  );
  for (const { datname } of rows) await admin.query(`DROP DATABASE IF EXISTS "${datname}"`);
}

function databaseUrl(server: string, name: string): string {
  const [head, query] = server.split("?");
  const url = head!.replace(/^(postgres(?:ql)?:\/\/[^/]*)(\/.*)?$/, `$1/${name}`);
  return query === undefined ? url : `${url}?${query}`;
}
