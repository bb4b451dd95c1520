/** A Chromium: the machine's own where there is one, else the one that npm carries. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";

const INSTALLED = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const QUIET = [
  "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking",
  "--disable-component-update --disable-sync --hide-scrollbars --font-render-hinting=none",
].flatMap((line) => line.split(" "));

export async function startBrowser(): Promise<Browser> {
  const installed = process.env.STINT_TEST_CHROMIUM ?? INSTALLED.find((path) => existsSync(path));
  if (installed !== undefined) return await chromium.launch({ executablePath: installed, args: QUIET });
  const folder = await unpacked();
  return await chromium.launch({
    executablePath: join(folder, "chromium"),
    args: QUIET,
    env: {
      ...(process.env as Record<string, string>),
      LD_LIBRARY_PATH: join(folder, "al2023", "lib"),
      FONTCONFIG_PATH: join(folder, "fonts"),
      HOME: folder,
    },
  });
}

/** The package unpacks 60 MB into TMPDIR and takes a half-written file there for a whole one: hence a folder of our own, moved into its place when complete. */
async function unpacked(): Promise<string> {
  const { default: carried } = await import("@sparticuz/chromium");
  const { version } = JSON.parse(
    await readFile(new URL("../../node_modules/@sparticuz/chromium/package.json", import.meta.url), "utf8"),
  ) as { version: string };
  const place = join(tmpdir(), `stint-chromium-${version}-${process.getuid?.() ?? 0}`);
  if (existsSync(join(place, "chromium"))) return place;
  const fresh = await mkdtemp(`${place}-`);
  const before = { TMPDIR: process.env.TMPDIR, AWS_LAMBDA_JS_RUNTIME: process.env.AWS_LAMBDA_JS_RUNTIME };
  Object.assign(process.env, { TMPDIR: fresh, AWS_LAMBDA_JS_RUNTIME: "nodejs24.x" });
  try {
    await carried.executablePath();
  } finally {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
  await writeFile(join(fresh, "fonts", "fonts.conf"), fontsFor(place));
  await rename(fresh, place).catch(() => rm(fresh, { recursive: true, force: true }));
  return place;
}

const axe = new URL("../../node_modules/axe-core/axe.min.js", import.meta.url);

/** What axe-core finds on the page as it is now: the rule, and the first element that breaks it. */
export async function violations(page: Page): Promise<[string, string][]> {
  // Evaluated, not loaded: the page's own policy would refuse it as an element.
  await page.evaluate(await readFile(axe, "utf8"));
  return await page.evaluate(async () => {
    interface Axe {
      run(options: object): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }>;
    }
    const found = await (globalThis as unknown as { axe: Axe }).axe.run({ resultTypes: ["violations"] });
    return found.violations.map(({ id, nodes }): [string, string] => [id, nodes[0]!.html]);
  });
}

/** Its own file names folders of a Lambda. Without a single font Chromium ends itself at the first glyph it has to look for. */
const fontsFor = (place: string): string => `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>${place}/fonts/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>${place}/font-cache</cachedir>
  <alias binding="same"><family>system-ui</family><prefer><family>Open Sans</family></prefer></alias>
  <alias binding="same"><family>sans-serif</family><prefer><family>Open Sans</family></prefer></alias>
  <alias binding="same"><family>monospace</family><prefer><family>DejaVu Sans Mono</family><family>Open Sans</family></prefer></alias>
</fontconfig>
`;
