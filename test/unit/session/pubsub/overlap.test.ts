import { expect, it } from "vitest";
import { Overlap, SPAN_MS } from "../../../../src/session/pubsub/overlap.ts";

function overlapOf(...texts: readonly string[]): Overlap {
  const overlap = new Overlap();
  for (const text of texts) overlap.add(Buffer.from(text), 0);
  return overlap;
}

const has = (overlap: Overlap, text: string, nowMs = 1): boolean => overlap.has(Buffer.from(text), nowMs);

it("24: what came from the old feed is known when it comes from the new one, once", () => {
  const overlap = overlapOf("a", "b", "c");
  expect(["b", "c", "c", "d"].map((text) => has(overlap, text))).toEqual([true, true, false, false]);
});

it("24: what came before a known message is forgotten: it is new when it comes again", () => {
  const overlap = overlapOf("tick", "b", "tick");
  expect(["b", "tick", "tick"].map((text) => has(overlap, text))).toEqual([true, true, false]);
});

it("24: what came too long ago to be the same message is new", () => {
  expect(has(overlapOf("tick"), "tick", SPAN_MS)).toBe(true);
  expect(has(overlapOf("tick"), "tick", SPAN_MS + 1)).toBe(false);
  expect([overlapOf("tick").isOver(SPAN_MS), overlapOf("tick").isOver(SPAN_MS + 1)]).toEqual([false, true]);
  expect(overlapOf().isOver(0)).toBe(true);
});

it("24: the oldest are forgotten beyond a thousand messages, and beyond a megabyte", () => {
  const many = new Overlap();
  for (let i = 0; i <= 1_000; i++) many.add(Buffer.from(String(i)), 0);
  expect([has(many, "0"), has(many, "1")]).toEqual([false, true]);
  const large = new Overlap();
  for (const text of ["a", "b"]) large.add(Buffer.alloc(600 * 1024, text), 0);
  expect(large.has(Buffer.alloc(600 * 1024, "a"), 0)).toBe(false);
  expect(large.has(Buffer.alloc(600 * 1024, "b"), 0)).toBe(true);
});
