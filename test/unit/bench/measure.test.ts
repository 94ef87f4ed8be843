import { describe, expect, it } from "vitest";
import {
  buckets,
  figuresOf,
  longestGapMs,
  lostWrites,
  type Marks,
  type Trace,
  type Write,
} from "../../../bench/failover/measure.ts";

/** Answered at 10 ms, 20 ms, … with these values. */
const writes = (...values: number[]): Write[] =>
  values.map((value, index) => ({ atMs: 10 * (index + 1), value }));

const valuesOf = (list: readonly Write[]): number[] => list.map(({ value }) => value);

describe("the longest gap", () => {
  it.each([
    ["is between two answers", [10, 20, 70, 80], { fromMs: 0, toMs: 90 }, 50],
    ["counts from the beginning of the span", [60, 70], { fromMs: 0, toMs: 80 }, 60],
    ["counts from within a gap when the span begins there", [10, 100], { fromMs: 70, toMs: 110 }, 30],
    ["is still open at the end of the span", [10], { fromMs: 0, toMs: 100 }, 90],
    ["is the whole span without an answer", [], { fromMs: 5, toMs: 25 }, 20],
    ["does not see answers outside the span", [5, 50, 200], { fromMs: 10, toMs: 100 }, 50],
  ])("%s", (_, times, span, gap) => {
    expect(longestGapMs(times, span)).toBe(gap);
  });
});

describe("lost writes", () => {
  it.each([
    ["none when the counter ends with the last answer", writes(1, 2, 3), 3, []],
    ["none when uncertain ones have run in between", writes(1, 2, 5), 6, []],
    ["those above the final counter", writes(1, 2, 3, 4), 2, [3, 4]],
    ["those that a later answer takes back", writes(1, 2, 3, 4, 3, 4), 4, [3, 4]],
    ["those of two promotions", writes(5, 6, 6, 7, 7), 7, [6, 7]],
    ["all when the counter is gone", writes(1, 2), 0, [1, 2]],
  ])("are %s", (_, list, final, lost) => {
    expect(valuesOf(lostWrites(list, final))).toEqual(lost);
  });

  it("are the earlier ones of two with the same value", () => {
    expect(lostWrites(writes(1, 2, 2), 2)).toEqual([{ atMs: 20, value: 2 }]);
  });
});

describe("figures", () => {
  const marks: Marks = { faultAtMs: 15, promotedAtMs: 40, firstWriteAtMs: 52, switches: [], endAtMs: 100 };
  const trace: Trace = {
    writers: [
      { writes: writes(1, 2, 3, 4, 5, 4, 5, 6, 7), uncertain: 1, final: 7 },
      { writes: [...writes(1, 2), { atMs: 90, value: 5 }], uncertain: 1, final: 6 },
    ],
    readers: [
      [10, 20, 95],
      [10, 50, 90],
    ],
    disconnects: 3,
    errors: { READONLY: 2 },
    stale: 1,
  };
  const figures = figuresOf(trace, marks, "promotion");

  it("take gaps from the fault on, for the worst client and for all writers together", () => {
    expect(figures).toMatchObject({ writeGapMs: 70, systemWriteGapMs: 10, readGapMs: 75 });
  });

  it.each([
    ["promotion", 50],
    ["fault", 70],
    ["serving", 70],
  ] as const)("count the gap that is bounded from the %s", (gapFrom, gapMs) => {
    expect(figuresOf(trace, marks, gapFrom).boundGapMs).toBe(gapMs);
  });

  it("count from when the same master serves again", () => {
    expect(figuresOf(trace, { ...marks, servesAtMs: 60 }, "serving").boundGapMs).toBe(30);
  });

  it("say how many acknowledged writes were lost, and how long after the promotion the last one was", () => {
    expect(figures).toMatchObject({ lost: 2, lostAfterMs: 10 });
  });

  it("have no time of lost writes without any, or without a promotion", () => {
    const { promotedAtMs: _, ...without } = marks;
    expect(figuresOf(trace, without, "fault").lostAfterMs).toBe(0);
    const [, second] = trace.writers;
    expect(second).toBeDefined();
    expect(figuresOf({ ...trace, writers: second ? [second] : [] }, marks, "fault").lostAfterMs).toBe(0);
  });

  it("call an increment repeated that neither an answer nor an uncertain one explains", () => {
    // The second: three answers and one uncertain make four, the counter says six.
    expect(figures.unexplained).toBe(2);
  });

  it("know the first write after a promotion only, and NaN when there was none", () => {
    const { firstWriteAtMs: _, ...without } = marks;
    const { promotedAtMs: __, ...unpromoted } = marks;
    expect(figures.firstWriteMs).toBe(12);
    expect(figuresOf(trace, without, "fault").firstWriteMs).toBeNaN();
    expect(figuresOf(trace, unpromoted, "fault").firstWriteMs).toBeUndefined();
  });

  it("measure each switch's stall by itself, over all writers", () => {
    const switches = [
      { fromMs: 20, toMs: 44 },
      { fromMs: 92, toMs: 99 },
    ];
    expect(figuresOf(trace, { ...marks, switches }, "fault").stallsMs).toEqual([10, 7]);
  });
});

describe("buckets", () => {
  it("count what falls into each, the beginning included and the end not", () => {
    expect(buckets([99, 100, 109, 110, 125, 130, 140], { fromMs: 100, toMs: 130 }, 10)).toEqual([2, 1, 1]);
  });

  it("cut the last one short when the span is no multiple of it", () => {
    expect(buckets([21, 24, 26], { fromMs: 0, toMs: 25 }, 10)).toEqual([0, 0, 2]);
  });

  it("are none in an empty span", () => {
    expect(buckets([1], { fromMs: 0, toMs: 0 }, 10)).toEqual([]);
  });
});
