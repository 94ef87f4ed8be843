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
  sight,
  UNKNOWN,
  UNREACHABLE,
} from "./sight.ts";

const WELL = [masterAt("a", 999), replicaAt("b", 999), replicaAt("c", 999)];
const HELD = { hold: "connection-lost" as const };
const left = (name: string, sentAtMs: number, word = {}) =>
  replicaAt(name, sentAtMs, { linkUp: false, ...word });
/** a refuses connections, b and c have lost their links; b is ahead. */
const crashed = (sentAtMs: number): NodeView[] => [
  ...[
    lost(masterAt("a", 999), "unreachable"),
    left("b", sentAtMs, { appliedOffset: 120 }),
    left("c", sentAtMs),
  ],
];
const B_IS_MASTER = { of: "b", replid: "H2", epoch: 2 };
const promotedB = (sentAtMs: number) => [
  ...[lost(masterAt("a", 999), "unreachable"), masterAt("b", sentAtMs, { replid: "H2", replid2: "H1" })],
  left("c", sentAtMs),
];

/** Crashed since 1000, noticed at 1005, certain at 1030: gone at 1280. */
function crash(settings = SELF): Play {
  const play = new Play(settings).do(0, { kind: "standing", standing: { kind: "sole" } });
  play.see(1_000, WELL);
  play.see(1_005, [lost(masterAt("a", 999), "closed"), replicaAt("b", 999), replicaAt("c", 999)], HELD);
  play.see(1_030, crashed(1_025), HELD);
  return play;
}

/** b has been told. */
function promoting(): Play {
  return crash().see(1_280, crashed(1_275), HELD).confirmed(1_281);
}

