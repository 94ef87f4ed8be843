import { describe, expect, it } from "vitest";
import { Attempts, pauseAfter } from "../../../src/session/attempts.ts";

describe("the pause before a login is checked", () => {
  it.each([
    [1, 0],
    [2, 0],
    [3, 100],
    [4, 200],
    [5, 400],
    [8, 3_200],
    [9, 5_000],
    [10_000, 5_000],
  ])("after %i failures in a row is %i ms", (failures, ms) => {
    expect(pauseAfter(failures, 5_000)).toBe(ms);
  });

  it("is none where the bound is 0", () => {
    expect(pauseAfter(100, 0)).toBe(0);
  });

  it("counts from the failure, and is over when its time is", () => {
    const attempts = new Attempts();
    for (let i = 0; i < 3; i++) attempts.fail(1_000, 5_000);
    expect([1_000, 1_060, 1_100, 9_000].map((nowMs) => attempts.pauseMs(nowMs))).toEqual([100, 40, 0, 0]);
    attempts.fail(1_100, 5_000);
    expect(attempts.pauseMs(1_100)).toBe(200);
  });
});
