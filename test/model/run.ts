/** `npm run model [-- --quick] [-- --only RULE] [-- --seconds N]`: searches every configuration and takes each rule away. N ends one search. */
import { parseArgs } from "node:util";
import { CONFIGURATIONS, REMOVALS } from "./configurations.ts";
import { INVARIANTS, protocol } from "./protocol.ts";
import { type Found, search } from "./search.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    seconds: { type: "string", default: "120" },
  },
});
const seconds = Number(values.seconds);
let isBad = false;

const line = (...cells: (string | number)[]): void =>
  console.log([String(cells[0]).padEnd(44), ...cells.slice(1).map((cell) => String(cell).padStart(11))].join("  "));
const counts = ({ states, steps, depth, seconds: took }: Found): (string | number)[] => [
  states.toLocaleString("en"),
  steps.toLocaleString("en"),
  depth,
  `${took.toFixed(1)} s`,
];

function tell({ broken, trace }: Found): void {
  if (broken === undefined) return;
  console.log(`\n  broken: ${INVARIANTS[broken]}`);
  for (const [n, step] of trace.entries()) console.log(`  ${String(n + 1).padStart(4)}. ${step}`);
  console.log();
}

if (values.only === undefined) {
  line("Invocations and tasks, with every rule", "states", "steps", "depth", "time", "result");
  for (const { name, config, isQuick } of CONFIGURATIONS) {
    if (values.quick && !isQuick) continue;
    const found = search(protocol(config), { seconds });
    const result = found.broken ?? (found.complete ? "holds" : "holds so far");
    isBad ||= found.broken !== undefined;
    line(name, ...counts(found), result);
    tell(found);
  }
}

const removals = REMOVALS.filter(({ rules, survives }) =>
  values.only === undefined ? !(values.quick && survives) : rules.join(" + ") === values.only,
);
if (removals.length === 0) {
  console.error(`--only takes one of: ${REMOVALS.map(({ rules }) => rules.join(" + ")).join(", ")}`);
  process.exit(2);
}
line("\nWithout the rule", "states", "steps", "depth", "time", "steps to it");
for (const { rules, config, watch, survives = false } of removals) {
  const found = search(protocol({ ...config, without: rules, ...(watch !== undefined && { watch }) }), { seconds });
  const isAsExpected = survives ? found.complete : found.broken !== undefined;
  isBad ||= !isAsExpected;
  line(
    rules.join(" + "),
    ...counts(found),
    found.broken === undefined ? (found.complete ? "survives" : "not found") : found.trace.length,
  );
  tell(found);
}
process.exitCode = isBad ? 1 : 0;