describe("a master that crashed", () => {
  it("is suspected at once and replaced after crashGrace, after a last look at the leases", () => {
    const play = crash();
    expect(play.all.some((one) => one.kind === "tell" && one.what === "master-suspected")).toBe(true);
    expect(play.effects).toContainEqual({ kind: "wake", atMs: 1_280 });
    play.see(1_279, crashed(1_274), HELD);
    expect(play.phase).toBe("none");
    play.tick(1_280);
    expect([play.phase, play.allRuns]).toEqual(["confirming", []]);
    expect(play.effects).toContainEqual({ kind: "confirm", nodes: [at("b"), at("c")] });
    play.confirmed(1_285);
    expect([play.phase, play.runs, play.isHolding]).toEqual(["promoting", ["b: promote"], true]);
    play.ended(1_290, "promote");
    expect(play.effects).toContainEqual({ kind: "look", nodes: [at("b")] });
    play.see(1_295, promotedB(1_292), B_IS_MASTER);
    expect([play.phase, play.isHolding, play.state.outage]).toEqual(["none", false, null]);
    expect(play.obstacles).toEqual([]);
  });

  it.each([NEVER, BY_SENTINEL])("is not replaced by us where we may not", (settings) => {
    const play = crash(settings).see(60_000, crashed(59_999), HELD);
    expect([play.phase, play.allRuns, play.obstacles]).toEqual(["none", [], []]);
  });

  it("that is back within the grace is left alone", () => {
    const play = crash().see(1_200, [masterAt("a", 1_195), left("b", 1_195), left("c", 1_195)]);
    expect(play.told).toEqual(["master-recovered"]);
    play.see(1_300, [masterAt("a", 1_295), replicaAt("b", 1_295), replicaAt("c", 1_295)]);
    expect([play.phase, play.allRuns, play.isHolding]).toEqual(["none", [], false]);
  });

  it("that is back during the last look at the leases is left alone", () => {
    const play = crash().see(1_280, crashed(1_275), HELD);
    expect(play.phase).toBe("confirming");
    play.see(1_283, [masterAt("a", 1_282), left("b", 1_282), left("c", 1_282)]);
    expect([play.confirmed(1_285).allRuns, play.phase, play.isHolding]).toEqual([[], "none", false]);
  });

  it("is not replaced when a second proxy promotes; it is said, and tried again", () => {
    const play = crash().see(1_280, crashed(1_275), HELD);
    play.do(1_285, { kind: "confirmed", standing: { kind: "refused", reason: "proxy 2 does" } });
    expect([play.allRuns, play.isHolding]).toEqual([[], false]);
    expect(play.obstacles).toEqual(["another-promoter"]);
    // A look takes a millisecond: they are not done over and over.
    expect([play.phase, play.effects]).toEqual(["none", [{ kind: "wake", atMs: 1_385 }]]);
    play.see(1_384, crashed(1_383), HELD);
    expect(play.phase).toBe("none");
    play.tick(1_385);
    expect(play.phase).toBe("confirming");
    expect(play.confirmed(1_386).runs).toEqual(["b: promote"]);
  });

  it("is replaced at once when the leases allow it after they have refused", () => {
    const play = crash().see(1_280, crashed(1_275), HELD);
    play.do(1_285, { kind: "confirmed", standing: { kind: "refused", reason: "proxy 2 does" } });
    play.do(1_290, { kind: "standing", standing: { kind: "sole" } });
    expect(play.confirmed(1_291).runs).toEqual(["b: promote"]);
  });

  it("is replaced when a look was refused by what is not so any more, and nobody else told anything", () => {
    const play = crash().do(1_200, { kind: "standing", standing: { kind: "sole" } });
    play.see(1_280, crashed(1_275), HELD);
    play.do(1_285, { kind: "confirmed", standing: { kind: "refused", reason: "a late answer" } });
    expect([play.state.standing.kind, play.obstacles]).toEqual(["sole", ["another-promoter"]]);
    expect(play.tick(1_385).phase).toBe("confirming");
    expect(play.confirmed(1_386).runs).toEqual(["b: promote"]);
  });

  it("is replaced by nobody here while another proxy promotes, which is said in calm times, too", () => {
    const refused = { kind: "refused", reason: "the proxy at first:6379 promotes" } as const;
    const play = new Play(SELF).see(0, [masterAt("a", 0), replicaAt("b", 0), replicaAt("c", 0)]);
    play.do(10, { kind: "standing", standing: refused });
    // A proxy that has just begun is refused until it has looked everywhere.
    expect(play.obstacles).toEqual([]);
    expect(play.effects).toContainEqual({ kind: "wake", atMs: 2_010 });
    expect(play.tick(2_010).state.obstacles).toEqual([
      { kind: "another-promoter", node: null, detail: "the proxy at first:6379 promotes" },
    ]);
    play.see(3_000, [masterAt("a", 2_999), replicaAt("b", 2_999), replicaAt("c", 2_999)]);
    play.see(3_005, [lost(masterAt("a", 2_999), "closed"), replicaAt("b", 2_999)], HELD);
    expect(play.obstacles).toEqual(["another-promoter"]);
    play.see(3_010, [masterAt("a", 3_009), replicaAt("b", 3_009), replicaAt("c", 3_009)]);
    expect(play.obstacles).toEqual(["another-promoter"]);
    play.do(3_020, { kind: "standing", standing: { kind: "sole" } });
    expect(play.obstacles).toEqual([]);
    play.do(3_030, { kind: "standing", standing: refused }).tick(5_029);
    expect(play.obstacles).toEqual([]);
  });

  it("whose replica came to have a link meanwhile is judged anew", () => {
    const play = crash().see(1_280, crashed(1_275), HELD);
    play.see(1_283, [lost(masterAt("a", 999), "unreachable"), replicaAt("b", 1_282), left("c", 1_282)], HELD);
    expect([play.confirmed(1_285).allRuns, play.phase]).toEqual([[], "none"]);
  });

  it("is not replaced by the word of a proxy that reaches nobody, which is said", () => {
    const play = crash();
    const nobody = (nowMs: number) => crashed(nowMs).map((one) => lost(one, "unreachable"));
    for (let nowMs = 1_300; nowMs < 9_000; nowMs += 100) play.see(nowMs, nobody(nowMs - 5), HELD);
    expect([play.allRuns, play.obstacles]).toEqual([[], ["no-candidate"]]);
    // Back among the others: from now on the time counts.
    play.see(
      9_000,
      crashed(8_995).map((one, index) => (index === 0 ? lost(one, "silent") : one)),
      HELD,
    );
    expect(play.allRuns).toEqual([]);
  });

  it("is waited for when the most advanced one is lost at the last moment; then the other one is taken", () => {
    const play = crash().see(1_280, crashed(1_275), HELD);
    const see = (nowMs: number): void => {
      const [a, b, c] = crashed(nowMs - 1) as [NodeView, NodeView, NodeView];
      play.see(nowMs, [a, lost(b, "unreachable"), c], HELD);
    };
    see(1_283);
    expect(play.confirmed(1_285).runs).toEqual([]);
    see(3_000);
    expect(play.runs).toEqual([]);
    see(4_000);
    expect(play.confirmed(4_001).runs).toEqual(["c: promote"]);
  });
});

