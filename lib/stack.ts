/** Stack traces of bundled code in terms of its sources. Node's own --enable-source-maps reads each map when its file is loaded; here, when a stack is asked for. */
import { readFileSync } from "node:fs";
import { SourceMap, type SourceOrigin } from "node:module";
import { fileURLToPath } from "node:url";

/** Maps every stack of this process from now on: what is stored, what is logged, and what handlers print themselves. */
export function mapStacks(): void {
  // Maps that lie in the files themselves, of a bundler of one's own, Node has read already.
  if (process.sourceMapsEnabled) return;
  const maps = new Map<string, SourceMap | undefined>();
  const mapOf = (file: string | null): SourceMap | undefined => {
    if (file === null || !file.startsWith("file:")) return undefined;
    if (!maps.has(file)) maps.set(file, readMap(file));
    return maps.get(file);
  };
  Error.prepareStackTrace = (error, sites) => {
    const frames = sites.map((site, place) => `\n    at ${frameOf(site, sites[place + 1], mapOf)}`);
    return `${headOf(error)}${frames.join("")}`;
  };
}

/** A bundle without a map keeps its own lines. */
function readMap(file: string): SourceMap | undefined {
  try {
    return new SourceMap(JSON.parse(readFileSync(`${fileURLToPath(file)}.map`, "utf8")));
  } catch {
    return undefined;
  }
}

type Site = NodeJS.CallSite;

function frameOf(site: Site, caller: Site | undefined, mapOf: (file: string | null) => SourceMap | undefined): string {
  const file = site.getScriptNameOrSourceURL();
  const map = mapOf(file);
  const found = map && originOf(map, site.getLineNumber(), site.getColumnNumber());
  if (map === undefined || found === undefined) return String(site);
  const source = `${found.fileName.replace(/^(\.\.\/)+/, "")}:${found.lineNumber}:${found.columnNumber}`;
  // A minified function's name stands where it begins, else where it is called.
  const name =
    originOf(map, site.getEnclosingLineNumber(), site.getEnclosingColumnNumber())?.name ??
    (caller?.getScriptNameOrSourceURL() === file
      ? originOf(map, caller.getLineNumber(), caller.getColumnNumber())?.name
      : undefined);
  if (name === undefined) return String(site).replace(/file:[^\s()]+/, source);
  return `${site.isAsync() ? "async " : ""}${name} (${source})`;
}

function originOf(map: SourceMap, line: number | null, column: number | null): SourceOrigin | undefined {
  if (line === null || column === null) return undefined;
  const found = map.findOrigin(line, column);
  return "fileName" in found ? found : undefined;
}

function headOf(error: Error): string {
  try {
    return Error.prototype.toString.call(error);
  } catch {
    return "Error";
  }
}
