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
  proofs = new Proofs(20, 150, () => nowMs);
});

afterEach(() => {
  proofs.destroy();
  vi.useRealTimers();
});

describe("7: proof that is on its way", () => {
  it.each<[string, number, number, number, number | null]>([
    // says, asked at, proven up to, how long that took, expected
    ["of a replica that has proven what was asked for before", 1_000, 981, 2, 1_000],
    ["of one that has proven what is asked for", 1_000, 1_000, 2, null],
    ["of one that has not kept up", 1_000, 960, 2, null],
    ["of one whose answers take long", 1_000, 900, 40, 1_000],
    ["of one whose answers take too long", 1_000, 849, 90, null],
    ["of one that has proven nothing", 1_000, Number.NEGATIVE_INFINITY, 0, null],
  ])("%s", (_, askedMs, provenAtMs, proofTookMs, expected) => {
    proofs.asked(askedMs);
    expect(proofs.soon({ provenAtMs, proofTookMs })).toBe(expected);
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