describe("a master that was never met", () => {
  const seen = (play: Play, atMs: number): Play => {
    const group = sight([left("b", atMs - 5), left("c", atMs - 5)], { hold: "no-master-yet" });
    return play.do(atMs, {
      ...{ kind: "seen" as const },
      group: { ...group, master: null, epoch: { ...group.epoch, master: null, history: null } },
    });
  };

  it("is not replaced, and that is said when it lasts", () => {
    const play = seen(new Play(SELF), 1_000);
    expect(play.obstacles).toEqual([]);
    expect(play.effects).toContainEqual({ kind: "wake", atMs: 3_000 });
    seen(play, 60_000);
    expect([play.obstacles, play.allRuns]).toEqual([["no-candidate"], []]);
    expect(play.state.obstacles[0]?.detail).toMatch(/never met the master.*failover.stateFile/);
    expect(play.see(60_100, WELL).obstacles).not.toContain("no-candidate");
  });

  it("is no obstacle where nobody is to promote", () => {
    expect(seen(seen(new Play(NEVER), 1_000), 60_000).obstacles).toEqual([]);
  });
});

describe("a promotion that fails", () => {
  it.each([refusedWith("NOPERM"), UNREACHABLE])(
    "by the node's own word: the next best is told at once",
    (result) => {
      const play = promoting().ended(1_290, "promote", result);
      expect([play.phase, play.isHolding, play.told]).toEqual(["confirming", false, ["promotion-failed"]]);
      play.confirmed(1_311);
      expect(play.runs).toEqual(["c: promote"]);
    },
  );

  it("everywhere is told, and tried again a second later", () => {
    const play = promoting().ended(1_290, "promote", refusedWith("NOPERM"));
    play.see(1_310, crashed(1_305), HELD).confirmed(1_311).ended(1_320, "promote", refusedWith("NOPERM"));
    play.see(1_400, crashed(1_395), HELD);
    expect([play.phase, play.obstacles]).toEqual(["none", ["no-candidate"]]);
    play.see(2_291, crashed(2_286), HELD).confirmed(2_292);
    expect(play.runs).toEqual(["b: promote"]);
  });

  it.each([DONE, UNKNOWN])("because it is a replica still: given up as soon as it says so", (result) => {
    const play = promoting().ended(1_290, "promote", result);
    play.see(1_292, crashed(1_289), HELD);
    expect([play.phase, play.isHolding]).toEqual(["promoting", true]);
    play.see(1_300, crashed(1_295), HELD);
    expect([play.phase, play.isHolding, play.told]).toEqual(["none", false, ["promotion-failed"]]);
  });

  it.each([DONE, UNKNOWN])("because nobody accepts it: writes are held for two seconds at most", (result) => {
    const play = promoting().ended(1_290, "promote", result);
    const [a, b, c] = crashed(1_289) as [NodeView, NodeView, NodeView];
    const silent = [a, lost(b, "silent"), c];
    play.see(3_289, silent, HELD);
    expect(play.isHolding).toBe(true);
    play.see(3_290, silent, HELD);
    expect([play.phase, play.isHolding]).toEqual(["none", false]);
  });

  it.each([DONE, UNKNOWN])("because its process is gone: another as good is told at once", (result) => {
    const play = promoting().ended(1_290, "promote", result);
    const [a, b] = crashed(1_289) as [NodeView, NodeView, NodeView];
    const without = (sentAtMs: number) => [
      ...[a, lost(b, "unreachable"), left("c", sentAtMs, { appliedOffset: 120 })],
    ];
    play.see(1_301, without(1_300), HELD);
    // Should it be carried out after all, it is not to be believed.
    expect(play.effects).toContainEqual({ kind: "renounce", node: at("b") });
    expect([play.phase, play.isHolding, play.told]).toEqual(["none", false, ["promotion-failed"]]);
    play.see(1_321, without(1_320), HELD);
    expect(play.confirmed(1_322).runs).toEqual(["c: promote"]);
  });

  it("keeps writes held while its end is not known, also when the former master is back", () => {
    const play = promoting();
    play.see(1_300, [masterAt("a", 1_295), left("b", 1_295), left("c", 1_295)]);
    expect([play.phase, play.isHolding]).toEqual(["promoting", true]);
    play.ended(1_310, "promote");
    play.see(
      1_320,
      [masterAt("a", 1_315), masterAt("b", 1_315, { replid: "H2", replid2: "H1" })],
      B_IS_MASTER,
    );
    expect([play.phase, play.isHolding]).toEqual(["none", false]);
  });
});

