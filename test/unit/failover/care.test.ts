import { describe, expect, it } from "vitest";
import { strays } from "../../../src/failover/care.ts";
import type { Standing } from "../../../src/failover/model.ts";
import type { NodeId } from "../../../src/topology/epoch.ts";
import type { NodeView } from "../../../src/topology/rules/model.ts";
import { at, unanswered } from "../topology/nodes.ts";
import {
  DONE,
  lost,
  masterAt,
  NEVER,
  Play,
  refusedWith,
  replicaAt,
  SELF,
  type SightOptions,
  sight,
  UNREACHABLE,
} from "./sight.ts";

const MEMBERS: ReadonlySet<NodeId> = new Set([at("a"), at("b"), at("c"), at("d")]);
const A = masterAt("a", 5_000);

function straying(views: readonly NodeView[], options: SightOptions = {}, orphans: readonly string[] = []) {
  const left = new Map(orphans.map((name) => [at(name), at("d")]));
  const past = { members: MEMBERS, orphans: left, isNewHistory: false };
  return strays(sight(views, options), past).map((id) => id.split(":")[0]);
}

describe("who is made to follow the master", () => {
  const down = { linkUp: false };
  const rows: [title: string, nodes: readonly NodeView[], strays: readonly string[]][] = [
    ["its replicas are left alone", [replicaAt("b", 1), replicaAt("c", 1)], []],
    ["its replica that has no link (yet), too", [replicaAt("b", 1, down)], []],
    [
      "its replica that is being synchronised, too",
      [replicaAt("b", 1, { ...down, syncInProgress: true })],
      [],
    ],
    ["a member that claims to be master", [masterAt("b", 1, { replid: "X" })], ["b"]],
    ["a member that claims to be master of an older history", [masterAt("b", 1, { replid: "H0" })], ["b"]],
    [
      "another master at a member's address that was only discovered is left alone",
      [{ ...masterAt("b", 1, { replid: "X" }), seed: false }],
      [],
    ],
    [
      "a former member that was only discovered and continues our history",
      [{ ...masterAt("b", 1, { replid: "X", replid2: "H1" }), seed: false }],
      ["b"],
    ],
    ["a member that follows a lost member", [replicaAt("b", 1, { of: "d", ...down })], ["b"]],
    [
      "a member that follows a member of another history",
      [replicaAt("b", 1, { of: "d", replid: "X" })],
      ["b"],
    ],
    [
      "a member that has no master's address and no link",
      [replicaAt("b", 1, { ...down, masterAddress: null })],
      ["b"],
    ],
    ["a replica of a replica is left alone", [replicaAt("b", 1), replicaAt("c", 1, { of: "b" })], []],
    [
      "a member that was just given to a replica is left alone before its link is up",
      [replicaAt("b", 1), replicaAt("c", 1, { of: "b", ...down, linkDownForMs: 2_000 })],
      [],
    ],
    [
      "a member whose link to a replica stays down",
      [replicaAt("b", 1), replicaAt("c", 1, { of: "b", ...down, linkDownForMs: 3_000 })],
      ["c"],
    ],
    [
      "a member that was just given to a replica without a link",
      [replicaAt("b", 1, down), replicaAt("c", 1, { of: "b", ...down, linkDownForMs: 0 })],
      ["c"],
    ],
    ["a node that does not answer is left alone", [lost(masterAt("b", 1, { replid: "X" }), "silent")], []],
    ["a node that was never met is left alone", [unanswered("b", "unreachable")], []],
    ["a node that loads is left alone", [masterAt("b", 1, { loading: true, replid: "X" })], []],
    [
      "a node in a FAILOVER is left alone",
      [masterAt("b", 1, { replid: "X", failoverState: "waiting-for-sync" })],
      [],
    ],
    ["a stranger that claims to be master is left alone", [masterAt("z", 1, { replid: "X" })], []],
    ["a stranger's replica is left alone", [replicaAt("y", 1, { of: "z", replid: "X" })], []],
    ["a stranger that follows a lost member is left alone", [replicaAt("y", 1, { of: "d", ...down })], []],
    [
      "a member that somebody gave to a foreign master is left alone",
      [masterAt("z", 1, { replid: "X" }), replicaAt("b", 1, { of: "z", replid: "X" })],
      [],
    ],
    [
      "a member that is being given to a foreign master is left alone before its link is up",
      [masterAt("z", 1, { replid: "X" }), replicaAt("b", 1, { of: "z", ...down })],
      [],
    ],
    [
      "a member that is being synchronised by a master nobody has met is left alone",
      [replicaAt("b", 1, { of: "z", ...down, syncInProgress: true })],
      [],
    ],
    [
      "a member that follows an address at which nobody is",
      [unanswered("z", "unreachable"), replicaAt("b", 1, { of: "z", ...down })],
      ["b"],
    ],
  ];
  it.each(rows)("%s", (_title, nodes, expected) => {
    expect(straying([A, ...nodes])).toEqual(expected);
  });

  it("nobody while the master is not well", () => {
    expect(straying([A, masterAt("b", 1, { replid: "X" })], { hold: "silent" })).toEqual([]);
  });

  it("a replica that a switch left chained to the former master", () => {
    const chained = [A, replicaAt("d", 1), replicaAt("c", 1, { of: "d" })];
    expect(straying(chained)).toEqual([]);
    expect(straying(chained, {}, ["c"])).toEqual(["c"]);
    const down = replicaAt("c", 1, { of: "d", linkUp: false, linkDownForMs: 0 });
    expect(straying([A, replicaAt("d", 1), down], {}, ["c"])).toEqual(["c"]);
  });
});

