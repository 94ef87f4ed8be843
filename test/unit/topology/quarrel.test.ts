import { describe, expect, it } from "vitest";
import { Quarrel } from "../../../src/topology/quarrel.ts";

/** What so many contradictions are worth each, ms; each comes `gapMs` after the end of the one before. */
function worth(quarrel: Quarrel, times: number, gapMs: number): number[] {
  const found: number[] = [];
  for (let nowMs = 0; found.length < times; nowMs += (found.at(-1) ?? 0) + gapMs) {
    found.push(quarrel.contradict(false, nowMs));
  }
  return found;
}

describe("a quarrel between a node's traffic and its probes", () => {
  it("is none at first, then suspects the node longer and longer, up to a bound", () => {
    expect(worth(new Quarrel(), 9, 999)).toEqual([0, 0, 0, 40, 80, 160, 320, 500, 500]);
  });

  it("is forgotten when the probes were right for a while", () => {
    expect(worth(new Quarrel(), 9, 1_000)).toEqual(new Array(9).fill(0));
  });

  it("does not grow while the node is suspected anyway", () => {
    const quarrel = new Quarrel();
    const [last] = worth(quarrel, 4, 0).slice(-1);
    expect([quarrel.contradict(true, 10), quarrel.contradict(true, 20)]).toEqual([last, last]);
    expect(quarrel.contradict(true, 5_000)).toBe(0);
  });
});
