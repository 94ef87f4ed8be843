import { describe, expect, it } from "vitest";
import type { NodeView } from "../../../src/topology/rules/model.ts";
import { at } from "../topology/nodes.ts";
import {
  BY_SENTINEL,
  DONE,
  lost,
  masterAt,
  NEVER,
  Play,
  refusedWith,
  replicaAt,
  SELF,
  UNKNOWN,
  UNREACHABLE,
} from "./sight.ts";

const well = (sentAtMs: number, offset = 100): NodeView[] => [
  masterAt("a", sentAtMs, { masterReplOffset: offset, appliedOffset: offset }),
  ...[replicaAt("b", sentAtMs), replicaAt("c", sentAtMs)],
];
const SWITCHED = { of: "b", replid: "H2", epoch: 2 };
const B = (sentAtMs: number) => masterAt("b", sentAtMs, { replid: "H2", replid2: "H1" });
/** After FAILOVER: a follows b, c is still chained to a. */
const handedOver = (sentAtMs: number): NodeView[] => [
  ...[replicaAt("a", sentAtMs, { of: "b", replid: "H2" }), B(sentAtMs)],
  replicaAt("c", sentAtMs, { of: "a", replid: "H2" }),
];
/** After a promotion: a is a master still. */
const promoted = (sentAtMs: number): NodeView[] => [
  ...[masterAt("a", sentAtMs), B(sentAtMs), replicaAt("c", sentAtMs)],
];
const allFollow = (sentAtMs: number): NodeView[] => [
  ...[replicaAt("a", sentAtMs, { of: "b", replid: "H2" }), B(sentAtMs)],
  replicaAt("c", sentAtMs, { of: "b", replid: "H2" }),
];
const HANDING = { failoverState: "waiting-for-sync" as const };

const HEIR_GONE = lost(replicaAt("b", 1_000), "unreachable");
const OLD_SERVER = { version: "6.0.16" };
/** Asked at 1000 for a second; drained at 1004. */
function begun(settings = NEVER, word = {}): Play {
  const play = new Play(settings);
  const [, b, c] = well(995) as [NodeView, NodeView, NodeView];
  return play
    .see(996, [masterAt("a", 995, word), b, c])
    .ask(1_000)
    .drained(1_004);
}

/** FAILOVER was answered at 1006. */
const handing = () => begun().ended(1_006, "failover");
/** The master has said at 1006 that writes are paused. */
const comparing = (settings = NEVER) => begun(settings, OLD_SERVER).ended(1_006, "pause-writes");
/** b was told at 1011. */
const promoting = () => comparing().see(1_011, well(1_008));

