import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  confirmed,
  firstLease,
  freshOnly,
  KEEP_MS,
  type Lease,
  type Look,
  labelOf,
  MARKER_PREFIX,
  type Marker,
  markerChannel,
  markerId,
  readMarkers,
  standingOf,
  withLook,
  withNodes,
} from "../../../../src/failover/right/lease.ts";
import type { NodeId } from "../../../../src/topology/epoch.ts";
import { at } from "../../topology/nodes.ts";

const ABC = [at("a"), at("b"), at("c")];
const SELF = markerId(2_000, "beef");
const OLDER: Marker = { id: markerId(1_000, "beef"), label: "10.0.0.1:6379" };
const YOUNGER: Marker = { id: markerId(3_000, "beef"), label: null };

const CLEAR: Look = { kind: "seen", marked: true, others: [] };
const BARE: Look = { kind: "seen", marked: false, others: [] };
const AWAY: Look = { kind: "unseen", why: "it refuses connections" };

function seeing(...others: Marker[]): Look {
  return { kind: "seen", marked: true, others };
}

/** Looks in this order at nodes a, b, c; undefined = none. */
function having(lease: Lease, ...looks: (Look | undefined)[]): Lease {
  let next = lease;
  for (const [index, look] of looks.entries()) {
    const node = ABC[index];
    if (node !== undefined && look !== undefined) next = withLook(next, node, look, 0);
  }
  return next;
}

function fresh(nodes: readonly NodeId[] = ABC): Lease {
  return withNodes(firstLease(SELF), nodes);
}

/** It has looked at all nodes and marks. */
function marking(nodes: readonly NodeId[] = ABC): Lease {
  return having(fresh(nodes), BARE, BARE, BARE);
}

function reasonOf(lease: Lease, must: readonly NodeId[] = []): string {
  const standing = standingOf(lease, must);
  return standing.kind === "sole" ? "sole" : standing.reason;
}

describe("marking", () => {
  it("begins when every known node was looked at, or could not be, and nobody else was seen", () => {
    expect(having(fresh(), BARE, BARE).marks).toBe(false);
    expect(having(fresh(), BARE, BARE, AWAY).marks).toBe(true);
    expect(having(fresh(), AWAY, AWAY, AWAY).marks).toBe(false);
    expect(fresh([]).marks).toBe(false);
  });

  it.each([[OLDER], [YOUNGER]])("does not begin where another one is, whichever: %j", (other) => {
    const lease = having(fresh(), BARE, { kind: "seen", marked: false, others: [other] }, BARE);
    expect(lease.marks).toBe(false);
    expect(having(lease, undefined, BARE).marks).toBe(true);
  });

  it("ends when an older one is seen, and not for a younger one", () => {
    expect(having(marking(), CLEAR, seeing(YOUNGER)).marks).toBe(true);
    const stepped = having(marking(), CLEAR, seeing(YOUNGER, OLDER));
    expect(stepped.marks).toBe(false);
    expect(stepped.looks.get(at("a"))).toEqual(BARE);
  });

  it("goes on for a while after a confirmation: the promotion may be under way", () => {
    const sole = confirmed(having(marking(), CLEAR, CLEAR, CLEAR), 1_000);
    const early = withLook(sole, at("a"), seeing(OLDER), 1_000 + KEEP_MS - 1);
    expect(early.marks).toBe(true);
    expect(standingOf(early).kind).toBe("refused");
    expect(withLook(early, at("b"), CLEAR, 1_000 + KEEP_MS).marks).toBe(false);
  });
});

