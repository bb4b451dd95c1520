import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { type Bundle, startFunction, withBundles } from "./support/bundles.ts";
import type { BenchOptions, Figures, Target } from "./support/figures.ts";
import { interleavedTimes, rounded } from "./support/measure.ts";
import { heard } from "./support/processes.ts";

export const about =
  "A fresh process, from the import of the bundled processor (settings of serverless.yml, environment of a deployed function) to the arrival of its first exchange at a server; beside a bundle that imports RDSDataClient alone and sends one request, built and started with the same settings: no source map is read at start by either. Milliseconds, median.";

export const targets: readonly Target[] = [{ figure: "ratio", atMost: 1.25 }];

export const bench = ({ quick }: BenchOptions): Promise<Figures> =>
  withBundles(async (paths) => {
    const { processor, bare } = await interleavedTimes(
      { processor: () => firstRequest(paths, "processor"), bare: () => firstRequest(paths, "bare") },
      quick ? { rounds: 1, calls: 2, warmUp: 1 } : { rounds: 25, calls: 2, warmUp: 3 },
    );
    return {
      "processor, ms": rounded(processor.median, 1),
      "RDSDataClient alone, ms": rounded(bare.median, 1),
      ratio: rounded(processor.median / bare.median, 2),
      "ratio of the fastest tenths": rounded(processor.tenth / bare.tenth, 2),
    };
  });

/** Milliseconds from the import to the first request. It is not answered: the process is ended there. */
async function firstRequest(paths: Readonly<Record<Bundle, string>>, name: Bundle): Promise<number> {
  const server = createServer();
  await once(server.listen(0, "127.0.0.1"), "listening");
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const child = startFunction(paths[name], { endpoint, database: "postgres" });
  try {
    const arrival = once(server, "request").then(async ([request]) => {
      const at = performance.timeOrigin + performance.now();
      const { sql } = JSON.parse(await text(request)) as { sql: string };
      if (!sql.includes(name === "processor" ? "exchange_v2" : "SELECT 1")) throw new Error(`It sent: ${sql}`);
      return at;
    });
    const { importedAt } = (await heard(child)) as { importedAt: number };
    return (await arrival) - importedAt;
  } finally {
    child.kill("SIGKILL");
    server.closeAllConnections();
    server.close();
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }
}