describe("by FAILOVER", () => {
  it("goes from hold to hold's end, re-points the third node, and says so when that is done", () => {
    const play = new Play(NEVER).see(996, well(995)).ask(1_000);
    expect([play.phase, play.isHolding, play.runs]).toEqual(["draining", true, []]);
    expect(play.see(1_002, well(1_001)).phase).toBe("draining");
    play.drained(1_004);
    expect([play.phase, play.runs]).toEqual(["handing-over", ["a: failover to b within 986"]]);
    play.ended(1_006, "failover");
    expect(play.runs).toEqual(["b: acknowledge"]);
    expect(play.effects).toContainEqual({ kind: "look", nodes: [at("b"), at("a")] });
    const c = replicaAt("c", 1_003);
    play.see(1_009, [masterAt("a", 1_008, HANDING), replicaAt("b", 1_008), c]);
    expect([play.phase, play.isHolding]).toEqual(["handing-over", true]);
    const both = [replicaAt("a", 1_010, { of: "b", failoverState: "failover-in-progress" })];
    // That a node is not heard of at the moment of the switch does not mean that it has left.
    play.see(1_012, [...both, replicaAt("b", 1_010), lost(c, "silent")], { hold: "role-changed" });
    expect(play.isHolding).toBe(true);
    play.do(1_019, { kind: "switched", lostBytes: 0 }).see(1_020, handedOver(1_018), SWITCHED);
    expect([play.phase, play.isHolding, play.answers]).toEqual(["settling", false, []]);
    expect(play.runs).toEqual(["b: keep-role", "a: keep-role", "c: follow b"]);
    play.ended(1_025, "follow").see(1_030, allFollow(1_027), SWITCHED);
    expect(play.phase).toBe("none");
    const report = { from: at("a"), to: at("b"), via: "failover", stallMs: 20, lostBytes: 0 };
    expect(play.answers).toEqual([{ kind: "done", report: { ...report, repointed: [at("c")] } }]);
  });

  it("asks the replica for its word again only when the last question has been answered", () => {
    const play = handing();
    expect(play.tick(1_011).runs).toEqual([]);
    play.ended(1_012, "acknowledge", refusedWith("NOPERM"));
    expect(play.tick(1_017).runs).toEqual(["b: acknowledge"]);
  });

  it("answers after two seconds also when the third node does not follow, and goes on telling it to", () => {
    const play = handing().see(1_020, handedOver(1_018), SWITCHED).ended(1_025, "follow", UNREACHABLE);
    play.see(3_019, handedOver(3_018), SWITCHED);
    expect([play.phase, play.answers]).toEqual(["settling", []]);
    play.see(3_020, handedOver(3_018), SWITCHED);
    expect(play.answers).toMatchObject([{ kind: "done", report: { repointed: [] } }]);
    expect(play.phase).toBe("none");
    expect(play.see(3_030, handedOver(3_028), SWITCHED).runs).toEqual(["c: follow b"]);
  });

  it("stops telling the others half a minute later, where nobody promotes", () => {
    const play = handing().see(1_020, handedOver(1_018), SWITCHED).ended(1_025, "follow");
    play.see(1_030, allFollow(1_027), SWITCHED);
    const back = [masterAt("a", 1, { replid: "X" }), ...allFollow(1).slice(1)];
    expect(play.see(31_019, back, SWITCHED).runs).toEqual(["a: follow b"]);
    play.ended(31_020, "follow", UNREACHABLE);
    expect(play.see(60_000, back, SWITCHED).runs).toEqual([]);
  });
});

describe("by pause, comparison and promotion", () => {
  it("promotes when the replica has all of it, demotes the former master and lifts the pause", () => {
    const play = begun(NEVER, OLD_SERVER);
    expect([play.phase, play.runs]).toEqual(["pausing", ["a: pause-writes for 1086"]]);
    play.ended(1_006, "pause-writes");
    expect(play.phase).toBe("comparing");
    // From before the pause: what it says is not the end.
    expect(play.see(1_008, well(1_005)).phase).toBe("comparing");
    expect(play.see(1_010, well(1_007, 114)).phase).toBe("comparing");
    play.see(1_012, [
      ...[masterAt("a", 1_011, { masterReplOffset: 114 }), replicaAt("b", 1_011, { appliedOffset: 114 })],
      replicaAt("c", 1_011),
    ]);
    expect([play.phase, play.runs]).toEqual(["promoting", ["b: promote"]]);
    // What others write to it until it follows would be lost.
    expect(play.ended(1_014, "promote").runs).toEqual(["a: pause-writes for 2000"]);
    play.ended(1_015, "pause-writes").do(1_016, { kind: "switched", lostBytes: 0 });
    play.see(1_016, promoted(1_015), SWITCHED);
    expect([play.phase, play.isHolding]).toEqual(["settling", false]);
    const [c] = play.effects.filter((effect) => effect.kind === "run");
    expect(play.runs).toEqual(["c: follow b"]);
    // What it took last is known when it is looked at once more.
    play.see(1_018, promoted(1_017), SWITCHED);
    const [a] = play.effects.filter((effect) => effect.kind === "run");
    expect(play.runs).toEqual(["a: follow b"]);
    for (const one of [a, c]) if (one) play.do(1_020, { kind: "ended", id: one.id, result: DONE });
    play.see(1_025, allFollow(1_022), SWITCHED);
    expect(play.runs).toEqual(["a: unpause"]);
    expect(play.answers).toMatchObject([
      { kind: "done", report: { via: "promote", lostBytes: 0, repointed: [at("a"), at("c")] } },
    ]);
  });

  it.each([
    "ERR unknown command 'failover', with args beginning with: 'TO'",
    "NOPERM this user has no permissions to run the 'failover' command",
  ])("takes the place of FAILOVER on: %s", (error) => {
    const play = begun().ended(1_006, "failover", refusedWith(error));
    expect([play.phase, play.runs, play.isHolding]).toEqual(["pausing", ["a: pause-writes for 1084"], true]);
    play.ended(1_008, "pause-writes").see(1_011, well(1_010)).ended(1_013, "promote");
    play.see(1_015, promoted(1_014), SWITCHED).see(1_020, allFollow(1_018), SWITCHED);
    expect(play.answers).toMatchObject([{ kind: "done", report: { via: "promote" } }]);
    expect(play.allRuns).not.toContain("a: keep-role");
  });
});