describe("the standing of three nodes", () => {
  it.each<[string, Lease]>([
    ["a majority", having(marking(), CLEAR, CLEAR, AWAY)],
    ["all of them", having(marking(), CLEAR, CLEAR, CLEAR)],
    ["one, after all at the same time", having(having(marking(), CLEAR, CLEAR, CLEAR), AWAY, AWAY)],
    ["a majority, again after another one", having(having(marking(), seeing(YOUNGER), CLEAR), CLEAR)],
  ])("is sole by %s", (_, lease) => {
    expect(standingOf(lease)).toEqual({ kind: "sole" });
  });

  it.each<[string, Lease, RegExp]>([
    ["nothing yet", fresh(), /on 0 of 3 nodes, and 2 are needed/],
    ["looks without markers", marking(), /on 0 of 3/],
    ["one of three", having(marking(), CLEAR, AWAY, AWAY), /on 1 of 3 nodes, and 2 are needed/],
    ["all, one by one", having(having(marking(), CLEAR, AWAY, CLEAR), AWAY, CLEAR, AWAY), /on 1 of 3/],
    [
      "none after all",
      having(having(marking(), CLEAR, CLEAR, CLEAR), AWAY, AWAY, AWAY),
      /on 0 of 3 nodes, and 1/,
    ],
    [
      "an older one anywhere",
      having(marking(), CLEAR, CLEAR, seeing(OLDER)),
      /^the proxy at 10\.0\.0\.1:6379 promotes.*Sentinel/,
    ],
    [
      "a younger one anywhere",
      having(marking(), CLEAR, CLEAR, seeing(YOUNGER)),
      /^another proxy \(0{11}3000-beef\) has just come.*Sentinel/,
    ],
    [
      "all once, then another one, then one node",
      having(having(having(marking(), CLEAR, CLEAR, CLEAR), seeing(YOUNGER), AWAY, AWAY), CLEAR),
      /on 1 of 3/,
    ],
    [
      "a node that forbids it",
      having(marking(), CLEAR, CLEAR, { kind: "forbidden", error: "NOPERM no" }),
      /^c:6379 does not let.*NOPERM no.*&__holdfast__:\* &__sentinel__:hello \+subscribe \+pubsub/,
    ],
  ])("is refused by %s", (_, lease, reason) => {
    expect(reasonOf(lease)).toMatch(reason);
  });

  it("needs every node that answers to be asked, right before a promotion", () => {
    const lease = having(marking(), CLEAR, CLEAR, AWAY);
    expect(reasonOf(lease, [at("a"), at("b")])).toBe("sole");
    expect(reasonOf(lease, [at("c")])).toMatch(/could not be asked on c:6379: it refuses connections/);
    expect(reasonOf(freshOnly(lease, new Set([at("a")])), [at("b")])).toMatch(/b:6379: it did not answer/);
    expect(reasonOf(freshOnly(lease, new Set([at("a")])))).toMatch(/on 1 of 3/);
    expect(reasonOf(lease, [at("x")])).toMatch(/x:6379: it is not known/);
  });
});

describe("the standing of other groups", () => {
  it("is sole by one of two nodes, and of one", () => {
    const two = [at("a"), at("b")];
    expect(reasonOf(withLook(having(fresh(two), BARE, AWAY), at("a"), CLEAR, 0))).toBe("sole");
    expect(reasonOf(withLook(having(fresh([at("a")]), BARE), at("a"), CLEAR, 0))).toBe("sole");
    expect(reasonOf(fresh([]))).toMatch(/on 0 of 0/);
  });

  it("is that of all nodes only until one more becomes known", () => {
    const all = having(marking(), CLEAR, CLEAR, CLEAR);
    const four = withNodes(all, [...ABC, at("d")]);
    expect(reasonOf(having(four, CLEAR, AWAY, AWAY))).toMatch(/on 1 of 4 nodes, and 3/);
    const again = having(withLook(four, at("d"), CLEAR, 0), AWAY, AWAY, AWAY);
    expect(reasonOf(again)).toBe("sole");
    expect(reasonOf(withNodes(again, [at("a"), at("d")]))).toBe("sole");
    expect(withLook(again, at("x"), CLEAR, 0)).toBe(again);
  });
});

describe("markers", () => {
  it("sort by age, and carry where the proxy is", () => {
    expect([markerId(10_000, "0"), markerId(9_999, "f"), markerId(9_999, "0")].sort()).toEqual([
      markerId(9_999, "0"),
      markerId(9_999, "f"),
      markerId(10_000, "0"),
    ]);
    const channel = markerChannel(OLDER);
    expect(channel).toBe("__holdfast__:promoter:000000000001000-beef@10.0.0.1:6379");
    expect(readMarkers([channel, markerChannel({ id: SELF, label: null })], SELF)).toEqual({
      own: true,
      others: [OLDER],
    });
    expect(labelOf("[::1]:6379")).toBe("[::1]:6379");
    expect(labelOf("a b\n*")).toBe("a_b__");
    expect(labelOf("")).toBeNull();
  });

  it("of an unknown form count, whatever stands there, and never throw", () => {
    expect(readMarkers([`${MARKER_PREFIX}`, `${MARKER_PREFIX}@@x`], SELF)?.others).toEqual([
      { id: "", label: null },
      { id: "", label: "_x" },
    ]);
    expect(readMarkers("nonsense", SELF)).toBeNull();
    fc.assert(
      fc.property(fc.jsonValue(), fc.array(fc.string()), (value, texts) => {
        readMarkers(value, SELF);
        const channels = texts.map((text) => MARKER_PREFIX + text);
        const found = readMarkers(channels, SELF);
        expect((found?.others.length ?? 0) + (found?.own === true ? 1 : 0)).toBeGreaterThanOrEqual(
          Math.min(texts.length, 1),
        );
      }),
    );
  });
});

