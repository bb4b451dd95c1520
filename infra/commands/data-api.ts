import { Command, InvalidArgumentError, Option } from "commander";
import { codeOf } from "../../lib/errors.ts";
import type { Credentials, DataApi, DataApiOptions } from "../local/data-api/index.ts";
import { CommandError, wholeNumber } from "./environment.ts";
import { stopSignal } from "./stop-signal.ts";

interface DataApiFlags {
  readonly port: string;
  readonly host: string;
  readonly url?: string;
  readonly resourceArn?: string;
  readonly credentials?: Credentials;
  readonly rotate: boolean;
  readonly control?: true;
  readonly record?: string;
  readonly maxConnections?: string;
}

export const dataApiCommand = (): Command =>
  new Command("data-api")
    .description(
      "Serve a stand-in of the RDS Data API in front of a Postgres, until stopped. For development: it is not AWS's.",
    )
    .addOption(
      new Option("--port <number>", "where it listens; 0 takes any free one").default("3001").argParser(wholeNumber),
    )
    .option("--host <address>", "where it listens", "127.0.0.1")
    .addOption(
      new Option(
        "--url <postgres-url>",
        "the Postgres behind it (default: a Postgres of its own, in a checkout; its data in STINT_DATA_DIR or .stint/postgres)",
      ).argParser(postgresUrl),
    )
    .option("--resource-arn <arn>", "the cluster it answers for")
    .addOption(
      new Option(
        "--credentials <id:secret>",
        "the one access key it accepts, signatures verified (default: any key, of which the secret is not looked at)",
      )
        .env("STINT_DATA_API_CREDENTIALS")
        .argParser(credentialPair),
    )
    .option("--no-rotate", "keep one session warm; without this flag no two calls in a row get the same session")
    .option("--control", "accept POST and DELETE /__faults: failures on demand")
    .option("--record <file>", "write one JSON line a call: statements and parameters")
    .addOption(new Option("--max-connections <number>", "most Postgres connections").argParser(wholeNumber))
    .action(serve);

async function serve(flags: DataApiFlags): Promise<void> {
  const { LOCAL } = await import("../local/stack.ts");
  const stopped = stopSignal();
  const postgres = flags.url === undefined ? await ownPostgres() : undefined;
  const resourceArn = flags.resourceArn ?? LOCAL.resourceArn;
  try {
    const api = await listen({
      port: Number(flags.port),
      host: flags.host,
      clusters: [{ resourceArn, url: flags.url ?? postgres!.url }],
      rotate: flags.rotate,
      ...(flags.credentials && { credentials: flags.credentials }),
      ...(flags.control && { control: true }),
      ...(flags.record !== undefined && { record: flags.record }),
      ...(flags.maxConnections !== undefined && { maxConnections: Number(flags.maxConnections) }),
    });
    const behind = flags.url === undefined ? `its own Postgres (${postgres!.dataDir})` : where(flags.url);
    process.stdout.write(
      [
        `A stand-in of the RDS Data API, not AWS's: ${api.endpoint} in front of ${behind}. Ctrl-C stops it. To use it:`,
        `  AWS_ENDPOINT_URL_RDS_DATA=${api.endpoint} AWS_REGION=${LOCAL.region} ${keyOf(flags.credentials)}`,
        `  DATABASE_RESOURCE_ARN=${resourceArn} DATABASE_SECRET_ARN=${LOCAL.secretArn} DATABASE_NAME=${databaseOf(flags.url)}`,
        "",
      ].join("\n"),
    );
    await stopped;
    await api.close();
  } finally {
    await postgres?.stop();
  }
}

async function ownPostgres() {
  const { startPostgres } = await import("../local/postgres.ts");
  return await startPostgres({ dataDir: process.env.STINT_DATA_DIR || ".stint/postgres" });
}

async function listen(options: DataApiOptions): Promise<DataApi> {
  const { startDataApi } = await import("../local/data-api/index.ts");
  try {
    return await startDataApi(options);
  } catch (error) {
    if (codeOf(error) === "EADDRINUSE")
      throw new CommandError("port_in_use", `Port ${options.port} is in use: name another with --port.`);
    throw error;
  }
}

/** Host and database: a URL may hold a password. */
function where(url: string): string {
  const { host, pathname } = new URL(url);
  return `Postgres at ${decodeURIComponent(host || "this machine")}${pathname}`;
}

const databaseOf = (url: string | undefined): string =>
  (url === undefined ? "" : decodeURIComponent(new URL(url).pathname.slice(1))) || "postgres";

function postgresUrl(text: string): string {
  if (!/^postgres(ql)?:\/\//.test(text) || !URL.canParse(text))
    throw new InvalidArgumentError("It starts with postgres:// or postgresql://.");
  return text;
}

/** Without its secret: what a command prints may be kept in a log. */
const keyOf = (pair: Credentials | undefined): string =>
  pair === undefined
    ? "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local"
    : `AWS_ACCESS_KEY_ID=${pair.accessKeyId} AWS_SECRET_ACCESS_KEY=(its secret)`;

function credentialPair(text: string): Credentials {
  const [, accessKeyId, secretAccessKey] = /^([^:/,\s]+):(\S+)$/.exec(text) ?? [];
  if (accessKeyId === undefined)
    throw new InvalidArgumentError("It is an access key's id and its secret: AKID:SECRET.");
  return { accessKeyId, secretAccessKey: secretAccessKey! };
}