describe("the former master stays paused until it follows", () => {
  /** Two nodes: nobody else is to be re-pointed. */
  const two = (sentAtMs: number): NodeView[] => [masterAt("a", sentAtMs), B(sentAtMs)];
  const accepted = (settings = NEVER) => {
    const play = comparing(settings).see(1_011, well(1_008).slice(0, 2));
    if (settings.mode === "sentinel") play.sentinelAnswered(1_013);
    else play.ended(1_013, "promote");
    play.ended(1_014, "pause-writes");
    return play.see(1_016, two(1_015), SWITCHED);
  };

  it.each([
    ["by promotion", NEVER],
    ["by Sentinel", BY_SENTINEL],
  ])("%s: what others had waiting there would run, be answered and be lost", (_title, settings) => {
    const play = accepted(settings);
    expect([play.phase, play.runs]).toEqual(["settling", []]);
    play.see(1_020, two(1_019), SWITCHED);
    expect([play.phase, play.runs]).toEqual(["settling", ["a: follow b"]]);
    play.ended(1_022, "follow");
    expect([play.phase, play.runs]).toEqual(["settling", []]);
    play.see(1_025, [replicaAt("a", 1_024, { of: "b", replid: "H2" }), B(1_024)], SWITCHED);
    expect([play.phase, play.runs]).toEqual(["none", ["a: unpause"]]);
  });

  it("also when it does not follow in time: then the pause ends by itself", () => {
    const play = accepted().see(1_020, two(1_019), SWITCHED).ended(1_022, "follow", UNREACHABLE);
    play.see(3_016, two(3_015), SWITCHED);
    expect([play.phase, play.answers.length]).toEqual(["none", 1]);
    expect(play.allRuns).not.toContain("a: unpause");
  });
});

