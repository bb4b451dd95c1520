/** What is searched: with every rule, no step may break an invariant; without one, a counterexample must be found. */
import type { Config, Fault, Invariant, Rule } from "./protocol.ts";

export interface Configuration {
  readonly name: string;
  readonly config: Config;
  /** Seconds rather than minutes. */
  readonly isQuick?: boolean;
}

const shape = (invocations: number, tasks: number, slots: number, places: number, faults: readonly Fault[]): Config => ({
  invocations,
  tasks,
  slots,
  places,
  maxAttempts: 2,
  faults,
});

export const CONFIGURATIONS: readonly Configuration[] = [
  { name: "1 and 1, two strays", config: shape(1, 1, 1, 1, ["crash", "freeze", "loss", "two-strays", "fail", "end", "stop"]), isQuick: true },
  { name: "2 and 1, crashes", config: shape(2, 1, 2, 1, ["crash"]), isQuick: true },
  { name: "2 and 1, crashes and freezes", config: shape(2, 1, 2, 1, ["crash", "freeze"]) , isQuick: true },
];

export interface Removal {
  readonly rules: readonly Rule[];
  readonly config: Config;
  /** Without it the search must end without a counterexample: what other rules make superfluous. */
  readonly watch: readonly Invariant[] | "survives";
  readonly isQuick?: boolean;
}

export const REMOVALS: readonly Removal[] = [
  { rules: ["self-abort"], config: shape(2, 1, 2, 1, ["crash", "freeze"]), watch: ["once"] },
  { rules: ["lease-from-sending"], config: shape(2, 1, 2, 1, ["crash"]), watch: ["once"] },
  { rules: ["check-before-starting"], config: shape(2, 1, 2, 1, ["freeze"]), watch: ["once"] },
  { rules: ["expired-flag"], config: shape(2, 1, 2, 1, ["stray", "loss"]), watch: ["expired"] },
  { rules: ["one-transaction"], config: shape(2, 1, 2, 1, ["crash"]), watch: ["lost"] },
  { rules: ["seq"], config: shape(1, 1, 1, 1, ["stray", "loss"]), watch: ["untold"] },
  { rules: ["tell-again"], config: shape(1, 1, 1, 1, ["loss"]), watch: ["untold"] },
  { rules: ["refuse-lower-seq"], config: shape(1, 1, 1, 1, ["two-strays", "loss"]), watch: ["untold"] },
  { rules: ["release-fence"], config: shape(2, 1, 1, 1, ["end"]), watch: ["seat"] },
  { rules: ["suspects"], config: shape(3, 2, 1, 2, ["poison"]), watch: ["attempts"] },
  { rules: ["suspects-alone"], config: shape(3, 2, 1, 2, ["poison"]), watch: ["innocent"] },
  { rules: ["forgiveness"], config: shape(2, 2, 1, 2, ["poison"]), watch: ["innocent"] },
  { rules: ["witness"], config: shape(2, 1, 2, 1, ["outage"]), watch: ["outage"] },
  { rules: ["never-oneself", "witness"], config: shape(1, 1, 1, 1, ["freeze", "stray", "loss"]), watch: ["outage"] },
  { rules: ["never-oneself"], config: shape(2, 1, 2, 1, ["crash", "freeze"]), watch: "survives" },
  { rules: ["fence-holder", "expired-flag"], config: shape(2, 1, 1, 1, ["loss", "stray"]), watch: ["result"] },
  { rules: ["fence-attempt", "seq"], config: shape(1, 1, 1, 1, ["loss", "fail"]), watch: ["result"] },
  { rules: ["fence-attempt", "expired-flag"], config: shape(2, 1, 1, 1, ["loss", "fail"]), watch: "survives" },
  { rules: ["fence-holder"], config: shape(2, 1, 1, 1, ["loss", "stray"]), watch: "survives" },
  { rules: ["fence-attempt"], config: shape(1, 1, 1, 1, ["crash", "loss", "two-strays", "fail", "end", "stop"]), watch: "survives" },
];