const SOLE: Standing = { kind: "sole" };

/** a is replaced by b (of the history H2, which continues H1). */
function switched(settings = SELF, standing: Standing = SOLE): Play {
  const play = new Play(settings).do(0, { kind: "standing", standing });
  play.see(1_000, [masterAt("a", 999), replicaAt("b", 999), replicaAt("c", 999)]);
  const after = [
    replicaAt("a", 1_099, { of: "b", replid: "H2" }),
    masterAt("b", 1_099, { replid: "H2", replid2: "H1" }),
    replicaAt("c", 1_099, { of: "a", replid: "H2" }),
  ];
  return play.see(1_100, after, { of: "b", replid: "H2", epoch: 2 });
}

const AFTER = { of: "b", replid: "H2", epoch: 2 };
const B = (sentAtMs: number) => masterAt("b", sentAtMs, { replid: "H2", replid2: "H1" });
const RETURNED = (sentAtMs: number) => masterAt("a", sentAtMs, { replid: "X" });

describe("after a switch", () => {
  it("the replica that the former master leaves behind is told to follow", () => {
    expect(switched().runs).toEqual(["c: follow b"]);
  });

  it("nobody is told anything where people, or Sentinel, decide", () => {
    expect(switched(NEVER).runs).toEqual([]);
  });

  it("a replica that has left it by itself and is chained to another one is left there", () => {
    const play = switched(NEVER);
    expect([...play.state.orphans.keys()]).toEqual([at("c")]);
    const chained = [replicaAt("a", 1_199, { of: "b", replid: "H2" }), B(1_199)];
    chained.push(replicaAt("d", 1_199, { of: "b", replid: "H2" }));
    chained.push(replicaAt("c", 1_199, { of: "d", replid: "H2" }));
    play.see(1_200, chained, AFTER);
    expect([...play.state.orphans.keys()]).toEqual([]);
  });

  it("a former master that came back is told to follow, once at a time", () => {
    const play = switched();
    play.see(2_000, [RETURNED(1_999), B(1_999)], AFTER);
    expect(play.runs).toEqual(["a: follow b"]);
    play.see(2_050, [RETURNED(2_049), B(2_049)], AFTER);
    expect(play.runs).toEqual([]);
  });

  it("a former master that came back is not touched by a proxy that does not promote", () => {
    expect(switched(NEVER).see(2_000, [RETURNED(1_999), B(1_999)], AFTER).runs).toEqual([]);
  });

  it("nobody is told anything by a proxy that may not promote, until it may", () => {
    const play = switched(SELF, { kind: "refused", reason: "proxy 2 does" });
    expect(play.runs).toEqual([]);
    expect(play.see(2_000, [RETURNED(1_999), B(1_999)], AFTER).runs).toEqual([]);
    expect(play.do(2_010, { kind: "standing", standing: SOLE }).runs).toEqual(["a: follow b"]);
  });

  it("a node that refuses is tried again, at longer and longer intervals, and it is said", () => {
    const play = switched();
    const see = (atMs: number) => play.see(atMs, [RETURNED(atMs - 1), B(atMs - 1)], AFTER);
    const attempts: number[] = [];
    for (let atMs = 2_000; atMs < 200_000; atMs += 50) {
      see(atMs);
      if (!play.runs.includes("a: follow b")) continue;
      attempts.push(atMs);
      play.ended(atMs + 10, "follow", refusedWith("NOPERM"));
      expect(play.obstacles.length > 0, `after ${attempts.length}`).toBe(attempts.length >= 3);
    }
    const pauses = attempts.slice(1).map((atMs, i) => Math.round((atMs - (attempts[i] ?? 0)) / 1_000));
    expect(pauses.slice(0, 6)).toEqual([2, 4, 8, 16, 30, 30]);
    expect(play.obstacles).toEqual(["not-demoted a"]);
    const told = play.all.filter((effect) => effect.kind === "tell" && effect.what === "repointing-failed");
    expect(told).toHaveLength(1);
    const follows = [replicaAt("a", 200_099, { of: "b", replid: "H2" }), B(200_099)];
    expect(play.see(200_100, follows, AFTER).obstacles).toEqual([]);
  });

  it("a node that obeys and is a master again the next moment is tried more and more rarely, and it is said", () => {
    const play = switched();
    let attempts = 0;
    for (let atMs = 2_000; atMs < 60_000; atMs += 50) {
      play.see(atMs, [RETURNED(atMs - 1), B(atMs - 1)], AFTER);
      if (!play.runs.includes("a: follow b")) continue;
      attempts++;
      play.ended(atMs + 10, "follow", DONE);
    }
    expect(attempts).toBeLessThan(10);
    expect(play.obstacles).toEqual(["not-demoted a"]);
  });

  it("a node that could not be reached is tried again", () => {
    const play = switched();
    play.see(2_000, [RETURNED(1_999), B(1_999)], AFTER);
    play.ended(2_010, "follow", UNREACHABLE);
    expect(play.tick(3_000).runs).toEqual([]);
    expect(play.tick(4_010).runs).toEqual(["a: follow b"]);
  });

  it("an address known from before a restart of the proxy is a member", () => {
    const play = new Play(SELF, [at("a")]);
    const look = (one: Play) =>
      one
        .do(0, { kind: "standing", standing: SOLE })
        .see(1_000, [RETURNED(999), B(999)], AFTER)
        .see(1_020, [RETURNED(1_010), B(1_010)], AFTER);
    // Not at the first look: it may have been made the successor of what was found.
    expect(look(play).allRuns).toEqual(["a: follow b"]);
    expect(look(new Play(SELF)).allRuns).toEqual([]);
  });
});
