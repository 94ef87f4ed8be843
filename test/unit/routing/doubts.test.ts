import { describe, expect, it } from "vitest";
import { Doubts } from "../../../src/routing/doubts.ts";

/** Switches as [kept until, at]. */
function following(...switches: readonly (readonly [number, number])[]): Doubts {
  const doubts = new Doubts();
  for (const [keptUntilMs, atMs] of switches) doubts.add(keptUntilMs, atMs);
  return doubts;
}

describe("whether a write may be lost (33)", () => {
  it.each([
    ["no switch", following(), 5, false],
    ["answered before the offset that survives was reported", following([100, 200]), 99, false],
    ["answered at that very moment", following([100, 200]), 100, true],
    ["answered between that and the switch", following([100, 200]), 150, true],
    ["answered after the switch", following([100, 200]), 201, false],
    ["nothing is proven of the new history", following([Number.NEGATIVE_INFINITY, 200]), 1, true],
    ["written since then", following([Number.NEGATIVE_INFINITY, 200]), 201, false],
    ["the switch before the last one lost it", following([100, 200], [290, 300]), 150, true],
    ["between two switches", following([100, 200], [290, 300]), 250, false],
  ] as const)("%s", (_what, doubts, answeredMs, lost) => {
    expect(doubts.cover(answeredMs)).toBe(lost);
  });

  it("of many switches the oldest are told apart no longer, but none is forgotten", () => {
    const doubts = following(...Array.from({ length: 1_000 }, (_, i) => [i * 10, i * 10 + 5] as const));
    for (let i = 0; i < 1_000; i++) expect(doubts.cover(i * 10 + 1)).toBe(true);
    expect(doubts.cover(9_998)).toBe(false);
    expect(doubts.cover(9_987)).toBe(false);
  });
});
