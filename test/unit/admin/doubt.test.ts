import { describe, expect, it } from "vitest";
import { doubtOf } from "../../../src/admin/failovers.ts";

describe("what a switch leaves in doubt (16)", () => {
  const NONE = Number.NEGATIVE_INFINITY;

  it.each([
    [
      "nothing when nobody wrote since the last proof",
      900,
      { clients: 0, lastMs: NONE },
      { clients: 0, ms: 0 },
    ],
    ["what was answered since then", 900, { clients: 3, lastMs: 987.4 }, { clients: 3, ms: 87 }],
    ["everything when nothing is proven", NONE, { clients: 3, lastMs: 987 }, { clients: 3, ms: null }],
  ])("%s", (_, keptUntilMs, writers, expected) => {
    expect(doubtOf(keptUntilMs, writers)).toEqual(expected);
  });
});
