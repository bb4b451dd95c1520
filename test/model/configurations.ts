/** What is searched: with every rule, no step may break an invariant; without one, a counterexample must be found. */
import type { Config, Fault, Invariant, Rule } from "./protocol.ts";

export interface Configuration {
  readonly name: string;
  readonly config: Config;
  /** Seconds rather than minutes. */
  readonly isQuick?: boolean;
}

const shape = (
  invocations: number,
  tasks: number,
  slots: number,
  places: number,
  faults: readonly Fault[],
): Config => ({
  invocations,
  tasks,
  slots,
  places,
  maxAttempts: 2,
  faults,
});

/** A freeze without a thaw is a crash: where there are freezes, crashes add nothing but states. */
export const CONFIGURATIONS: readonly Configuration[] = [
  {
    name: "1 and 1, every fault and a second stray",
    config: shape(1, 1, 1, 1, ["crash", "freeze", "loss", "two-strays", "fail", "end", "stop", "outage"]),
    isQuick: true,
  },
  { name: "2 and 1, crashes", config: shape(2, 1, 2, 1, ["crash"]), isQuick: true },
  { name: "3 and 2, poison", config: shape(3, 2, 1, 2, ["poison"]), isQuick: true },
  { name: "2 and 1, freezes", config: shape(2, 1, 2, 1, ["freeze"]), isQuick: true },
  {
    name: "1 and 2, claimed ahead",
    config: shape(1, 2, 1, 2, ["loss", "fail", "end", "stop", "ahead"]),
    isQuick: true,
  },
  {
    name: "2 and 1 at one slot, claimed ahead",
    config: shape(2, 1, 1, 1, ["crash", "loss", "end", "ahead"]),
    isQuick: true,
  },
  { name: "2 and 1 at one slot, claimed ahead, freezes", config: shape(2, 1, 1, 1, ["freeze", "end", "ahead"]) },
  { name: "2 and 2 at one slot, claimed ahead", config: shape(2, 2, 1, 2, ["end", "ahead"]) },
  { name: "2 and 1, freezes and outage", config: shape(2, 1, 2, 1, ["freeze", "outage"]) },
  { name: "2 and 1 at one slot, losses, failures, ends", config: shape(2, 1, 1, 1, ["crash", "loss", "fail", "end"]) },
  { name: "2 and 1, strays", config: shape(2, 1, 2, 1, ["loss", "stray"]) },
  { name: "3 and 2 at two slots, poison", config: shape(3, 2, 2, 2, ["poison"]) },
  { name: "2 and 2, crashes and ends", config: shape(2, 2, 2, 2, ["crash", "end"]) },
  { name: "3 and 2, crashes", config: shape(3, 2, 2, 1, ["crash"]) },
  {
    name: "2 and 1, every fault",
    config: shape(2, 1, 2, 1, ["freeze", "loss", "stray", "fail", "end", "stop", "outage", "only-free"]),
  },
];

export interface Removal {
  readonly rules: readonly Rule[];
  readonly config: Config;
  /** The invariant to break; without it, any. */
  readonly watch?: readonly Invariant[];
  /** Another rule stands in for it: the search ends without a counterexample. */
  readonly survives?: boolean;
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
  { rules: ["same-number"], config: shape(1, 1, 1, 1, ["loss"]), watch: ["untold"] },
  { rules: ["unacknowledged", "seq"], config: shape(1, 2, 1, 1, ["loss"]), watch: ["places"] },
  { rules: ["unacknowledged"], config: shape(1, 2, 1, 1, ["loss", "two-strays", "fail"]), survives: true },
  { rules: ["newest-only"], config: shape(2, 1, 1, 1, []), watch: ["superseded"] },
  { rules: ["end-unholds"], config: shape(1, 1, 1, 1, ["end", "ahead"]), watch: ["lost"] },
  { rules: ["end-unholds"], config: shape(2, 1, 1, 1, ["crash", "end", "stop"]), survives: true },
  { rules: ["none-after-end"], config: shape(2, 1, 1, 1, ["end", "ahead"]), watch: ["once"] },
  { rules: ["release-fence"], config: shape(2, 1, 1, 1, ["end"]), watch: ["seat"] },
  { rules: ["suspects"], config: shape(3, 2, 1, 2, ["poison"]), watch: ["attempts"] },
  { rules: ["suspects-alone"], config: shape(3, 2, 1, 2, ["poison"]), watch: ["innocent"] },
  { rules: ["forgiveness"], config: shape(2, 2, 1, 2, ["poison"]), watch: ["innocent"] },
  { rules: ["witness-seen"], config: shape(2, 1, 2, 1, ["outage"]), watch: ["outage"] },
  { rules: ["witness-gap"], config: shape(2, 1, 2, 1, ["outage"]), watch: ["outage"] },
  {
    rules: ["never-oneself", "witness-gap"],
    config: shape(1, 1, 1, 1, ["freeze", "stray", "loss"]),
    watch: ["outage"],
  },
  { rules: ["never-oneself"], config: shape(2, 1, 1, 1, ["freeze"]), survives: true },
  { rules: ["fence-holder", "expired-flag"], config: shape(2, 1, 1, 1, ["loss", "stray"]), watch: ["result"] },
  { rules: ["fence-attempt", "seq"], config: shape(1, 1, 1, 1, ["loss", "fail"]), watch: ["result"] },
  {
    rules: ["fence-attempt", "expired-flag"],
    config: shape(2, 1, 1, 1, ["loss", "fail"]),
    watch: ["result"],
    survives: true,
  },
  { rules: ["fence-holder"], config: shape(2, 1, 1, 1, ["loss", "stray"]), survives: true },
  {
    rules: ["fence-attempt"],
    config: shape(1, 1, 1, 1, ["crash", "loss", "two-strays", "fail", "end", "stop"]),
    survives: true,
  },
];
