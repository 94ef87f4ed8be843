import { describe, expect, it } from "vitest";
import { NodeMeter } from "../../../src/upstream/meter.ts";

function meterOf(...samples: readonly number[]): NodeMeter {
  const meter = new NodeMeter();
  for (const sample of samples) meter.add(sample);
  return meter;
}

describe("how long a node's answers take", () => {
  it("is not known from fewer samples than are asked for", () => {
    expect(new NodeMeter().p99Ms(0)).toBeNull();
    expect(meterOf(1, 1).p99Ms(3)).toBeNull();
  });

  it.each([0.05, 0.1, 0.3, 1, 7, 20, 250, 3_000, 40_000])("%d ms is found again within 19 %", (ms) => {
    const found = meterOf(ms, ms, ms).p99Ms(3)!;
    expect(found / ms).toBeGreaterThanOrEqual(0.999);
    expect(found / ms).toBeLessThan(1.19);
  });

  it("lies within what can be told: no less than 0.05 ms, no more than a minute", () => {
    expect(meterOf(0, 0).p99Ms(1)).toBeCloseTo(0.05);
    expect(meterOf(1e9, 1e9).p99Ms(1)).toBeLessThan(60_000);
  });

  it("is told by 99 of 100, and the longest of a few does not count", () => {
    expect(meterOf(...Array.from({ length: 19 }, () => 1), 500).p99Ms(1)).toBeLessThan(1.2);
    expect(meterOf(...Array.from({ length: 18 }, () => 1), 500, 500).p99Ms(1)).toBeGreaterThan(400);
    const thousand = Array.from({ length: 1000 }, (_, i) => (i < 980 ? 1 : 500));
    expect(meterOf(...thousand).p99Ms(1)).toBeGreaterThan(400);
    expect(meterOf(...thousand.with(985, 1).fill(1, 980, 992)).p99Ms(1)).toBeLessThan(1.2);
  });

  it("forgets what is older than two spans of time", () => {
    const meter = meterOf(100, 100);
    meter.turn();
    meter.add(1);
    expect(meter.p99Ms(3)).toBeGreaterThan(90);
    meter.turn();
    expect(meter.p99Ms(1)).toBeLessThan(1.2);
    expect(meter.p99Ms(2)).toBeNull();
    meter.turn();
    expect(meter.p99Ms(1)).toBeNull();
  });
});
