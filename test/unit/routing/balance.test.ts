import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Candidate, Choice, type Lot, SLOW_SHARE } from "../../../src/routing/balance.ts";
import { randomFrom } from "../../support/random.ts";

interface Node extends Candidate {
  readonly load: { outstanding: number; sessions: number };
}

function node(name: string, about: Partial<Omit<Candidate, "node" | "load">> = {}, outstanding = 0): Node {
  return { node: name, weight: 1, rank: 0, isSlow: false, load: { outstanding, sessions: 0 }, ...about };
}

const SESSIONS = 10_000;

/** The lots that so many sessions take one after another when the nodes are these. */
function lots(nodes: readonly Node[], count = SESSIONS): Lot[] {
  const choice = new Choice(nodes);
  const taken = Array.from({ length: count }, (_, id) => {
    const lot = choice.lotFor(id + 1);
    choice.homeOf(id + 1, lot)!.load.sessions++;
    return lot;
  });
  for (const one of nodes) one.load.sessions = 0;
  return taken;
}

/** Where every session is; sessions that have taken a lot before keep it. */
function homes(nodes: readonly Node[], taken = lots(nodes)): (Node | null)[] {
  const choice = new Choice(nodes);
  return taken.map((lot, id) => choice.homeOf(id + 1, lot));
}

/** The share of the sessions, or of the reads, that each node has. */
function shares(nodes: readonly Node[], chosen: readonly (Node | null)[]): number[] {
  return nodes.map((one) => chosen.filter((other) => other === one).length / chosen.length);
}

/** How many sessions are elsewhere than before, and of these how many are on `node` now. */
function moves(before: readonly (Node | null)[], after: readonly (Node | null)[], to: Node) {
  const moved = after.filter((one, id) => one !== before[id]);
  return { all: moved.length, there: moved.filter((one) => one === to).length };
}

function expectShares(found: readonly number[], weights: readonly number[], within: number): void {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  for (const [i, weight] of weights.entries()) {
    expect(Math.abs(found[i]! - weight / total)).toBeLessThan(within);
  }
}

describe("a session's home", () => {
  it("is nowhere when no node may be read", () => {
    expect(new Choice<Node>([]).homeOf(1, 0)).toBeNull();
  });

  it.each([
    ["alike", [1, 1, 1]],
    ["two", [1, 1]],
    ["by weight", [1, 3]],
    ["by weight among many", [1, 2, 3, 4, 10]],
    ["fractions of a large one", [1, 1000]],
  ])("is shared out by weight: %s", (_, weights) => {
    const nodes = weights.map((weight, i) => node(`10.0.0.${i}:6379`, { weight }));
    expectShares(shares(nodes, homes(nodes)), weights, 0.015);
  });

  it("is the same whatever the order of the nodes, and in every proxy", () => {
    const nodes = ["a:1", "b:1", "c:1", "d:1"].map((name) => node(name));
    expect(homes(nodes.toReversed())).toEqual(homes(nodes));
  });

  it("moves to a node that joins for its share of the sessions, and for no other session", () => {
    const old = [node("a:1"), node("b:1"), node("c:1")];
    const joining = node("d:1");
    const before = homes(old);
    const after = homes([...old, joining], lots(old));
    const { all, there } = moves(before, after, joining);
    expect(there).toBe(all);
    expect(there / SESSIONS).toBeGreaterThan(0.23);
    expect(there / SESSIONS).toBeLessThan(0.27);
  });

  it("moves to the one that joins for its share by weight, whatever the others have to do", () => {
    const old = [node("a:1", {}, 40), node("b:1", {}, 50), node("c:1", {}, 45)];
    const taken = lots(old);
    const joining = node("d:1", { weight: 3 });
    const { all, there } = moves(homes(old, taken), homes([...old, joining], taken), joining);
    expect(there).toBe(all);
    expect(Math.abs(there / SESSIONS - 0.5)).toBeLessThan(0.02);
  });

  it("moves for the sessions of a node that leaves, and for no other session", () => {
    const [a, b, c] = [node("a:1"), node("b:1"), node("c:1")] as const;
    const before = homes([a, b, c]);
    const after = homes([a, b], lots([a, b, c]));
    expect(after.every((one, id) => one === before[id] || before[id] === c)).toBe(true);
    expectShares(shares([a, b], after), [1, 1], 0.02);
  });

  it("leaves a slow node but for a few, and nothing moves between the others", () => {
    const [a, b, c] = [node("a:1"), node("b:1"), node("c:1")] as const;
    const before = homes([a, b, c]);
    const late = { ...c, isSlow: true };
    const after = homes([a, b, late], lots([a, b, c]));
    expect(after.every((one, id) => one === before[id] || before[id] === c)).toBe(true);
    expectShares(shares([a, b, late], after), [1, 1, SLOW_SHARE], 0.01);
  });

  it("is where less is to do for its weight, as far as its lots allow", () => {
    const [idle, busy] = [node("a:1"), node("b:1", {}, 1_000_000)] as const;
    // One of sixteen has nothing but the busy one.
    expectShares(shares([idle, busy], homes([idle, busy])), [15, 1], 0.01);
    const strong = node("c:1", { weight: 1000 }, 100);
    expect(shares([strong], homes([node("a:1"), strong]))[0]).toBeGreaterThan(0.98);
  });

  it("is shared out well among few sessions, too", () => {
    const rest = [2, 3].map((count) => Array.from({ length: count }, (_, i) => node(`10.0.0.${i}:6379`)));
    for (const nodes of rest) {
      for (const count of [6, 12, 30, 60]) {
        const choice = new Choice(nodes);
        const found = lots(nodes, count).map((lot, id) => choice.homeOf(id + 1, lot));
        expectShares(
          shares(nodes, found),
          nodes.map(() => 1),
          1.1 / count + 0.02,
        );
      }
    }
  });

  it("does not follow the load once it is chosen", () => {
    const [a, b] = [node("a:1"), node("b:1")] as const;
    const taken = lots([a, b]);
    const before = homes([a, b], taken);
    b.load.outstanding = 1000;
    expect(homes([a, b], taken)).toEqual(before);
  });

  it("is in the best rank that there is, however busy or slow", () => {
    const near = node("a:1", { rank: 0, isSlow: true }, 1000);
    const far = [node("b:1", { rank: 1 }), node("c:1", { rank: 2 })];
    expect(shares([near], homes([near, ...far]))).toEqual([1]);
    expect(shares([far[0]!], homes(far))).toEqual([1]);
  });

  it("is on a node of weight 0 only where there is no other, not even of a worse rank", () => {
    const zero = [node("a:1", { weight: 0 }), node("b:1", { weight: 0 })];
    const far = node("c:1", { rank: 1 });
    expect(shares([far], homes([...zero, far]))).toEqual([1]);
    expectShares(shares(zero, homes(zero)), [1, 1], 0.02);
  });
});