describe("a master that hangs", () => {
  const SILENT = { hold: "silent" as const };
  const silent = (sentAtMs: number, word = {}) => [
    ...[lost(masterAt("a", 999), "silent"), replicaAt("b", sentAtMs, word), replicaAt("c", sentAtMs, word)],
  ];
  const hang = () => new Play(SELF).see(1_000, WELL).see(2_000, silent(1_990), SILENT);

  const alone = { linkUp: false };

  it("is replaced downAfter after it was last well, when its replicas do not reach it either", () => {
    const play = hang();
    play.see(3_799, silent(3_790), SILENT);
    expect([play.phase, play.runs]).toEqual(["none", []]);
    play.see(3_800, silent(3_795), SILENT);
    expect([play.phase, play.runs]).toEqual(["none", ["b: relink", "c: relink"]]);
    play.relinked(3_805);
    play.see(3_999, silent(3_998, alone), SILENT);
    expect(play.phase).toBe("none");
    expect(play.see(4_001, silent(4_000, alone), SILENT).confirmed(4_002).runs).toEqual(["b: promote"]);
  });

  it("is not replaced while a replica reaches it, however long it has not heard from it, and that is said", () => {
    const play = hang();
    let asked = 0;
    for (let atMs = 2_100; atMs < 20_000; atMs += 100) {
      play.see(atMs, silent(atMs - 10, { heardSecondsAgo: 9 }), SILENT);
      asked += play.runs.length;
      play.relinked(atMs + 5);
      if (atMs > 4_200) expect(play.obstacles).toEqual(["master-heard-elsewhere a"]);
    }
    // Two replicas, once within downAfter.
    expect(asked).toBe(2 * 6);
    expect(play.allRuns.every((run) => run.endsWith("relink"))).toBe(true);
    play.see(20_000, [masterAt("a", 19_990), replicaAt("b", 19_990)]);
    expect(play.obstacles).toEqual([]);
  });

  it("is not replaced while one of two replicas reaches it", () => {
    const play = hang().see(4_000, silent(3_995), SILENT).relinked(4_005);
    const [a, b] = silent(4_300, alone);
    play.see(4_301, [...[a, b].filter((one) => one !== undefined), replicaAt("c", 4_300)], SILENT);
    expect([play.phase, play.obstacles]).toEqual(["none", ["master-heard-elsewhere a"]]);
  });

  it("asks no replica again before the question to it has ended, and then it counts anew", () => {
    const play = hang().see(4_000, silent(3_995), SILENT);
    const [b = 0, c = 0] = play.effects.flatMap((one) => (one.kind === "run" ? [one.id] : []));
    play.do(4_005, { kind: "ended", id: b, result: DONE }).see(4_010, silent(4_008), SILENT);
    expect(play.obstacles).toEqual(["master-heard-elsewhere a"]);
    expect(play.see(7_000, silent(6_995), SILENT).runs).toEqual(["b: relink"]);
    expect(play.do(7_001, { kind: "ended", id: c, result: DONE }).runs).toEqual(["c: relink"]);
  });

  it.each(["6.0.16", "5.0.14"])("waits longer for servers that try once a second: %s", (version) => {
    const play = hang().see(4_000, silent(3_995, { version }), SILENT).relinked(4_005);
    play.see(5_304, silent(5_303, { ...alone, version }), SILENT);
    expect(play.phase).toBe("none");
    expect(play.see(5_307, silent(5_306, { ...alone, version }), SILENT).phase).toBe("confirming");
  });

  it("is not replaced while a replica says it heard from it, and that is said", () => {
    const play = hang();
    for (let atMs = 2_100; atMs < 20_000; atMs += 100) {
      play.see(atMs, silent(atMs - 10, { heardSecondsAgo: 1 }), SILENT);
      expect(play.allRuns).toEqual([]);
      if (atMs > 4_100) expect(play.obstacles).toEqual(["master-heard-elsewhere a"]);
    }
  });

  it.each([refusedWith("NOPERM"), UNREACHABLE, UNKNOWN])("is replaced when nobody can be asked", (result) => {
    const play = hang().see(4_000, silent(3_995), SILENT).relinked(4_005, result);
    expect(play.see(4_010, silent(4_008), SILENT).confirmed(4_011).runs).toEqual(["b: promote"]);
  });

  it("is replaced although the replica has half of a command that never comes to an end", () => {
    const half = { appliedOffset: 100, receivedOffset: 130 };
    const play = hang().see(4_000, silent(3_995, half), SILENT).relinked(4_005, refusedWith("NOPERM"));
    expect(play.phase).toBe("none");
    for (let atMs = 4_050; atMs <= 6_000; atMs += 50) play.see(atMs, silent(atMs - 5, half), SILENT);
    expect(play.phase).toBe("confirming");
    expect(play.confirmed(6_001).runs).toEqual(["b: promote"]);
  });

  it("is replaced by the replica that has applied most, when none comes to an end", () => {
    const views = (sentAtMs: number) => [
      lost(masterAt("a", 999), "silent"),
      replicaAt("b", sentAtMs, { appliedOffset: 100, receivedOffset: 130 }),
      replicaAt("c", sentAtMs, { appliedOffset: 110, receivedOffset: 110 }),
    ];
    const play = hang().see(4_000, views(3_995), SILENT).relinked(4_005, refusedWith("NOPERM"));
    for (let atMs = 4_050; atMs <= 6_000; atMs += 50) play.see(atMs, views(atMs - 5), SILENT);
    expect(play.confirmed(6_001).runs).toEqual(["c: promote"]);
  });
});

