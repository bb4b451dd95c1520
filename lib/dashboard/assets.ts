/** Style, script and icon, under names that change with their content. */
import type { HttpAnswer } from "../http.ts";
import { assets } from "./assets/inlined.ts";

export const ASSETS = "/processor/assets";

const named = (one: { name: string; hash: string }): string =>
  `${ASSETS}/${one.name.replace(/\.(\w+)$/, `.${one.hash}.$1`)}`;

export function assetPath(name: string): string {
  return named(assets.find((one) => one.name === name)!);
}

/** Undefined when there is none of this name and content. */
export function asset(path: string): HttpAnswer | undefined {
  const found = assets.find((one) => named(one) === path);
  if (found === undefined) return undefined;
  const headers = { "content-type": found.type, "cache-control": "private, max-age=31536000, immutable" };
  return { status: 200, headers, body: found.body };
}