describe("PAUSE and UNPAUSE never cross", () => {
  const gone = (sentAtMs: number) => [masterAt("a", sentAtMs), HEIR_GONE, replicaAt("c", sentAtMs)];
  /** The heir has said OK, is gone, and the pause of the master is being prolonged. */
  const given = () => promoting().ended(1_013, "promote").see(1_020, gone(1_019));

  it("when the heir dies right behind its OK: the pause that is being prolonged is ended after that", () => {
    const play = given();
    expect([play.phase, play.isHolding]).toEqual(["none", false]);
    expect(play.allRuns.slice(-2)).toEqual(["b: promote", "a: pause-writes for 2000"]);
    expect(play.ended(1_022, "pause-writes").runs).toEqual(["a: unpause"]);
    play.ended(1_024, "unpause").tick(5_000);
    expect(play.allRuns.filter((run) => run === "a: unpause")).toHaveLength(1);
  });

  it("nor when that is not answered: it may be carried out yet", () => {
    expect(given().ended(2_013, "pause-writes", UNKNOWN).runs).toEqual(["a: unpause"]);
  });

  it.each([
    ["the pause", (play: Play) => play, 1_021],
    ["what ends it", (play: Play) => play.ended(1_022, "pause-writes"), 1_023],
  ])("and no other switch begins before %s has ended: it would end the next one's", (_title, then, atMs) => {
    const play = then(given());
    play.see(atMs, well(atMs - 1)).ask(atMs);
    expect(play.answers.at(-1)).toEqual({
      kind: "refused",
      reason: "the pause of the switch before is being ended",
    });
    expect([play.phase, play.isHolding]).toEqual(["none", false]);
  });

  it("another one may begin then", () => {
    const play = given().ended(1_022, "pause-writes").ended(1_024, "unpause");
    expect(play.see(1_030, well(1_029)).ask(1_031).phase).toBe("draining");
  });
});

describe("an order to become the master that was given up", () => {
  const given = () => promoting().ended(1_900, "promote", UNKNOWN).see(2_000, well(1_999));
  const late = (sentAtMs: number) => [masterAt("a", sentAtMs), B(sentAtMs), replicaAt("c", sentAtMs)];

  it("is renounced before writes go on at the master of before", () => {
    const kinds = given().effects.map(({ kind }) => kind);
    expect(kinds).toContain("renounce");
    expect(kinds.indexOf("renounce")).toBeLessThan(kinds.indexOf("release"));
  });

  it("and is carried out after all is taken back, however late and where nobody promotes", () => {
    const play = given();
    const silent = [masterAt("a", 2_099), lost(replicaAt("b", 1_008), "silent"), replicaAt("c", 2_099)];
    play.see(2_100, silent);
    expect(play.see(900_000, late(899_999)).runs).toEqual(["b: follow a"]);
  });

  it("is over when another process is heard of there", () => {
    const other = { ...B(899_999), report: { ...B(899_999).report!, runId: "f".repeat(40) } };
    const [a, , c] = late(899_999);
    expect(given().see(900_000, [a!, other, c!]).runs).toEqual([]);
  });

  it("is over when the node is heard of again as the replica it was", () => {
    const play = given().see(2_100, well(2_099));
    expect(play.see(900_000, late(899_999)).runs).toEqual([]);
  });
});

describe("by Sentinel", () => {
  it("waits until all replicas have all of it, asks Sentinel, and takes whomever it has chosen", () => {
    const play = comparing(BY_SENTINEL);
    play.see(1_010, [
      masterAt("a", 1_008),
      replicaAt("b", 1_008),
      replicaAt("c", 1_008, { appliedOffset: 99 }),
    ]);
    expect(play.phase).toBe("comparing");
    play.see(1_012, well(1_011));
    expect(play.effects).toContainEqual({ kind: "ask-sentinel", id: expect.any(Number) });
    play.sentinelAnswered(1_020).ended(1_021, "pause-writes").see(1_400, promoted(1_399), SWITCHED);
    expect([play.phase, play.isHolding]).toEqual(["settling", false]);
    play.see(1_500, allFollow(1_499), SWITCHED);
    expect(play.answers).toMatchObject([{ kind: "done", report: { to: at("b"), via: "sentinel" } }]);
    expect(play.runs).toEqual(["a: unpause"]);
  });

  it("is rolled back when Sentinel refuses", () => {
    const play = comparing(BY_SENTINEL).see(1_012, well(1_011));
    play.sentinelAnswered(1_020, refusedWith("NOGOODSLAVE No suitable replica to promote"));
    expect(play.answers).toMatchObject([{ kind: "rolled-back", reason: /NOGOODSLAVE/ }]);
    expect([play.runs, play.isHolding]).toEqual([["a: unpause"], false]);
  });
});

