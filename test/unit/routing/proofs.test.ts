import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Proofs } from "../../../src/routing/proofs.ts";

let nowMs = 0;
let proofs: Proofs;
let woken = 0;
const waits = { proofCame: () => void woken++ };

beforeEach(() => {
  vi.useFakeTimers();
  nowMs = 1_000;
  woken = 0;
  proofs = new Proofs(150, () => nowMs);
});

afterEach(() => {
  proofs.destroy();
  vi.useRealTimers();
});

describe("7: proof that is on its way", () => {
  it.each<[string, number[], number, number, number | null]>([
    // says, asked at, proven up to, how long that took, expected; it is 1,000 ms
    ["of a replica that has proven what was asked for before", [980, 999], 981, 2, 999],
    ["of one that has proven what is asked for", [980, 999], 999, 2, null],
    ["of one that has not kept up", [980, 999], 960, 2, null],
    ["of one that takes longer than it did", [980, 990], 981, 2, null],
    ["of one whose answers take long", [940, 960, 980, 999], 930, 40, 999],
    ["of one whose answers take long, and that has not kept up", [900, 940, 999], 899, 40, null],
    ["of one whose answers take too long", [840, 999], 839, 90, null],
    ["of one that was never asked before", [999], Number.NEGATIVE_INFINITY, 0, 999],
  ])("%s", (_, asked, provenAtMs, proofTookMs, expected) => {
    for (const atMs of asked) proofs.asked(atMs);
    expect(proofs.soon({ provenAtMs, proofTookMs })).toBe(expected);
  });

  it.each<[string, number, number | null]>([
    ["what was asked for last", 1_000.5, 50],
    ["what was asked for before", 980.1, 70],
    ["what nobody had asked for", 990, null],
    ["what came before anybody asked", 900, null],
  ])("took as long as since the question for %s", (_, provenAtMs, expected) => {
    proofs.asked(980);
    proofs.asked(1_000);
    nowMs = 1_050;
    expect(proofs.took(provenAtMs)).toBe(expected);
  });

  it("is not expected before anybody has asked", () => {
    expect(proofs.soon({ provenAtMs: 999, proofTookMs: 1 })).toBeNull();
  });

  it("is not waited for without end: who waits looks again every few milliseconds", () => {
    proofs.asked(1_000);
    proofs.wait(waits);
    vi.advanceTimersByTime(4);
    expect(woken).toBe(0);
    vi.advanceTimersByTime(1);
    expect(woken).toBe(1);
    nowMs = 1_100;
    expect(proofs.soon({ provenAtMs: 990, proofTookMs: 1 })).toBeNull();
  });

  it("wakes each who waits once", () => {
    proofs.wait(waits);
    proofs.wait(waits);
    proofs.came();
    proofs.came();
    vi.advanceTimersByTime(100);
    expect(woken).toBe(1);
  });
});
