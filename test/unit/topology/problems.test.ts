import { describe, expect, it } from "vitest";
import type { NodeId } from "../../../src/topology/epoch.ts";
import { changesOf, distinct, problemLine } from "../../../src/topology/problems.ts";

const [A, B] = ["10.0.0.1:1", "10.0.0.2:1"] as NodeId[];

function problem(node: NodeId | undefined, detail = "", kind = "node-unreachable") {
  return { kind, node: node ?? null, detail };
}

describe("problems", () => {
  it("are told when they begin and when they end, not when their words change", () => {
    const before = [problem(A, "refused"), problem(B)];
    const now = [problem(A, "timed out"), problem(A, "", "node-nonsense")];
    expect(changesOf(before, now)).toEqual([
      [now[1], "raised"],
      [before[1], "cleared"],
    ]);
    expect(changesOf(now, now)).toEqual([]);
  });

  it("of one kind and node are one, with the last words", () => {
    const none = problem(undefined);
    expect(distinct([problem(A, "first"), none, problem(A, "last")])).toEqual([problem(A, "last"), none]);
  });

  it("are a line each, with the node where there is one", () => {
    expect(problemLine(problem(A, "refused"))).toBe("node-unreachable 10.0.0.1:1: refused");
    expect(problemLine(problem(undefined, "late", "stalled"))).toBe("stalled : late");
  });
});