describe("one read", () => {
  /** Reads until `count` are answered, `clients` at a time, each answered after a while by chance. */
  function read(nodes: readonly Node[], count: number, clients: number, seed = 1): number[] {
    const choice = new Choice(nodes);
    const random = randomFrom(seed);
    const under: Node[] = [];
    const chosen: Node[] = [];
    while (chosen.length < count) {
      if (under.length >= clients)
        under.splice(Math.floor(random() * under.length), 1)[0]!.load.outstanding--;
      const one = choice.pick(random())!;
      one.load.outstanding++;
      under.push(one);
      chosen.push(one);
    }
    for (const one of under) one.load.outstanding--;
    return shares(nodes, chosen);
  }

  it("has nobody to go to when no node may be read, and one where there is one", () => {
    expect(new Choice<Node>([]).pick(0.5)).toBeNull();
    const only = node("a:1");
    expect(new Choice([only]).pick(0)).toBe(only);
  });

  it.each([1, 8, 64])("goes to the nodes by weight, %i clients", (clients) => {
    for (const weights of [
      [1, 1],
      [1, 1, 1],
      [1, 3],
      [1, 2, 3],
    ]) {
      const nodes = weights.map((weight, i) => node(`10.0.0.${i}:1`, { weight }));
      expectShares(read(nodes, 20_000, clients), weights, 0.05);
    }
  });

  it("avoids the node with more to do", () => {
    const nodes = [node("a:1", {}, 50), node("b:1"), node("c:1")];
    expect(shares(nodes, reads(nodes))[0]).toBe(0);
  });

  it("goes to a slow node now and then", () => {
    const nodes = [node("a:1", { isSlow: true }), node("b:1")];
    expectShares(shares(nodes, reads(nodes)), [SLOW_SHARE, 1], 0.02);
  });

  it("goes to the best rank only", () => {
    const nodes = [node("a:1"), node("b:1", { rank: 1 })];
    expect(shares(nodes, reads(nodes))).toEqual([1, 0]);
  });

  /** Reads of which nothing is on the way when the next is made. */
  function reads(nodes: readonly Node[]): (Node | null)[] {
    const choice = new Choice(nodes);
    const random = randomFrom(5);
    return Array.from({ length: 20_000 }, () => choice.pick(random()));
  }
});

describe("whatever the nodes are", () => {
  const candidate: fc.Arbitrary<Candidate> = fc.record({
    node: fc.constantFrom("a:1", "b:1", "c:1", "d:1", "e:1"),
    weight: fc.constantFrom(0, 1, 2, 1000),
    rank: fc.constantFrom(0, 1),
    isSlow: fc.boolean(),
    load: fc.record({ outstanding: fc.nat(100), sessions: fc.nat(100) }),
  });
  const nodes = fc.uniqueArray(candidate, { selector: (one) => one.node });

  it("a read and a session go to one that counts, if there is one", () => {
    fc.assert(
      fc.property(nodes, fc.nat(), fc.double({ min: 0, max: 1, maxExcluded: true }), (all, id, random) => {
        const choice = new Choice(all);
        const found = [choice.homeOf(id, choice.lotFor(id)), choice.pick(random)];
        if (all.length === 0) return found.every((one) => one === null);
        const wanted = all.some((one) => one.weight > 0) ? all.filter((one) => one.weight > 0) : all;
        const rank = Math.min(...wanted.map((one) => one.rank));
        return found.every((one) => one !== null && wanted.includes(one) && one.rank === rank);
      }),
    );
  });

  it("a session stays where it is where another leaves, joins, or gets more or less weight", () => {
    fc.assert(
      fc.property(nodes, fc.nat(), fc.constantFrom<Lot>(0, 1, 2, 3), fc.nat(4), (all, id, draw, which) => {
        const counted = new Choice(all).nodes;
        const changed = counted[which];
        const home = new Choice(counted).homeOf(id, draw);
        if (changed === undefined || home === null || home === changed) return true;
        const others = counted.filter((one) => one !== changed);
        const lighter = { ...changed, isSlow: true };
        return (
          new Choice(others).homeOf(id, draw) === home &&
          new Choice([...others, lighter]).homeOf(id, draw) === home
        );
      }),
    );
  });
});
