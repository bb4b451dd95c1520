/** infra/container as it is written: what the files name, and what a service would be started with. */
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Copy, DockerfileParser, type JSONInstruction } from "dockerfile-ast";
import { parse } from "yaml";

export const root = fileURLToPath(new URL("../../", import.meta.url));

export interface Service {
  readonly image?: string;
  readonly build?: { readonly context: string; readonly dockerfile: string; readonly target: string };
  readonly command?: string[];
  readonly environment?: Record<string, string>;
  readonly healthcheck?: { readonly test?: string[]; readonly disable?: boolean };
  readonly depends_on?: Record<string, { readonly condition: string }>;
  readonly stop_grace_period?: string;
  readonly ports?: string[];
}

export const readCompose = (): { readonly services: Record<string, Service> } =>
  parse(readFileSync(join(root, "infra/container/compose.yml"), "utf8"), { merge: true });

/** As compose does: `${NAME:-default}`, of an empty environment. */
export const interpolated = (environment: Record<string, string> = {}): Record<string, string> =>
  Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, value.replaceAll(/\$\{\w+:-([^}]*)\}/g, "$1")]),
  );

export interface Stage {
  readonly name: string;
  readonly from: string;
  readonly copies: readonly {
    readonly sources: string[];
    readonly target: string;
    readonly stage: string | undefined;
  }[];
  readonly runs: readonly string[];
  /** The last of each keyword. */
  readonly last: Readonly<Record<string, string>>;
  readonly exec: Readonly<Record<string, string[]>>;
}

export function readStages(): Stage[] {
  const text = readFileSync(join(root, "infra/container/Dockerfile"), "utf8");
  const stages: { -readonly [K in keyof Stage]: Stage[K] extends readonly (infer T)[] ? T[] : Stage[K] }[] = [];
  for (const instruction of DockerfileParser.parse(text).getInstructions()) {
    const keyword = instruction.getKeyword();
    const words = instruction.getArguments().map((word) => word.getValue());
    if (keyword === "FROM") {
      stages.push({ name: words[2] ?? "", from: words[0]!, copies: [], runs: [], last: {}, exec: {} });
      continue;
    }
    const stage = stages.at(-1)!;
    if (keyword === "COPY") {
      const from = (instruction as Copy).getFromFlag()?.getValue() ?? undefined;
      const paths = words.filter((word) => !word.startsWith("--"));
      stage.copies.push({ sources: paths.slice(0, -1), target: paths.at(-1)!, stage: from });
    }
    if (keyword === "RUN") stage.runs.push(instruction.getArgumentsContent() ?? "");
    const json = (instruction as JSONInstruction).getJSONStrings?.().map((one) => one.getJSONValue()) ?? [];
    stage.exec = { ...stage.exec, [keyword]: json };
    stage.last = { ...stage.last, [keyword]: instruction.getArgumentsContent() ?? "" };
  }
  return stages;
}

/** A stage with what it inherits from the stages below it. */
export function resolved(stages: readonly Stage[], name: string): Stage {
  const own = stages.find((stage) => stage.name === name);
  if (own === undefined) throw new Error(`There is no stage ${name}.`);
  if (!stages.some((stage) => stage.name === own.from)) return own;
  const base = resolved(stages, own.from);
  return {
    ...own,
    from: base.from,
    copies: [...base.copies, ...own.copies],
    last: { ...base.last, ...own.last },
    exec: { ...base.exec, ...own.exec },
  };
}

/** The files a stage's image would hold, and no others; what npm brings is this checkout's. */
export function layOut(stage: Stage, folder: string): void {
  for (const { sources, target, stage: from } of stage.copies) {
    for (const source of from === undefined ? sources : []) {
      const into = target.endsWith("/") ? join(folder, target, source.split("/").at(-1)!) : join(folder, target);
      mkdirSync(dirname(into), { recursive: true });
      cpSync(join(root, source), into, { recursive: true });
    }
  }
  if (!existsSync(join(folder, "node_modules"))) symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
}
