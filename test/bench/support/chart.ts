/** Rates of ours and of the peers as bars, one panel a bench: SVG by Vega-Lite, drawn without a browser. */
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { type BenchModule, NAMES, type Name } from "./figures.ts";
import type { Measured } from "./page.ts";

const OURS = "#1f6f8b";
const PEERS = "#b8b8b8";

export async function drawChart(
  results: Partial<Record<Name, Measured>>,
  modules: ReadonlyMap<Name, BenchModule>,
): Promise<string> {
  const values = NAMES.flatMap((bench) =>
    (modules.get(bench)?.charted ?? [])
      .filter((figure) => results[bench]?.figures[figure] !== undefined)
      .map((who) => ({ bench, who, rate: Number(results[bench]!.figures[who]), ours: isOurs(who) })),
  );
  const benches = NAMES.filter((name) => values.some(({ bench }) => bench === name));
  const spec: TopLevelSpec = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    background: "white",
    padding: 12,
    config: { font: "sans-serif", axis: { labelFontSize: 11, titleFontSize: 11 }, view: { stroke: null } },
    title: { text: "Tasks a second", anchor: "start", fontSize: 15 },
    spacing: 18,
    resolve: { scale: { x: "independent" } },
    vconcat: benches.map((name) => ({
      title: { text: name, anchor: "start" as const, fontSize: 12 },
      width: 460,
      height: { step: 20 },
      data: { values: values.filter(({ bench }) => bench === name) },
      encoding: {
        y: {
          field: "who",
          type: "nominal" as const,
          sort: null,
          title: null,
          axis: { labelLimit: 190, minExtent: 170 },
        },
        x: { field: "rate", type: "quantitative" as const, title: null, axis: { format: "~s", tickCount: 5 } },
      },
      layer: [
        {
          mark: { type: "bar" as const },
          encoding: {
            color: {
              field: "ours",
              type: "nominal" as const,
              legend: null,
              scale: { domain: [true, false], range: [OURS, PEERS] },
            },
          },
        },
        {
          mark: { type: "text" as const, align: "left" as const, dx: 4, fontSize: 11 },
          encoding: { text: { field: "rate", type: "quantitative" as const, format: ",.0f" } },
        },
      ],
    })),
  };
  return await new View(parse(compile(spec).spec), { renderer: "none" }).toSVG();
}

/** Peers go by their names; what Postgres itself gives is nobody's. */
const isOurs = (who: string): boolean => /^(ours|slots)/.test(who);
