import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Recent } from "../../../src/session/recent.ts";
import { EVERYTHING, NOTHING, type Slots } from "../../../src/upstream/request.ts";

/** As many single entries as are remembered. */
const SIZE = 32;

/** Each entry made at its place in the list, beginning with 1 ms. */
function recentOf(...entries: readonly Slots[]): Recent {
  const recent = new Recent();
  for (const [i, slots] of entries.entries()) recent.add(slots, i + 1);
  return recent;
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => 100 + i);
}

describe("7: what a session has lately touched", () => {
  interface Row {
    readonly says: string;
    readonly entries: readonly Slots[];
    readonly read: Slots;
    readonly provenAtMs: number;
    readonly isTouched: boolean;
  }

  const ROWS: readonly Row[] = [
    { says: "nothing", entries: [], read: 5, provenAtMs: Number.NEGATIVE_INFINITY, isTouched: false },
    { says: "nothing, all read", entries: [], read: EVERYTHING, provenAtMs: -1, isTouched: false },
    { says: "its key", entries: [5], read: 5, provenAtMs: 0.9, isTouched: true },
    { says: "its key, proven", entries: [5], read: 5, provenAtMs: 1, isTouched: false },
    { says: "another key", entries: [5], read: 6, provenAtMs: 0, isTouched: false },
    { says: "its key, and another since", entries: [5, 6, 7], read: 5, provenAtMs: 0, isTouched: true },
    { says: "its key, proven, another not", entries: [5, 6], read: 5, provenAtMs: 1, isTouched: false },
    { says: "its key again", entries: [5, 6, 5], read: 5, provenAtMs: 2, isTouched: true },
    { says: "slot 0, never touched", entries: [5], read: 0, provenAtMs: 0, isTouched: false },
    { says: "one of many written", entries: [[1, 5]], read: 1, provenAtMs: 0, isTouched: true },
    { says: "none of many written", entries: [[1, 5]], read: 2, provenAtMs: 0, isTouched: false },
    { says: "one of many read", entries: [5], read: [7, 5], provenAtMs: 0, isTouched: true },
    { says: "none of many read", entries: [5], read: [7, 6], provenAtMs: 0, isTouched: false },
    { says: "no key read", entries: [5, EVERYTHING], read: NOTHING, provenAtMs: 0, isTouched: false },
    { says: "no key written", entries: [NOTHING], read: EVERYTHING, provenAtMs: -1, isTouched: false },
    { says: "any key written", entries: [EVERYTHING], read: 5, provenAtMs: 0, isTouched: true },
    { says: "any key written, proven", entries: [EVERYTHING], read: 5, provenAtMs: 1, isTouched: false },
    { says: "any key, then another", entries: [EVERYTHING, 6], read: 5, provenAtMs: 1, isTouched: false },
    { says: "any key before another", entries: [EVERYTHING, 6], read: 5, provenAtMs: 0, isTouched: true },
    { says: "all keys read", entries: [5], read: EVERYTHING, provenAtMs: 0, isTouched: true },
    { says: "all keys read, proven", entries: [5], read: EVERYTHING, provenAtMs: 1, isTouched: false },
  ];

  it.for(ROWS)("$says: $isTouched", ({ entries, read, provenAtMs, isTouched }) => {
    expect(recentOf(...entries).touchedSince(provenAtMs, read)).toBe(isTouched);
  });

  it("is known of the newest 32 slots, and of the rest up to when there was one", () => {
    const full = recentOf(...upTo(SIZE));
    expect(full.forgottenMs).toBe(Number.NEGATIVE_INFINITY);
    expect(full.touchedSince(0, 100)).toBe(true);
    const over = recentOf(...upTo(SIZE + 2));
    expect(over.forgottenMs).toBe(2);
    expect(over.touchedSince(0, 100)).toBe(false);
    expect(over.touchedSince(0, 101)).toBe(false);
    expect(over.touchedSince(0, 102)).toBe(true);
    expect(over.newestMs).toBe(SIZE + 2);
  });

  it("is as well forgotten within one request that touches more than that", () => {
    const recent = recentOf(7, upTo(SIZE + 1));
    expect(recent.forgottenMs).toBe(2);
    expect(recent.touchedSince(0, 7)).toBe(false);
    expect(recent.touchedSince(0, 100)).toBe(false);
    expect(recent.touchedSince(0, 101)).toBe(true);
  });

  it("that was any key is never forgotten for others that came after it", () => {
    const recent = recentOf(EVERYTHING, ...upTo(3 * SIZE));
    expect(recent.touchedSince(0, 9_999)).toBe(true);
    expect(recent.touchedSince(1, 9_999)).toBe(false);
  });
});

const slot = fc.nat(6);
const slots: fc.Arbitrary<Slots> = fc.oneof(
  { weight: 8, arbitrary: slot },
  { weight: 2, arbitrary: fc.array(slot, { minLength: 1, maxLength: 40 }) },
  { weight: 1, arbitrary: fc.constantFrom(EVERYTHING, NOTHING) },
);

interface Entry {
  readonly slot: number;
  readonly atMs: number;
}

function touches(read: Slots, one: number): boolean {
  if (typeof read !== "number") return read.includes(one);
  return read === EVERYTHING || read === one;
}

it("7: what is remembered is what a plain list says, and what is forgotten is at most as new as it says", () => {
  const added = fc.array(fc.record({ slots, pauseMs: fc.nat(2) }), { maxLength: 60 });
  fc.assert(
    fc.property(added, slots, fc.integer({ min: -1, max: 130 }), (entries, read, provenAtMs) => {
      const recent = new Recent();
      const list: Entry[] = [];
      let [everythingMs, newestMs, nowMs] = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, 0];
      for (const { slots: these, pauseMs } of entries) {
        nowMs += pauseMs;
        recent.add(these, nowMs);
        if (these === NOTHING) continue;
        newestMs = nowMs;
        if (these === EVERYTHING) everythingMs = nowMs;
        else
          for (const one of typeof these === "number" ? [these] : these)
            list.push({ slot: one, atMs: nowMs });
      }
      const kept = list.slice(-SIZE);
      const isTouched =
        (everythingMs > provenAtMs && read !== NOTHING) ||
        kept.some((one) => one.atMs > provenAtMs && touches(read, one.slot)) ||
        // That all must be proven needs no list.
        (read === EVERYTHING && newestMs > provenAtMs);
      expect(recent.touchedSince(provenAtMs, read)).toBe(isTouched);
      expect(recent.newestMs).toBe(newestMs);
      expect(recent.forgottenMs).toBe(list.at(-SIZE - 1)?.atMs ?? Number.NEGATIVE_INFINITY);
    }),
    { numRuns: 2_000 },
  );
});