describe("a request is refused, nothing is held", () => {
  it.each([
    ["while another one is under way", () => begun(), "another switch is under way"],
    [
      "while another one settles",
      () => handing().see(1_020, handedOver(1_018), SWITCHED),
      "another switch is under way",
    ],
    [
      "when the plan says no",
      () => new Play(NEVER).see(996, [masterAt("a", 995)]),
      /no replica can take over/,
    ],
    ["before anything was seen", () => new Play(NEVER), "no master has been found yet"],
  ])("%s", (_title, make, reason) => {
    const play = make();
    const wasHolding = play.isHolding;
    play.do(1_030, { kind: "asked", ticket: 2, request: { to: null, timeoutMs: 1_000 } });
    const [answer] = play.effects.flatMap((effect) => (effect.kind === "answer" ? [effect] : []));
    expect(answer).toMatchObject({ ticket: 2, answer: { kind: "refused" } });
    if (answer?.answer.kind === "refused") expect(answer.answer.reason).toMatch(reason);
    expect(play.isHolding).toBe(wasHolding);
  });

  it("during a promotion", () => {
    const play = new Play(SELF).see(1_000, well(999));
    const crashed = (sentAtMs: number) => [
      lost(masterAt("a", 999), "unreachable"),
      replicaAt("b", sentAtMs, { linkUp: false }),
    ];
    play
      .see(1_005, crashed(1_004), { hold: "connection-lost" })
      .see(1_010, crashed(1_009), { hold: "silent" });
    play.see(1_300, crashed(1_299), { hold: "silent" });
    expect(play.phase).toBe("confirming");
    play.ask(1_301);
    expect(play.answers).toEqual([{ kind: "refused", reason: "a promotion is under way" }]);
  });
});

type Ending = [title: string, play: () => Play, answer: object, runs: readonly string[]];

