import { describe, expect, it } from "vitest";
import { configWith } from "../../../src/config/schema.ts";
import { Standing } from "../../../src/routing/standing.ts";
import type { NodeId } from "../../../src/topology/epoch.ts";

const A = "a:1" as NodeId;
const B = "b:1" as NodeId;
const C = "c:1" as NodeId;

function standingWith(reads: Record<string, unknown> = {}): Standing {
  return new Standing(
    configWith({ nodes: [A], listen: "127.0.0.1:0", reads: { slowAfter: "10ms", ...reads } }).reads,
  );
}

function setUp(reads: Record<string, unknown> = {}) {
  const standing = standingWith(reads);
  const upstream = {
    nodes: [A, B] as NodeId[],
    connected: new Set<NodeId>(),
    waiting: new Map<NodeId, number>(),
    looks: 0,
    readable(): readonly NodeId[] {
      this.looks++;
      return this.nodes;
    },
    sampledSinceMs(node: NodeId): number | null {
      return this.waiting.get(node) ?? null;
    },
    isConnected(node: NodeId): boolean {
      return this.connected.has(node);
    },
  };
  return {
    standing,
    upstream,
    look: (nowMs: number) => standing.look(nowMs, upstream),
    /** Eight answers, as few as tell something. */
    took: (node: NodeId, ms: number, count = 8) => {
      for (let i = 0; i < count; i++) standing.meterOf(node).add(ms);
    },
    /** The nodes that are slow. */
    slow: () => [A, B, C].filter((node) => standing.isSlow(node)),
  };
}

describe("40: what a node counts for", () => {
  it.each<[string, NodeId, number, number]>([
    ["as the settings say", A, 3, 0],
    ["not at all, by the settings", B, 0, 1],
    ["once, where they say nothing", C, 1, 1],
  ])("is %s", (_, node, weight, rank) => {
    const weights = [
      { node: A, weight: 3 },
      { node: B, weight: 0 },
    ];
    const { reads } = configWith({ nodes: [A], listen: "127.0.0.1:0" });
    expect(new Standing({ ...reads, prefer: [A], weights }).of(node)).toMatchObject({ weight, rank });
  });

  it("is measured in one place for all its connections", () => {
    const { standing } = setUp();
    expect(standing.of(A).load).toBe(standing.meterOf(A));
    expect(standing.meterOf(B)).not.toBe(standing.meterOf(A));
  });
});

describe("40: slow nodes are looked for", () => {
  it("every 100 ms at most", () => {
    const { upstream, look } = setUp();
    for (let nowMs = 0; nowMs <= 1_000; nowMs += 20) look(nowMs);
    expect(upstream.looks).toBe(11);
  });

  it("and found at the second look, and well again when their answers are", () => {
    const { took, look, slow, standing } = setUp();
    took(A, 1);
    took(B, 50);
    expect([look(100), slow()]).toEqual([false, []]);
    expect([look(199), slow()]).toEqual([false, []]);
    expect([look(200), slow()]).toEqual([true, [B]]);
    expect(look(300)).toBe(false);
    // Both spans in which it was late are over.
    standing.meterOf(B).turn();
    standing.meterOf(B).turn();
    took(B, 1);
    expect([look(400), slow()]).toEqual([true, []]);
  });

  it.each<[string, number, NodeId[]]>([
    ["eight of its answers tell", 8, [B]],
    ["seven do not", 7, []],
  ])("by enough of their answers: %s", (_, count, expected) => {
    const { took, look, slow } = setUp();
    took(A, 1);
    took(B, 50, count);
    look(100);
    look(200);
    expect(slow()).toEqual(expected);
  });

  it.each<[string, number, number, NodeId[]]>([
    ["it waits longer than the others take", 8, 50, [B]],
    ["nothing is known of it, and it waits for 100 ms", 0, 0, [B]],
    ["nothing is known of it, and it had only begun to wait at the first look", 0, 50, []],
    ["it waits for less than it takes to be slow", 8, 192, []],
  ])("by what they have not answered yet: %s", (_, count, sinceMs, expected) => {
    const { took, look, slow, upstream } = setUp();
    took(A, 1);
    took(B, 1, count);
    upstream.waiting.set(B, sinceMs);
    look(100);
    look(200);
    expect(slow()).toEqual(expected);
  });

  it("and what is older than two spans of 2 s is forgotten", () => {
    const { took, look, standing } = setUp();
    look(0);
    took(B, 50);
    look(1_999);
    look(2_100);
    expect(standing.meterOf(B).p99Ms(8)).not.toBeNull();
    look(4_099);
    expect(standing.meterOf(B).p99Ms(8)).not.toBeNull();
    look(4_200);
    expect(standing.meterOf(B).p99Ms(1)).toBeNull();
  });
});

describe("what is kept of nodes that are not read any more", () => {
  it.each<[string, (up: ReturnType<typeof setUp>) => unknown, boolean]>([
    ["nothing", () => undefined, false],
    ["all, while it may be read", ({ upstream }) => upstream.nodes.push(C), true],
    ["all, while there is a connection to it", ({ upstream }) => upstream.connected.add(C), true],
    ["all, while a session has it as its own", ({ standing }) => standing.meterOf(C).sessions++, true],
  ])("is %s", (_, change, isKept) => {
    const up = setUp();
    up.look(0);
    const meter = up.standing.meterOf(C);
    change(up);
    up.look(1_900);
    expect(up.standing.meterOf(C)).toBe(meter);
    up.look(2_000);
    expect(up.standing.meterOf(C) === meter).toBe(isKept);
  });
});
