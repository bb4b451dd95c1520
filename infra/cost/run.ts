/** `npm run cost -- --tasks-per-month N --ms N ...`: what a month costs, how soon tasks start, and what others would cost. */
import { type Options, readOptions, USAGE } from "./options.ts";
import { type Column, jsonOf, priceTable, textOf } from "./report.ts";
import { simulate } from "./simulate.ts";
import { fargateUsage, sqsUsage, stintUsage } from "./usage.ts";

function columnsOf({ workloads, seed }: Options): Column[] {
  const simulated = workloads.map(({ profile, workload }) => {
    const month = simulate(workload, { seed });
    return { name: profile, lines: stintUsage(workload, month), month };
  });
  const { workload } = workloads[0]!;
  return [
    ...simulated,
    { name: "SQS + Lambda", lines: sqsUsage(workload) },
    { name: "container", lines: fargateUsage(workload) },
  ];
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options.prices) process.stdout.write(`${priceTable()}\n`);
  else {
    const columns = columnsOf(options);
    const { freeTier, seed, workloads } = options;
    const json = { freeTier, seed, workload: workloads[0]!.workload, ...jsonOf(columns, freeTier) };
    process.stdout.write(options.json ? `${JSON.stringify(json)}\n` : textOf(columns, freeTier));
  }
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n\n${USAGE}`);
  process.exitCode = 2;
}