/** Every way to fail: the answer, and what the servers are told besides the beginning. */
const ENDINGS: readonly Ending[] = [
  [
    "draining: the master is lost",
    () => new Play(NEVER).see(996, well(995)).ask(1_000).see(1_003, well(1_001), { hold: "connection-lost" }),
    { kind: "rolled-back", reason: /not well any more: connection-lost/ },
    [],
  ],
  [
    "draining: the master owes answers until the time is over",
    () => new Play(NEVER).see(996, well(995)).ask(1_000).tick(2_000),
    { kind: "rolled-back", reason: /not done within 1000 ms: the master still owes answers/ },
    [],
  ],
  [
    "handing-over: FAILOVER is refused",
    () =>
      begun().ended(1_006, "failover", refusedWith("ERR FAILOVER target HOST and PORT is not a replica.")),
    { kind: "rolled-back", reason: /is not a replica/ },
    [],
  ],
  [
    "handing-over: the master cannot be reached",
    () => begun().ended(1_006, "failover", UNREACHABLE),
    { kind: "rolled-back", reason: /no connection/ },
    [],
  ],
  [
    "handing-over: the servers gave it up",
    () =>
      handing()
        .see(1_900, [masterAt("a", 1_899, HANDING), replicaAt("b", 1)])
        .see(1_950, well(1_940)),
    { kind: "rolled-back", reason: /the servers gave FAILOVER up/ },
    [],
  ],
  [
    "handing-over: its answer is lost, and the master says that it hands nothing over",
    () => begun().ended(1_006, "failover", UNKNOWN).see(1_010, well(1_008)),
    { kind: "rolled-back", reason: /the servers gave FAILOVER up/ },
    [],
  ],
  [
    "handing-over: the master crashes",
    () => handing().see(1_020, [lost(masterAt("a", 1_008), "unreachable")], { hold: "connection-lost" }),
    { kind: "open", reason: /the master was lost while it handed over/ },
    [],
  ],
  [
    "handing-over: another replica is promoted",
    () =>
      handing().see(1_020, [masterAt("a", 1_018), masterAt("c", 1_018, { replid: "H2" })], {
        ...{ of: "c", replid: "H2", epoch: 2 },
      }),
    { kind: "open", reason: /c:6379 became the master instead of b:6379/ },
    [],
  ],
  [
    "aborting: FAILOVER ABORT helps",
    () =>
      handing()
        .see(2_000, [masterAt("a", 1_999, HANDING), replicaAt("b", 1)])
        .ended(2_004, "abort-failover")
        .see(2_010, well(2_008)),
    { kind: "rolled-back", reason: /not done within 1000 ms/ },
    ["a: abort-failover"],
  ],
  [
    "aborting: it does not help",
    () =>
      handing()
        .see(2_000, [masterAt("a", 1_999, HANDING), replicaAt("b", 1)])
        .ended(2_004, "abort-failover", UNKNOWN)
        .see(4_000, [lost(masterAt("a", 1_999, HANDING), "silent"), replicaAt("b", 1)], { hold: "silent" }),
    { kind: "open", reason: /not done within 1000 ms, and it may still happen/ },
    ["a: abort-failover"],
  ],
  [
    "pausing: the pause is refused",
    () => begun(NEVER, OLD_SERVER).ended(1_006, "pause-writes", refusedWith("NOPERM")),
    { kind: "rolled-back", reason: /NOPERM/ },
    ["a: unpause"],
  ],
  [
    "pausing: whether it is paused is not known",
    () => begun(NEVER, OLD_SERVER).ended(1_006, "pause-writes", UNKNOWN),
    { kind: "rolled-back", reason: /no answer/ },
    ["a: unpause"],
  ],
  [
    "pausing: the time is over, and what ends the pause follows it",
    () => begun(NEVER, OLD_SERVER).tick(2_000).ended(2_001, "pause-writes", UNKNOWN),
    { kind: "rolled-back", reason: /not done within 1000 ms/ },
    ["a: unpause"],
  ],
  [
    "pausing: the master is lost",
    () =>
      begun(NEVER, OLD_SERVER)
        .see(1_010, well(1_003), { hold: "silent" })
        .ended(1_900, "pause-writes", UNKNOWN),
    { kind: "rolled-back", reason: /not well any more: silent/ },
    ["a: unpause"],
  ],
  [
    "comparing: the replica does not catch up",
    () => comparing().see(1_500, well(1_499, 114)).tick(2_000),
    { kind: "rolled-back", reason: /not done within 1000 ms/ },
    ["a: unpause"],
  ],
  [
    "comparing: the replica is lost",
    () =>
      comparing()
        .see(1_500, [masterAt("a", 1_499), lost(replicaAt("b", 1_499), "silent")])
        .tick(2_000),
    { kind: "rolled-back", reason: /not done within 1000 ms/ },
    ["a: unpause"],
  ],
  [
    "comparing: the master is lost",
    () => comparing().see(1_010, well(1_009), { hold: "silent" }),
    { kind: "rolled-back", reason: /not well any more: silent/ },
    ["a: unpause"],
  ],
  [
    "comparing: somebody promotes another replica",
    () =>
      comparing().see(1_020, [masterAt("a", 1_018), masterAt("c", 1_018, { replid: "H2" })], {
        ...{ of: "c", replid: "H2", epoch: 2 },
      }),
    { kind: "open", reason: /c:6379 became the master instead of b:6379/ },
    // It ends by itself: what waits there must not run on a former master.
    [],
  ],
  [
    "promoting: the replica refuses",
    () => promoting().ended(1_013, "promote", refusedWith("NOPERM")),
    { kind: "rolled-back", reason: /NOPERM/ },
    ["b: promote", "a: unpause"],
  ],
  [
    "promoting: its answer is lost, and nothing more is heard of it",
    () => promoting().ended(1_900, "promote", UNKNOWN).see(2_000, well(1_999)),
    { kind: "open", reason: /not done within 1000 ms: if b:6379 becomes a master yet, it is made to follow/ },
    ["b: promote", "a: unpause"],
  ],
  [
    "promoting: the replica crashes, and writes do not wait for the end of the time",
    () =>
      promoting()
        .ended(1_013, "promote", UNKNOWN)
        .see(1_020, [masterAt("a", 1_019), HEIR_GONE]),
    { kind: "open", reason: /b:6379 is gone: if b:6379 becomes a master yet/ },
    ["b: promote", "a: unpause"],
  ],
  [
    "comparing: the replica crashes, and writes do not wait for the end of the time",
    () => comparing().see(1_020, [masterAt("a", 1_019), HEIR_GONE]),
    { kind: "rolled-back", reason: /b:6379 is gone/ },
    ["a: unpause"],
  ],
  [
    "draining: the replica crashes, and writes do not wait for the end of the time",
    () =>
      new Play(NEVER)
        .see(996, well(995))
        .ask(1_000)
        .see(1_020, [masterAt("a", 1_019), HEIR_GONE]),
    { kind: "rolled-back", reason: /b:6379 is gone/ },
    [],
  ],
  [
    "handing-over: the replica crashes, and writes do not wait for the end of the time",
    () =>
      handing()
        .see(1_020, [masterAt("a", 1_019, HANDING), HEIR_GONE])
        .ended(1_022, "abort-failover")
        .see(1_024, [masterAt("a", 1_023), HEIR_GONE]),
    { kind: "rolled-back", reason: /b:6379 is gone/ },
    ["a: abort-failover"],
  ],
];

