import { describe, expect, it } from "vitest";
import { chooseCandidate, type Unfit, unfitness } from "../../../src/failover/candidate.ts";
import type { NodeView } from "../../../src/topology/rules/model.ts";
import { at, unanswered } from "../topology/nodes.ts";
import { lost, masterAt, replicaAt, sight } from "./sight.ts";

const SINCE = 5_000;
const NOBODY: ReadonlySet<never> = new Set();
const MASTER = lost(masterAt("a", 4_900), "unreachable");
/** With its link down, as after a crash. */
const left = (name: string, word = {}) => replicaAt(name, 5_100, { linkUp: false, ...word });

function choose(...views: readonly NodeView[]) {
  return chooseCandidate(sight([MASTER, ...views], { hold: "connection-lost" }), SINCE, NOBODY);
}

describe("who may become the master", () => {
  const rows: [why: Unfit | null, title: string, view: NodeView][] = [
    [null, "a replica of our history", replicaAt("b", 5_100)],
    [null, "one whose link is down", left("b")],
    [null, "one that is chained to a replica", replicaAt("b", 5_100, { of: "c" })],
    ["master", "the master itself", masterAt("a", 5_100)],
    ["unreachable", "one that does not answer", lost(replicaAt("b", 5_100), "silent")],
    ["unreachable", "one that refuses", lost(replicaAt("b", 5_100), "unreachable")],
    ["unreachable", "one that loads (as an error)", lost(replicaAt("b", 5_100), "loading")],
    ["unreachable", "one that never answered", unanswered("b", "never")],
    ["no-replica", "one that claims to be master", masterAt("b", 5_100)],
    ["loading", "one that loads", left("b", { loading: true })],
    ["syncing", "one that is being synchronised", left("b", { syncInProgress: true })],
    ["other-history", "one of another history", left("b", { replid: "X" })],
    ["other-history", "one that only continues ours", left("b", { replid: "H2", replid2: "H1" })],
    ["never-promote", "one of priority 0", left("b", { priority: 0 })],
  ];
  it.each(rows)("%s: %s", (why, _title, view) => {
    const { master } = sight([MASTER, view]);
    if (master === null) throw new Error("there is a master");
    expect(unfitness(view, master)).toBe(why);
  });
});

describe("a replica that is left behind", () => {
  const bounds = { behindMs: 1_500, wellUntilMs: 4_900 };
  const one = (word = {}, limits = bounds) =>
    chooseCandidate(sight([MASTER, left("b", word)]), SINCE, NOBODY, true, limits).kind;
  // The master was at 50 at 0, at 90 at 1000 and at 100 at 3000.
  const rows: [title: string, word: object, expected: string][] = [
    ["is taken when it has all", { appliedOffset: 100 }, "take"],
    ["is taken when it lacks only what is new", { appliedOffset: 95 }, "take"],
    ["is not taken when it lacks what is older", { appliedOffset: 60 }, "nobody"],
    ["is not taken when it was restarted from an old file", { appliedOffset: 10 }, "nobody"],
    ["is taken when its link went with the master", { appliedOffset: 95, linkDownForMs: 1_000 }, "take"],
    ["is not taken when its link went before", { appliedOffset: 95, linkDownForMs: 2_000 }, "nobody"],
    [
      "is taken when it lacks nothing, whatever its link",
      { appliedOffset: 100, linkDownForMs: 9_000 },
      "take",
    ],
    [
      "is taken when a full synchronisation was begun and it has its data",
      { appliedOffset: 1, receivedOffset: 1, masterReplOffset: 100 },
      "take",
    ],
    [
      "is not taken when a full synchronisation has emptied it",
      { appliedOffset: 1, receivedOffset: 1, masterReplOffset: 100, keys: 0 },
      "nobody",
    ],
  ];
  it.each(rows)("%s", (_, word, expected) => expect(one(word)).toBe(expected));

  it("is judged by its link only where it is known how long the master was well", () => {
    const word = { appliedOffset: 95, linkDownForMs: 60_000 };
    expect(one(word, { ...bounds, wellUntilMs: 4_900 })).toBe("nobody");
    expect(chooseCandidate(sight([MASTER, left("b", word)]), SINCE, NOBODY).kind).toBe("take");
  });
});

