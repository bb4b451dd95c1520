import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { interpolated, layOut, readCompose, readStages, resolved, root, type Service } from "./support/compose.ts";
import { openDatabase, type TestDatabase } from "./support/database.ts";
import { type Running, startNode, until } from "./support/stint.ts";

const { services } = readCompose();
const stages = readStages();
let image: string;

beforeAll(() => {
  image = mkdtempSync(join(tmpdir(), "stint-image-"));
  layOut(resolved(stages, "processor"), image);
});

afterAll(() => rmSync(image, { recursive: true, force: true }));

const built = (): [string, Service][] => Object.entries(services).filter(([, { build }]) => build !== undefined);

/** What the container would run: the entry point of its image, then its command or the image's. */
const commandOf = ({ build, command }: Service): string[] => {
  const { exec } = resolved(stages, build!.target);
  return [...exec.ENTRYPOINT!, ...(command ?? exec.CMD ?? [])];
};

test("the image: slim, of Node 24, not root, from a lock file and without what only development takes", () => {
  for (const { from } of stages) expect(from === "node:24-slim" || stages.some(({ name }) => name === from)).toBe(true);
  const { last, exec, copies } = resolved(stages, "processor");
  expect(last).toMatchObject({ USER: "node", STOPSIGNAL: "SIGTERM" });
  expect(stages.at(-1)!.from).toBe("processor");
  expect(stages.find(({ name }) => name === "dependencies")!.runs).toEqual([
    expect.stringMatching(/^npm ci --omit=dev /),
  ]);
  expect(exec.ENTRYPOINT).toEqual(["node", "infra/stint.js"]);
  expect(last.HEALTHCHECK).toContain("http://127.0.0.1:8080/health");
  expect(exec.CMD!.join(" ")).toContain("--port 8080");
  const allowed = readFileSync(join(root, "infra/container/Dockerfile.dockerignore"), "utf8");
  for (const { sources, stage } of stages.flatMap((one) => one.copies)) {
    if (stage !== undefined) expect(stages.map(({ name }) => name)).toContain(stage);
    else
      for (const source of sources) {
        expect(existsSync(join(root, source)), source).toBe(true);
        expect(allowed.split("\n").some((line) => line !== "*" && `${source}/`.startsWith(`${line.slice(1)}/`))).toBe(
          true,
        );
      }
  }
  expect(copies.some(({ stage }) => stage === "dependencies")).toBe(true);
});

test("compose: each service waits for what it needs, is looked after, and runs what is in its image", () => {
  for (const [name, { build, depends_on = {}, healthcheck }] of Object.entries(services)) {
    for (const other of Object.keys(depends_on)) expect(services, name).toHaveProperty(other);
    if (build === undefined) continue;
    expect(existsSync(join(root, "infra/container", build.context, build.dockerfile))).toBe(true);
    for (const word of [...commandOf(services[name]!), ...(healthcheck?.test ?? [])])
      if (/^[\w/]+\.(ts|js)$/.test(word)) expect(existsSync(join(image, word)), word).toBe(true);
  }
  expect(services.migrate!.depends_on).toEqual({ postgres: { condition: "service_healthy" } });
  for (const name of ["processor", "api"])
    expect(services[name]!.depends_on).toEqual({ migrate: { condition: "service_completed_successfully" } });
  expect(services.processor!.healthcheck!.test).toContain("checktaskprocessorthreadhealth");
  // Only this machine reaches what is published.
  for (const { ports = [] } of Object.values(services))
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
  const graceMs = Number(interpolated(services.processor!.environment).TASK_PROCESSOR_GRACE_PERIOD_MS);
  expect(Number.parseInt(services.processor!.stop_grace_period!, 10) * 1000).toBeGreaterThan(graceMs);
});

/** As the container would run, but for addresses: the database is the tests', ports are free ones. */
function run(words: readonly string[], service: Service, address: Record<string, string>): Running {
  const env = { ...interpolated(service.environment), NODE_ENV: "production", ...address };
  const loopback = words.map((word) => (word === "8080" ? "0" : word));
  return startNode(loopback.slice(1), env, image);
}

async function end({ child, ended }: Running): Promise<number | null> {
  child.kill("SIGTERM");
  return (await ended).code;
}

async function inbox(): Promise<{ url: string; received: string[] }> {
  const received: string[] = [];
  const server = createServer((request, response) => {
    let text = "";
    request.on("data", (data) => {
      text += data;
    });
    request.on("end", () => {
      received.push(text);
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  afterAll(() => void server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received };
}

test("the same commands as processes, end to end: migrate, sign up, an e-mail, healthy, stopped", async () => {
  expect(built().map(([name]) => name)).toEqual(["migrate", "processor", "api"]);
  const db: TestDatabase = await openDatabase("pg", { migrated: false });
  const mail = await inbox();
  const address = { DATABASE_URL: db.url, MAIL_URL: mail.url, PORT: "0", MONITORING_TOKEN: "reads-and-nothing-more" };
  const { migrate, processor, api } = services as Record<"migrate" | "processor" | "api", Service>;
  const migrated = await run(commandOf(migrate), migrate, address).ended;
  expect([migrated.code, migrated.stderr]).toEqual([0, ""]);
  const works = run(commandOf(processor), processor, address);
  const serves = run(commandOf(api), api, address);
  const apiUrl = (): string | undefined => /http:\/\/localhost:\d+/.exec(serves.output())?.[0];
  const processorPort = (): string | undefined => /"url":"http:[^"]+:(\d+)"/.exec(works.output())?.[1];
  await until("both listen", () => apiUrl() !== undefined && processorPort() !== undefined, works, serves);
  const signedUp = await fetch(`${apiUrl()}/sign-ups`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email: "ada@example.com" }),
  });
  expect(signedUp.status).toBe(201);
  await until("the e-mail is out", () => mail.received.length === 1, works, serves);
  expect(mail.received[0]).toContain("ada@example.com");

  // The health checks, as they are written, but for the port.
  const at = (words: readonly string[], from: string, port: string): string[] =>
    words.map((word) => word.replaceAll(`:${from}/`, `:${port}/`));
  const threads = await run(processor.healthcheck!.test!.slice(1), processor, address).ended;
  expect([threads.code, threads.stdout]).toEqual([0, expect.stringContaining("no unhealthy threads")]);
  const ofImage: string[] = JSON.parse(/CMD (\[.+\])/s.exec(resolved(stages, "processor").last.HEALTHCHECK!)![1]!);
  const ofApi = api.healthcheck!.test!.slice(1);
  const probes = () =>
    Promise.all([
      run(at(ofImage, "8080", processorPort()!), processor, address).ended,
      run(at(ofApi, "3000", new URL(apiUrl()!).port), api, address).ended,
    ]);
  expect((await probes()).map(({ code }) => code)).toEqual([0, 0]);
  expect(await Promise.all([end(works), end(serves)])).toEqual([0, 0]);
  expect((await probes()).map(({ code }) => code)).toEqual([1, 1]);
  expect(await db.sql("SELECT FROM heartbeat WHERE ended_at IS NULL")).toEqual([]);
});