describe("a master whose process was replaced", () => {
  it("without our history is replaced at once", () => {
    const empty = masterAt("a", 1_015, { run: "a2", replid: "X", keys: 0 });
    const play = new Play(SELF).see(1_000, WELL);
    play.see(1_010, [empty, left("b", 1_005), left("c", 1_005)], { hold: "history-refused" });
    play.see(1_020, [empty, left("b", 1_015), left("c", 1_015)], { hold: "history-refused" });
    expect(play.confirmed(1_021).runs).toEqual(["b: promote"]);
  });
});

describe("the flap guard", () => {
  const gone = lost(masterAt("b", 1_990, { replid: "H2", replid2: "H1" }), "unreachable");
  const after = { ...B_IS_MASTER, hold: "connection-lost" as const };

  it("nothing is promoted while nobody has the history of the master that is gone", () => {
    const play = new Play(SELF).see(1_990, promotedB(1_985), B_IS_MASTER);
    const back = masterAt("a", 2_000, { run: "a2" });
    for (let atMs = 2_000; atMs < 10_000; atMs += 100) {
      play.see(atMs, [back, gone, left("c", atMs - 5)], after);
    }
    expect(play.allRuns.filter((run) => run.endsWith("promote"))).toEqual([]);
    expect(play.obstacles).toEqual(["no-candidate"]);
    expect(play.state.obstacles[0]?.detail).toContain("c:6379: other-history");
  });

  it("as soon as one has it, it is promoted; there is no cool-down", () => {
    const play = new Play(SELF).see(1_990, promotedB(1_985), B_IS_MASTER);
    const has = (sentAtMs: number) => left("c", sentAtMs, { of: "b", replid: "H2" });
    play.see(2_000, [gone, has(1_995)], after).see(2_020, [gone, has(2_015)], after);
    expect(play.see(2_270, [gone, has(2_265)], after).confirmed(2_271).runs).toEqual(["c: promote"]);
  });
});