describe("the best replica", () => {
  it("is the most advanced one", () => {
    const views = [left("b", { appliedOffset: 120 }), left("c", { appliedOffset: 130 })];
    expect(choose(...views)).toEqual({ kind: "take", node: at("c") });
    expect(choose(...views.reverse())).toEqual({ kind: "take", node: at("c") });
  });

  it("is the most advanced one whatever the priorities", () => {
    const views = [left("b", { appliedOffset: 120, priority: 1 }), left("c", { appliedOffset: 121 })];
    expect(choose(...views)).toEqual({ kind: "take", node: at("c") });
  });

  it("is of equals the one with the lower priority, then the first by name", () => {
    expect(choose(left("b", { priority: 100 }), left("c", { priority: 10 }))).toMatchObject({
      node: at("c"),
    });
    expect(choose(left("c"), left("b"))).toMatchObject({ node: at("b") });
  });

  it("is one that is not excluded", () => {
    const group = sight([MASTER, left("b", { appliedOffset: 130 }), left("c")], { hold: "silent" });
    expect(chooseCandidate(group, SINCE, new Set([at("b")]))).toEqual({ kind: "take", node: at("c") });
    const both = chooseCandidate(group, SINCE, new Set([at("b"), at("c")]));
    expect(both).toMatchObject({ kind: "nobody", reasons: expect.stringContaining("could not be promoted") });
  });

  it("is not chosen before every candidate has reported during the outage", () => {
    const stale = replicaAt("c", 4_999, { appliedOffset: 50, receivedOffset: 50 });
    expect(choose(left("b"), stale)).toEqual({ kind: "wait" });
    expect(choose(left("b"), lost(stale, "silent"))).toEqual({ kind: "take", node: at("b") });
    expect(choose(left("b"), replicaAt("c", 5_000))).toMatchObject({ kind: "take" });
  });

  it("is not chosen while one that had more cannot be reached, but not for ever", () => {
    const ahead = lost(replicaAt("c", 4_999, { appliedOffset: 200 }), "unreachable");
    expect(choose(left("b"), ahead)).toEqual({ kind: "wait" });
    const group = sight([MASTER, left("b"), ahead], { hold: "silent" });
    const taken = { kind: "take", node: at("b") };
    expect(chooseCandidate(group, SINCE, new Set(), false)).toEqual(taken);
    const never = lost(replicaAt("c", 4_999, { appliedOffset: 200, priority: 0 }), "unreachable");
    expect(choose(left("b"), never)).toEqual(taken);
  });

  it("is not chosen before it has applied what it received", () => {
    const behind = left("b", { receivedOffset: 130, appliedOffset: 120 });
    expect(choose(behind, left("c", { appliedOffset: 125 }))).toEqual({ kind: "wait" });
    expect(
      choose(left("b", { appliedOffset: 130 }), left("c", { receivedOffset: 129, appliedOffset: 1 })),
    ).toEqual({ kind: "take", node: at("b") });
  });

  it("is nobody when all are unfit, and it is said why each of them is", () => {
    expect(choose(left("b", { priority: 0 }), lost(left("c"), "unreachable"))).toEqual({
      kind: "nobody",
      reasons: "a:6379: unreachable, b:6379: never-promote, c:6379: unreachable",
    });
  });

  it("is nobody without a master or without another node", () => {
    const alone = sight([], { hold: "silent" });
    expect(chooseCandidate(alone, SINCE, NOBODY)).toMatchObject({ reasons: "there is no other node" });
    expect(chooseCandidate({ ...alone, master: null }, SINCE, NOBODY)).toMatchObject({ kind: "nobody" });
  });
});
