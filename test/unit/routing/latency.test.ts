import { describe, expect, it } from "vitest";
import { SlowNodes } from "../../../src/routing/latency.ts";

/** What is slow after each look, in the order of the looks; a, b, c … with the lateness of each. */
function looks(slow: SlowNodes, ...all: readonly (readonly (number | null)[])[]): string[] {
  return all.map((lateness) => {
    const nodes = lateness.map((lateMs, i) => ({ node: "abcd"[i]!, lateMs }));
    const before = nodes.filter(({ node }) => slow.has(node)).length;
    const changed = slow.look(nodes);
    const now = nodes.filter(({ node }) => slow.has(node));
    if (now.length !== before) expect(changed).toBe(true);
    return now.map(({ node }) => node).join("");
  });
}

describe("a node", () => {
  it.each<[string, (number | null)[], string]>([
    ["answers late beside the others", [100, 1, 1], "a"],
    ["is the only one", [100], ""],
    ["is one of two", [1, 100], "b"],
    ["is late, but less than 4 times as late as the other", [100, 30], ""],
    ["is many times as late, but not later than is allowed", [19, 0.1, 0.1], ""],
    ["is late as all are", [100, 110, 120], ""],
    ["is late with one other: the lower median is what to expect", [100, 100, 1], "ab"],
    ["is late beside others of which nothing is known", [100, null, null], ""],
    ["is late beside one of which something is known", [100, null, 1], "a"],
    ["is not known itself", [null, 1, 1], ""],
  ])("that %s", (_, lateness, expected) => {
    expect(looks(new SlowNodes(20), lateness, lateness).at(-1)).toBe(expected);
  });

  it("is not slow for one look that finds it late", () => {
    expect(looks(new SlowNodes(20), [100, 1], [1, 1], [100, 1], [1, 1])).toEqual(["", "", "", ""]);
    expect(looks(new SlowNodes(20), [100, 1], [100, 1])).toEqual(["", "a"]);
  });

  it("stays slow until it is half as late as what makes it slow, and no longer", () => {
    const slow = new SlowNodes(20);
    expect(looks(slow, [100, 1], [100, 1], [20, 1], [11, 1], [10, 1], [20, 1])).toEqual([
      "",
      "a",
      "a",
      "a",
      "",
      "",
    ]);
  });

  it("is well again when nothing is known of it any more, and when it may not be read any more", () => {
    const slow = new SlowNodes(20);
    expect(looks(slow, [100, 1], [100, 1], [null, 1])).toEqual(["", "a", ""]);
    looks(slow, [1, 100], [1, 100]);
    expect(slow.has("b")).toBe(true);
    expect(slow.look([{ node: "a", lateMs: 1 }])).toBe(true);
    expect(slow.has("b")).toBe(false);
  });

  it("is never slow where that is off", () => {
    expect(looks(new SlowNodes(0), [100, 1], [100, 1], [100, 1])).toEqual(["", "", ""]);
  });

  it("that stays as it was is no change", () => {
    const slow = new SlowNodes(20);
    const nodes = [
      { node: "a", lateMs: 100 },
      { node: "b", lateMs: 1 },
    ];
    expect([slow.look(nodes), slow.look(nodes), slow.look(nodes)]).toEqual([false, true, false]);
  });
});