// Two proxies on three nodes, in every order

/** One node, as two proxies see it. */
interface Spot {
  /** Whose marker the node has. */
  readonly has: readonly [boolean, boolean];
  /** Whose subscription is confirmed, as far as the proxy knows. */
  readonly subscribed: readonly [boolean, boolean];
  readonly cut: readonly [boolean, boolean];
}

interface World {
  readonly leases: readonly [Lease, Lease];
  readonly spots: readonly Spot[];
  readonly cuts: number;
  readonly losses: number;
}

type Who = 0 | 1;
const BOTH: readonly Who[] = [0, 1];
const IDS = [markerId(1, "a"), markerId(2, "b")] as const;

function put<T>(pair: readonly [T, T], who: Who, value: T): readonly [T, T] {
  return who === 0 ? [value, pair[1]] : [pair[0], value];
}

function spotWith(world: World, index: number, change: Partial<Spot>): World {
  return { ...world, spots: world.spots.map((spot, i) => (i === index ? { ...spot, ...change } : spot)) };
}

/** The lease takes in a look; markers it does not want any more go where they can be taken away. */
function told(world: World, who: Who, index: number, look: Look): World {
  const lease = withLook(world.leases[who], ABC[index] ?? at("x"), look, 0);
  const next = { ...world, leases: put(world.leases, who, lease) };
  if (lease.marks || !world.leases[who].marks) return next;
  const spots = next.spots.map((spot) => ({
    ...spot,
    has: spot.cut[who] ? spot.has : put(spot.has, who, false),
    subscribed: put(spot.subscribed, who, false),
  }));
  return { ...next, spots };
}

/** A look: what the node answers at this moment, or the end of a connection that leads nowhere. */
function looked(world: World, who: Who, index: number): World {
  const spot = spotOf(world, index);
  if (spot.cut[who]) {
    const gone = spotWith(world, index, { subscribed: put(spot.subscribed, who, false) });
    return told(gone, who, index, AWAY);
  }
  return told(world, who, index, answerOf(spot, who));
}

function answerOf({ has, subscribed }: Spot, who: Who): Look {
  const other: Who = who === 0 ? 1 : 0;
  const others = has[other] ? [{ id: IDS[other], label: null }] : [];
  return { kind: "seen", marked: subscribed[who] && has[who], others };
}

function marked(world: World, who: Who, index: number): World {
  const { has, subscribed } = spotOf(world, index);
  return spotWith(world, index, { has: put(has, who, true), subscribed: put(subscribed, who, true) });
}

function spotOf(world: World, index: number): Spot {
  const spot = world.spots[index];
  if (spot === undefined) throw new Error(`no node ${index}`);
  return spot;
}

function steps(world: World, limits: { readonly cuts: number; readonly losses: number }): World[] {
  const found: World[] = [];
  for (const [index, spot] of world.spots.entries()) {
    for (const who of BOTH) {
      found.push(looked(world, who, index));
      if (spot.cut[who]) {
        found.push(spotWith(world, index, { cut: put(spot.cut, who, false) }));
        if (spot.has[who] && world.losses < limits.losses) {
          const lost = spotWith(world, index, { has: put(spot.has, who, false) });
          found.push({ ...lost, losses: world.losses + 1 });
        }
        continue;
      }
      if (world.leases[who].marks && !spot.subscribed[who]) found.push(marked(world, who, index));
      if (world.cuts < limits.cuts) {
        found.push({ ...spotWith(world, index, { cut: put(spot.cut, who, true) }), cuts: world.cuts + 1 });
      }
    }
  }
  return found;
}

function lookKey(look: Look | undefined): string {
  if (look?.kind !== "seen") return look?.kind[0] ?? "";
  return `${look.marked ? "M" : "B"}${look.others.length}`;
}

