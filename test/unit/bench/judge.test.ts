import { describe, expect, it } from "vitest";
import { type Check, errorsText, type Judged, judge } from "../../../bench/failover/judge.ts";
import type { Figures } from "../../../bench/failover/measure.ts";

const GOOD: Figures = {
  disconnects: 0,
  errors: {},
  uncertain: 0,
  writeGapMs: 1_000,
  systemWriteGapMs: 900,
  boundGapMs: 20,
  readGapMs: 12,
  lost: 0,
  lostAfterMs: 0,
  stale: 0,
  firstWriteMs: 5,
  unexplained: 0,
  stallsMs: [],
};
const PLANNED: Judged = { bounds: { errors: "none", gapMs: 150, lost: "none" }, gapFrom: "promotion" };
const LIVE: Judged = { bounds: { ...PLANNED.bounds, lost: "until-seen" }, gapFrom: "promotion" };
const CRASH: Judged = { bounds: { errors: "uncertain", gapMs: 450, lost: "by-redis" }, gapFrom: "fault" };
const STALL: Judged = { ...PLANNED, bounds: { ...PLANNED.bounds, stallMs: 50 } };

/** What was missed in runs of which one is as told and one is good. */
function missed(scenario: Judged, figures: Partial<Figures>): Check["what"][] {
  const checks = judge(scenario, [GOOD, { ...GOOD, ...figures }]);
  return checks.filter(({ isMet }) => !isMet).map(({ what }) => what);
}

describe("a scenario", () => {
  it.each<[string, Judged, Partial<Figures>, Check["what"][]]>([
    ["a long gap before the promotion", PLANNED, { writeGapMs: 9_999 }, []],
    ["a gap of the bound", PLANNED, { boundGapMs: 150 }, []],
    ["a gap beyond the bound", PLANNED, { boundGapMs: 150.4 }, ["write gap"]],
    ["one disconnect", CRASH, { disconnects: 1 }, ["disconnects"]],
    ["UNCERTAIN in a planned switch", PLANNED, { errors: { UNCERTAIN: 1 } }, ["errors"]],
    ["READONLY in a planned switch", PLANNED, { errors: { READONLY: 1 } }, ["errors"]],
    ["UNCERTAIN for all that was in flight at a crash", CRASH, { errors: { UNCERTAIN: 40 } }, []],
    ["more UNCERTAIN than was in flight at a crash", CRASH, { errors: { UNCERTAIN: 41 } }, ["errors"]],
    ["another error at a crash", CRASH, { errors: { UNCERTAIN: 1, MASTERDOWN: 1 } }, ["errors"]],
    ["a lost write in a planned switch", PLANNED, { lost: 1 }, ["lost"]],
    ["lost writes at a crash", CRASH, { lost: 100, lostAfterMs: 5_000 }, []],
    ["writes lost before the promotion could be seen", LIVE, { lost: 30, lostAfterMs: 110 }, []],
    ["a write lost when it could be seen", LIVE, { lost: 1, lostAfterMs: 111 }, ["lost"]],
    ["a read that waits", CRASH, { readGapMs: 51 }, ["read gap"]],
    ["a repeated write", CRASH, { unexplained: 1 }, ["repeated"]],
    ["stalls with their median below the bound", STALL, { stallsMs: [10, 49, 300] }, []],
    ["stalls with their median at the bound", STALL, { stallsMs: [10, 50, 60] }, ["stall"]],
    ["switches of which no stall is known", STALL, {}, ["stall"]],
  ])("with %s", (_, scenario, figures, what) => {
    expect(missed(scenario, figures)).toEqual(what);
  });

  it("says the worst of all runs beside each bound", () => {
    const runs = [GOOD, { ...GOOD, boundGapMs: 77.7, errors: { UNCERTAIN: 3 } }];
    const texts = judge(CRASH, runs).map(({ what, bound, measured }) => `${what}: ${measured} (${bound})`);
    expect(texts).toEqual([
      "disconnects: 0 (0)",
      "errors: 3 UNCERTAIN (≤ 40 UNCERTAIN)",
      "write gap: 78 ms (≤ 450 ms)",
      "lost: 0 (reported)",
      "read gap: 12 ms (≤ 50 ms)",
      "repeated: 0 (0)",
    ]);
  });
});

describe("errors as a text", () => {
  it.each([
    [{}, "none"],
    [{ READONLY: 3, UNCERTAIN: 1 }, "3 READONLY, 1 UNCERTAIN"],
  ])("%j", (errors, text) => {
    expect(errorsText(errors)).toBe(text);
  });
});
