/** Servers as their users run them: in processes of their own, so that what a server computes is not on its caller's thread. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

export interface Server {
  readonly endpoint: string;
  readonly port: number;
  stop(): Promise<void>;
}

const bin = fileURLToPath(new URL("../../../infra/stint.js", import.meta.url));

/** `stint data-api` in front of that Postgres. */
export const serveDataApi = (url: string, ...flags: string[]): Promise<Server> =>
  serve([bin, "data-api", "--port", "0", "--url", url, ...flags]);

const bareServer = fileURLToPath(new URL("bare-server.ts", import.meta.url));

/** The least that can stand between HTTP and that Postgres: see there. */
export const serveBare = (url: string): Promise<Server> => serve([bareServer, url]);

/** Answers each request with one text, after so many milliseconds, and does nothing else. */
export const serveAnswer = (answer: string, afterMs = 0): Promise<Server> =>
  serve([
    "--input-type=module",
    "--eval",
    `import { createServer } from "node:http";
    const answer = ${JSON.stringify(answer)};
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(answer) };
    const server = createServer({ keepAliveTimeout: 65000 }, (request, response) => {
      const reply = () => response.writeHead(200, headers).end(answer);
      request.resume().on("end", () => (${afterMs} > 0 ? setTimeout(reply, ${afterMs}) : reply()));
    });
    server.listen(0, "127.0.0.1", () => console.log("http://127.0.0.1:" + server.address().port));`,
  ]);

async function serve(args: readonly string[]): Promise<Server> {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let said = "";
  for await (const text of child.stdout.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
    said += text;
    if (said.includes("\n")) break;
  }
  const endpoint = /http:\/\/127\.0\.0\.1:(\d+)/.exec(said);
  if (endpoint === null) throw new Error(`The server did not start: ${said}`);
  child.stdout.resume();
  return {
    endpoint: endpoint[0],
    port: Number(endpoint[1]),
    async stop() {
      child.kill("SIGTERM");
      await exited;
    },
  };
}