/** Nodes are alike: which of them is which does not matter. */
function keyOf({ leases, spots, cuts, losses }: World): string {
  const bit = (value: boolean): string => (value ? "1" : "0");
  const nodes = spots.map(({ has, subscribed, cut }, index) => {
    const flags = [...has, ...subscribed, ...cut].map(bit).join("");
    return BOTH.map((who) => lookKey(leases[who].looks.get(ABC[index] ?? at("x")))).join() + flags;
  });
  const own = leases.map(({ marks, sawAll }) => bit(marks) + bit(sawAll)).join();
  return `${nodes.sort().join(" ")} ${own} ${cuts} ${losses}`;
}

/** Whether a confirmation would make it sole at this moment: all nodes that it reaches are looked at anew. */
function isFreshlySole(world: World, who: Who): boolean {
  let lease = world.leases[who];
  const reached: NodeId[] = [];
  for (const [index, spot] of world.spots.entries()) {
    const node = ABC[index] ?? at("x");
    lease = withLook(lease, node, spot.cut[who] ? AWAY : answerOf(spot, who), 0);
    if (!spot.cut[who]) reached.push(node);
  }
  return standingOf(lease, reached).kind === "sole";
}

function firstWorld(): World {
  const none = [false, false] as const;
  return {
    leases: [withNodes(firstLease(IDS[0]), ABC), withNodes(firstLease(IDS[1]), ABC)],
    spots: ABC.map(() => ({ has: none, subscribed: none, cut: none })),
    cuts: 0,
    losses: 0,
  };
}

interface Explored {
  readonly states: number;
  /** Whether each of them was sole in some state. */
  readonly soleSeen: readonly [boolean, boolean];
  /** The first state in which both are sole as far as they know while no marker was lost; null = none. */
  readonly bothBelieve: World | null;
  /** The first state in which both would be confirmed; null = none. */
  readonly bothConfirmed: World | null;
}

function explore(limits: { readonly cuts: number; readonly losses: number }): Explored {
  const first = firstWorld();
  const seen = new Set([keyOf(first)]);
  const open = [first];
  const soleSeen: [boolean, boolean] = [false, false];
  let bothBelieve: World | null = null;
  for (let world = open.pop(); world !== undefined; world = open.pop()) {
    const [one, two] = world.leases.map((lease) => standingOf(lease).kind === "sole");
    soleSeen[0] ||= one === true;
    soleSeen[1] ||= two === true;
    if (one === true && two === true && world.losses === 0) bothBelieve ??= world;
    if (isFreshlySole(world, 0) && isFreshlySole(world, 1)) {
      return { states: seen.size, soleSeen, bothBelieve, bothConfirmed: world };
    }
    for (const next of steps(world, limits)) {
      const key = keyOf(next);
      if (seen.has(key)) continue;
      seen.add(key);
      open.push(next);
    }
  }
  return { states: seen.size, soleSeen, bothBelieve, bothConfirmed: null };
}

describe("two proxies on three nodes, in every order of looking, marking, stepping back and being cut off", () => {
  it("are never sole at the same time, nor confirmed when a node forgets one marker (42)", () => {
    // With two cuts there are 362 218 states and it is the same, but that takes a quarter of a minute.
    const { states, soleSeen, bothBelieve, bothConfirmed } = explore({ cuts: 1, losses: 1 });
    expect(bothBelieve).toBeNull();
    expect(bothConfirmed).toBeNull();
    // Each of them is in some order, or the claim says nothing.
    expect(soleSeen).toEqual([true, true]);
    expect(states).toBeGreaterThan(10_000);
  }, 60_000);

  it("can both be when two nodes forget the markers of a proxy that is cut off from them", () => {
    let world = firstWorld();
    const look = (who: Who, ...indexes: number[]): void => {
      for (const index of indexes) world = looked(world, who, index);
    };
    const mark = (who: Who, ...indexes: number[]): void => {
      for (const index of indexes) world = marked(world, who, index);
    };
    look(0, 0, 1, 2);
    mark(0, 0, 1, 2);
    look(0, 0, 1, 2);
    // The older one reaches the last node only, the younger one the others, and these forget the older one.
    for (const index of [0, 1]) world = spotWith(world, index, { cut: [true, false], has: [false, false] });
    world = spotWith(world, 2, { cut: [false, true] });
    look(1, 0, 1, 2);
    mark(1, 0, 1);
    expect(BOTH.map((who) => isFreshlySole(world, who))).toEqual([true, true]);
  });
});