describe("a switch that fails", () => {
  it.each(ENDINGS)("%s", (_title, make, answer, runs) => {
    const play = make();
    expect(play.answers).toHaveLength(1);
    const [got] = play.answers;
    const { kind, reason } = answer as { kind: string; reason: RegExp };
    expect(got).toMatchObject({ kind });
    if (got?.kind === "open" || got?.kind === "rolled-back") expect(got.reason).toMatch(reason);
    expect([play.phase, play.isHolding]).toEqual(["none", false]);
    const begin = /: (failover to|pause-writes)/;
    expect(play.allRuns.filter((run) => !begin.test(run))).toEqual(runs);
  });

  it("lets writes go at the end of its time, also while it is not known how it ends", () => {
    const play = handing().see(2_000, [masterAt("a", 1_999, HANDING), replicaAt("b", 1)]);
    expect([play.phase, play.isHolding, play.answers]).toEqual(["aborting", false, []]);
  });

  it("that is accepted after its time is done all the same", () => {
    const play = handing().see(2_000, [masterAt("a", 1_999, HANDING), replicaAt("b", 1)]);
    play.see(2_100, allFollow(2_099), SWITCHED);
    play.see(2_110, allFollow(2_109), SWITCHED);
    expect(play.answers).toMatchObject([{ kind: "done", report: { stallMs: 1_000 } }]);
    expect(play.isHolding).toBe(false);
  });

  it("is followed by a promotion where the proxy promotes", () => {
    const play = begun(SELF).ended(1_006, "failover");
    const crashed = (sentAtMs: number) => [
      lost(masterAt("a", 1_008), "unreachable"),
      ...[replicaAt("b", sentAtMs, { linkUp: false }), replicaAt("c", sentAtMs, { linkUp: false })],
    ];
    const held = { hold: "connection-lost" as const };
    play.see(1_020, crashed(1_019), held);
    expect(play.answers).toMatchObject([{ kind: "open" }]);
    play.see(1_040, crashed(1_039), held).see(1_060, crashed(1_059), held);
    expect(play.see(1_320, crashed(1_319), held).confirmed(1_321).runs).toEqual(["b: promote"]);
  });
});
