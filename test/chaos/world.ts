/** What a run is played on: Postgres of its own in a temp folder, the Data API in front of it, the schema, the observer in it. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { build, type Plugin } from "esbuild";
import pg from "pg";
import { type LocalPostgres, startPostgres } from "../../infra/local/postgres.ts";
import { LOCAL } from "../../infra/local/stack.ts";
import { connectDataApi } from "../../lib/database/data-api.ts";
import { connectPg } from "../../lib/database/pg.ts";
import type { Database } from "../../lib/database/port.ts";
import { migrate } from "../../lib/sql/migrate.ts";
import { migrations } from "../../lib/sql/migrations/inlined.ts";
import type { Target } from "./invocation.ts";
import { monitorSql } from "./monitor.ts";
import { unpackRelease } from "./release.ts";
import { type StandIn, startStandIn } from "./stand-in.ts";

const schema = "task_processor";
const SQL_DEADLINE_MS = 60_000;

export interface World {
  readonly postgres: LocalPostgres;
  readonly dataApi: StandIn;
  readonly graceMs: number;
  /** Where the processes log. */
  readonly folder: string;
  /** The bundled invocation. */
  readonly invocation: string;
  /** The one of the release before, where a run upgrades. */
  readonly invocationBefore: string | undefined;
  readonly targets: Readonly<Record<"pg" | "data-api", Target>>;
  /** Applies what the release before lacks. */
  upgrade(): Promise<void>;
  connect(adapter: "pg" | "data-api"): Database;
  /** Past the adapters and the faults: repeated until Postgres is there, so only for what may be repeated. */
  sql<Row>(text: string, values?: unknown[]): Promise<Row[]>;
  close(): Promise<void>;
}

export async function createWorld({ graceMs, from }: { graceMs: number; from?: string }): Promise<World> {
  // A profile of the caller's would be asked before the stand-in's dummy credentials.
  delete process.env.AWS_PROFILE;
  Object.assign(process.env, { AWS_REGION: LOCAL.region, AWS_ACCESS_KEY_ID: "local", AWS_SECRET_ACCESS_KEY: "local" });
  const folder = mkdtempSync(join(tmpdir(), "stint-chaos-"));
  const sweep = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", sweep);
  const postgres = await startPostgres({ settings: { fsync: "off", max_connections: "300" } });
  let dataApi: StandIn | undefined;
  const pool = new pg.Pool({ connectionString: postgres.url, max: 3, options: `-c search_path=${schema}` });
  pool.on("error", () => {});
  const close = async (): Promise<void> => {
    await pool.end();
    await dataApi?.close();
    await postgres.stop("immediate");
    process.removeListener("exit", sweep);
    sweep();
  };
  try {
    const upgrade = async (list = migrations): Promise<void> => {
      const migrating = connectPg({ url: postgres.url, schema });
      await migrate(migrating, list).finally(() => migrating.close());
    };
    let invocationBefore: string | undefined;
    if (from === undefined) await upgrade();
    else {
      invocationBefore = join(folder, "before.mjs");
      unpackRelease(from, join(folder, "before"));
      await bundle(invocationBefore, join(folder, "before"));
      const before = join(folder, "before/lib/sql/migrations/inlined.ts");
      await upgrade(((await import(before)) as { migrations: typeof migrations }).migrations);
    }
    dataApi = await startStandIn({
      clusters: [{ resourceArn: LOCAL.resourceArn, url: postgres.url, database: LOCAL.database }],
      maxConnections: 60,
      // A producer's transaction whose end was lost holds its serial key until then, three minutes on AWS: those behind it would look stuck in the calm.
      transactionIdleMs: 5000,
    });
    const { endpoint } = dataApi;
    const { resourceArn, secretArn, database } = LOCAL;
    const targets = {
      pg: { kind: "pg", url: postgres.url, schema },
      "data-api": { kind: "data-api", endpoint, resourceArn, secretArn, database, schema },
    } as const;
    const invocation = join(folder, "invocation.mjs");
    await bundle(invocation);
    const world: World = {
      postgres,
      dataApi,
      graceMs,
      folder,
      invocation,
      invocationBefore,
      targets,
      upgrade: () => upgrade(),
      connect: (adapter) => (adapter === "pg" ? connectPg(targets.pg) : connectDataApi(targets["data-api"])),
      async sql<Row>(text: string, values: unknown[] = []) {
        for (const startedAt = performance.now(); ; await sleep(50)) {
          try {
            return (await pool.query(text, values)).rows as Row[];
          } catch (error) {
            const refused = /^(22|23|42)/.test((error as { code?: string }).code ?? "");
            if (refused || performance.now() - startedAt > SQL_DEADLINE_MS) throw error;
          }
        }
      },
      close,
    };
    await world.sql(monitorSql(graceMs));
    return world;
  } catch (error) {
    await close();
    throw error;
  }
}

/** Bundled as for Lambda: a start takes a fifth of the time. */
async function bundle(outfile: string, release?: string): Promise<void> {
  await build({
    entryPoints: [join(import.meta.dirname, "invocation.ts")],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    external: ["pg-native"],
    logLevel: "error",
    nodePaths: [join(import.meta.dirname, "../../node_modules")],
    plugins: release === undefined ? [] : [libOf(release)],
    banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
  });
}

/** The same invocation and handlers over another release's lib. */
const libOf = (release: string): Plugin => ({
  name: "lib-of-release",
  setup: ({ onResolve }) => {
    if (!existsSync(join(release, "lib/tick.ts")))
      onResolve({ filter: /^\.\/seat\.ts$/ }, () => ({ path: join(import.meta.dirname, "seat-before.ts") }));
    onResolve({ filter: /^\.\.\/\.\.\/lib\// }, ({ path }) => ({ path: join(release, path.replace("../../", "")) }));
  },
});
