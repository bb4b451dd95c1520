import { describe, expect, test } from "vitest";
import { CONFIGURATIONS, REMOVALS } from "./model/configurations.ts";
import { protocol, RULES } from "./model/protocol.ts";
import { search } from "./model/search.ts";

describe("the protocol as a finite state machine", () => {
  test.each(CONFIGURATIONS.filter(({ isQuick }) => isQuick))("$name: no reachable state breaks an invariant", ({
    config,
  }) => {
    const { broken, complete, trace } = search(protocol(config));
    expect({ broken, complete, trace }).toEqual({ broken: undefined, complete: true, trace: [] });
  });

  test.each(REMOVALS.filter(({ survives }) => survives !== true))("without $rules an invariant breaks", ({
    rules,
    config,
    watch,
  }) => {
    const { broken, trace } = search(protocol({ ...config, without: rules, ...(watch !== undefined && { watch }) }));
    expect(watch).toContain(broken);
    expect(trace.length).toBeGreaterThan(2);
  });

  test("each rule is taken away, alone or with what stands in for it", () => {
    const alone = REMOVALS.filter(({ survives }) => survives !== true).flatMap(({ rules }) => rules);
    expect(RULES.filter((rule) => !alone.includes(rule))).toEqual([]);
  });
});
