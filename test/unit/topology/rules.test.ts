import { describe, expect, it } from "vitest";
import type { Evidence } from "../../../src/topology/epoch.ts";
import { adopt, renounce, suspect } from "../../../src/topology/rules.ts";
import { at, hex, MAX_LAG_MS, master, replica, Story, unanswered, wellGroup } from "./nodes.ts";

/** b, promoted from H1 at offset `from`. */
const promoted = (name: string, replid: string, from = 100, more = {}) =>
  master(name, { replid, replid2: "H1", secondReplOffset: from + 1, ...more });

function evidenceOf(story: Story, kind: Evidence["kind"], name: string, epoch = story.epoch.number): void {
  const evidence: Evidence = { kind, node: at(name), epoch };
  story.belief = suspect(story.belief, evidence, story.nowMs + 50);
}

describe("the first master", () => {
  it("is the only claimant, once every seed has answered or failed", () => {
    const story = new Story();
    story.round(master("a"), () => unanswered("b", "never"));
    expect(story.epoch).toMatchObject({ number: 0, master: null, holdCause: "no-master-yet" });
    const { change } = story.round(master("a"), () => unanswered("b", "unreachable"));
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    expect(story.epoch.history).toEqual({ replid: hex("H1"), offset: 100 });
    expect(change).toMatchObject({ kind: "switch", from: null, to: at("a"), reason: "first", lostBytes: 0 });
  });

  it("is not a node that is still loading", () => {
    const story = new Story();
    story.round(master("a", { loading: true }), () => unanswered("b", "unreachable"));
    expect(story.epoch).toMatchObject({ number: 0, holdCause: "loading" });
  });

  it("is of two claimants the one that continues the other", () => {
    const story = new Story();
    story.round(master("a"), promoted("b", "H2"));
    expect(story.epoch.master).toBe(at("b"));
  });

  it("is of three claimants the end of the chain", () => {
    const story = new Story();
    story.round(master("a"), master("b", { replid: "H3", replid2: "H2" }), promoted("c", "H2"));
    expect(story.epoch.master).toBe(at("b"));
  });

  it("is of two strangers the one that all replicas follow", () => {
    const story = new Story();
    story.round(master("a"), master("b", { replid: "X" }), replica("c", { of: "a" }));
    expect(story.epoch.master).toBe(at("a"));
  });

  it.each([
    ["nobody follows either", [master("a"), master("b", { replid: "X" })]],
    [
      "each has a replica",
      [master("a"), master("b", { replid: "X" }), replica("c"), replica("d", { replid: "X" })],
    ],
    ["both were promoted from one history", [promoted("a", "H2"), promoted("b", "H3")]],
    [
      "a replica with data belongs to a history it does not continue",
      [master("a", { replid: "X" }), replica("b", { of: "z" })],
    ],
  ])("is nobody when claimants contradict each other: %s (42)", (_, seen) => {
    const story = new Story();
    story.round(...seen);
    expect(story.epoch).toMatchObject({ number: 0, master: null, holdCause: "no-common-truth" });
    expect(story.problems).toEqual(["no-common-truth"]);
  });

  it("is the only claimant also while a replica of it has just begun to synchronise", () => {
    const story = new Story();
    story.round(master("a"), replica("b", { replid: "old", linkUp: false, syncInProgress: true }));
    expect(story.epoch.master).toBe(at("a"));
    expect(story.readers).toEqual([]);
  });
});

describe("a promotion", () => {
  it("is followed at once, also while the old master still claims to be one (40)", () => {
    const story = wellGroup();
    const { change } = story.round(master("a"), promoted("b", "H2"), replica("c"));
    expect(story.epoch).toMatchObject({ number: 2, master: at("b"), holdCause: null, readable: [] });
    expect(change).toMatchObject({ from: at("a"), to: at("b"), reason: "promoted", lostBytes: 0 });
    story.round(master("a"), promoted("b", "H2"), replica("c"));
    expect(story.problems).toEqual(["claimant-refused a"]);
    expect(story.readers).toEqual([]);
  });

  describe("that was ordered here and given up", () => {
    const written = (offset: number) => ({ masterReplOffset: offset });
    const givenUp = (): Story => {
      const story = wellGroup();
      story.belief = renounce(story.belief, story.views, at("b"));
      return story;
    };

    it("is refused as soon as the master was written: b would lose that", () => {
      const story = givenUp();
      story.round(master("a", written(300)), story.failing("b", "silent"), replica("c"));
      const { change } = story.round(master("a", written(400)), promoted("b", "H2"), replica("c"));
      expect([change, story.epoch.master, story.problems]).toEqual([null, at("a"), ["claimant-refused b"]]);
      story.round(story.failing("a", "unreachable"), promoted("b", "H2"), replica("c", { linkUp: false }));
      expect(story.epoch).toMatchObject({ master: at("a"), holdCause: "connection-lost" });
    });

    it("is refused while the master is well: what it took since it was asked last is not known", () => {
      const story = givenUp();
      const { change } = story.round(master("a"), promoted("b", "H2"), replica("c"));
      expect([change, story.epoch.master, story.problems]).toEqual([null, at("a"), ["claimant-refused b"]]);
    });

    it("is accepted when the master is gone and was not: nothing is lost", () => {
      const story = givenUp();
      story.round(story.failing("a", "unreachable"), promoted("b", "H2"));
      expect(story.epoch).toMatchObject({ master: at("b"), holdCause: null });
    });

    it("is no reason to doubt the one that was promoted in its place", () => {
      const story = givenUp();
      story.round(story.failing("a", "unreachable"), promoted("b", "H2"), promoted("c", "H3"));
      expect(story.epoch).toMatchObject({ master: at("c"), holdCause: null });
    });

    it("is forgotten when the node has followed the master further: others may promote it", () => {
      const story = givenUp();
      story.round(master("a", written(300)), replica("b", { appliedOffset: 300 }), replica("c"));
      story.round(master("a", written(400)), promoted("b", "H2", 300), replica("c"));
      expect(story.epoch.master).toBe(at("b"));
    });

    it("means the process: a restarted one is judged as any other", () => {
      const story = givenUp();
      story.round(master("a", written(300)), replica("b", { run: "bb", appliedOffset: 300 }), replica("c"));
      story.round(master("a", written(300)), promoted("b", "H2", 300, { run: "bb" }), replica("c"));
      expect(story.epoch.master).toBe(at("b"));
    });
  });

  it("of a lagging replica is accepted, and what it lacks is reported (39)", () => {
    const story = wellGroup();
    story.round(master("a", { masterReplOffset: 500 }), replica("b", { appliedOffset: 300 }), replica("c"));
    const { change } = story.round(promoted("b", "H2", 300), story.failing("a", "unreachable"));
    expect(change).toMatchObject({ to: at("b"), lostBytes: 200 });
  });

  it("keeps what was answered before the newest offset that it contains was reported (33)", () => {
    const story = wellGroup();
    const wellMs = story.nowMs;
    story.round(master("a", { masterReplOffset: 500 }), replica("b"), replica("c"));
    const seenMs = story.nowMs;
    const lossy = story.round(promoted("b", "H2", 300), story.failing("a", "unreachable")).change;
    expect(lossy?.keptUntilMs).toBeGreaterThan(0);
    expect(lossy?.keptUntilMs).toBeLessThanOrEqual(wellMs);
    expect(story.belief.master?.samples.map(({ offset }) => offset)).toEqual([100]);
    const other = wellGroup();
    other.round(master("a", { masterReplOffset: 500 }), replica("b", { appliedOffset: 500 }), replica("c"));
    const kept = other.round(promoted("b", "H2", 500), other.failing("a", "unreachable")).change;
    expect(kept?.keptUntilMs).toBeGreaterThan(wellMs);
    expect(kept?.keptUntilMs).toBeLessThanOrEqual(seenMs);
  });

  it("right behind another one keeps what the first history proves (16, 33)", () => {
    const story = wellGroup();
    const wellMs = story.nowMs;
    story.round(promoted("b", "H2", 100, { masterReplOffset: 150 }), story.failing("a", "unreachable"));
    story.round(replica("c", { of: "b", replid: "H2", appliedOffset: 120 }));
    const { change } = story.round(
      master("c", { replid: "H3", replid2: "H2", secondReplOffset: 121, masterReplOffset: 121 }),
      story.failing("b", "unreachable"),
    );
    expect(change).toMatchObject({ to: at("c"), reason: "promoted", lostBytes: 30 });
    expect(change?.keptUntilMs).toBeGreaterThan(0);
    expect(change?.keptUntilMs).toBeLessThanOrEqual(wellMs);
  });

  it("that is taken back proves nothing by what was seen of it: what was lost is there again (7, 40)", () => {
    const story = wellGroup();
    story.round(master("a"), promoted("b", "H2"), replica("c"));
    expect(story.epoch.master).toBe(at("b"));
    // Sentinel does not agree: a goes on, and b is made its replica. What a answered meanwhile c lacks.
    const back = master("a", { masterReplOffset: 150 });
    const { change } = story.round(back, replica("b", { appliedOffset: 150 }), replica("c"));
    expect(change).toMatchObject({ to: at("a"), reason: "unanimous", lostBytes: 0 });
    const proven = new Map(story.epoch.readable.map(({ id, provenAtMs }) => [id, provenAtMs]));
    expect(proven.get(at("b"))).toBeGreaterThan(0);
    expect(proven.get(at("c")) ?? Number.NEGATIVE_INFINITY).toBe(Number.NEGATIVE_INFINITY);
  });

  it("counts as lost what only another replica was seen to have", () => {
    const story = wellGroup();
    story.round(story.failing("a", "unreachable"), replica("c", { appliedOffset: 180, linkUp: false }));
    const { change } = story.round(promoted("b", "H2"));
    expect(change).toMatchObject({ lostBytes: 80 });
  });

  it("missed between two probes is followed along the chain", () => {
    const story = wellGroup();
    const second = master("c", { replid: "H3", replid2: "H2", secondReplOffset: 120 });
    const { change } = story.round(story.failing("a", "unreachable"), promoted("b", "H2", 90), second);
    expect(change).toMatchObject({ to: at("c"), reason: "promoted", lostBytes: 10 });
    expect(story.epoch.number).toBe(2);
  });

  it("of two nodes from one history at the same time is no common truth, alive or not (42)", () => {
    const story = wellGroup();
    story.round(master("a"), promoted("b", "H2"), promoted("c", "H3"));
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: "no-common-truth" });
    // The silence of one does not make the other one true.
    story.round(story.failing("a", "unreachable"), story.failing("c", "silent"), promoted("b", "H2"));
    expect(story.epoch.holdCause).toBe("no-common-truth");
    // Its word that it is a replica does.
    const { change } = story.round(replica("c", { replid: "H2", of: "b" }));
    expect(change).toMatchObject({ to: at("b"), reason: "promoted" });
  });

  it("of a second node, seen later, is refused and reported (40)", () => {
    const story = wellGroup();
    story.round(story.failing("a", "unreachable"), promoted("b", "H2"));
    const { change } = story.round(promoted("b", "H2"), promoted("c", "H3"));
    expect(change).toBeNull();
    expect(story.epoch).toMatchObject({ number: 2, master: at("b"), holdCause: null });
    expect(story.problems).toEqual(["claimant-refused c"]);
  });

  it("that was refused stays refused when its history becomes ours again", () => {
    const story = wellGroup();
    story.round(master("a"), promoted("b", "H2"), replica("c"));
    story.round(promoted("c", "H3")); // the second one: refused
    expect(story.problems).toEqual(["claimant-refused a", "claimant-refused c"]);
    // b returns to a, which is master of H1 again; c still claims to continue H1.
    story.round(replica("b", { replid: "H1", of: "a" }), story.failing("c", "silent"));
    expect(story.epoch).toMatchObject({ number: 3, master: at("a") });
    story.round(master("a"), replica("b"), promoted("c", "H3"));
    expect(story.epoch).toMatchObject({ number: 3, master: at("a"), holdCause: null });
    expect(story.problems).toEqual(["claimant-refused c"]);
  });

  it("of a node whose connections broke since it answered waits for the next answer", () => {
    const story = wellGroup();
    evidenceOf(story, "connection-lost", "b");
    story.nowMs -= 60;
    story.round(master("a"), promoted("b", "H2"));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: null });
    story.round(promoted("b", "H2"));
    expect(story.epoch.number).toBe(2);
  });
});

describe("a claimant that was not promoted", () => {
  const restarted = (offset: number) => promoted("b", "H2", offset, { run: "b2" });

  it("is refused while the master is well: one started as a master by mistake gets no write (40)", () => {
    const story = wellGroup();
    for (let i = 0; i < 3; i++) {
      story.round(master("a"), restarted(100));
      expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
      expect(story.problems).toEqual(["claimant-refused b"]);
      expect(story.readers).toEqual(["c"]);
    }
    // Not even when the master goes afterwards: it was no answer to that.
    story.round(story.failing("a", "unreachable"), restarted(100));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "connection-lost" });
    expect(story.problems).toEqual(["claimant-refused b"]);
  });

  it("is taken when the master is gone and it has all that was ever seen", () => {
    const story = wellGroup();
    story.round(story.failing("a", "unreachable"));
    const { change } = story.round(restarted(100));
    expect(change).toMatchObject({ to: at("b"), reason: "complete", lostBytes: 0 });
  });

  it("is not taken when the master is gone and it lacks something", () => {
    const story = wellGroup();
    story.round(story.failing("a", "unreachable"), restarted(99));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "connection-lost" });
    expect(story.problems).toEqual(["claimant-refused b"]);
    expect(story.readers).toEqual(["c"]);
  });

  it("is taken when everybody follows it and nobody has our history any more", () => {
    const story = wellGroup();
    const stranger = master("b", { replid: "X", run: "b2" });
    story.round(story.failing("a", "unreachable"), stranger);
    expect(story.epoch.number).toBe(1);
    const { change } = story.round(stranger, replica("c", { replid: "X", of: "b" }));
    expect(change).toMatchObject({ to: at("b"), reason: "unanimous", lostBytes: null });
  });

  it("is not taken alone: being the only one that answers proves nothing", () => {
    const story = wellGroup();
    const stranger = master("b", { replid: "X", run: "b2" });
    story.round(story.failing("a", "unreachable"), story.failing("c", "silent"), stranger);
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "connection-lost" });
  });
});

describe("the master", () => {
  it.each([
    ["unreachable", "connection-lost"],
    ["closed", "connection-lost"],
    ["silent", "silent"],
    ["nonsense", "silent"],
    ["no-access", "silent"],
    ["loading", "loading"],
  ] as const)("that is %s is held for (%s), and nobody else is made master", (contact, cause) => {
    const story = wellGroup();
    for (let i = 0; i < 50; i++) {
      story.round(
        story.failing("a", contact),
        replica("b", { linkUp: false }),
        replica("c", { linkUp: false }),
      );
    }
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: cause });
    // Reads go on (6).
    expect(story.readers).toEqual(["b", "c"]);
    expect(story.problems).toEqual([]);
    story.round(master("a"), replica("b"), replica("c"));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: null });
    expect(story.last?.change).toBeNull();
  });

  it("that hands over with FAILOVER is held for without an alarm (37)", () => {
    const story = wellGroup();
    story.round(replica("a", { of: "b", linkUp: false }), replica("b"), replica("c"));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "role-changed" });
    expect(story.problems).toEqual([]);
    expect(story.readers).toEqual(["b", "c"]);
    story.round(replica("a", { of: "b", replid: "H2", replid2: "H1" }), promoted("b", "H2"), replica("c"));
    expect(story.epoch).toMatchObject({ number: 2, master: at("b"), holdCause: null });
  });

  it("that rolled FAILOVER back is the same master of the same epoch (38)", () => {
    const story = wellGroup();
    story.round(replica("a", { of: "b", linkUp: false }));
    const { change } = story.round(promoted("a", "H2"), replica("b"), replica("c"));
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    expect(story.epoch.history?.replid).toBe(hex("H2"));
    expect(change).toMatchObject({ kind: "return", reason: "re-promoted", lostBytes: 0 });
  });

  it("that follows a node never seen before proves its successor", () => {
    const story = wellGroup();
    const { change } = story.round(
      replica("a", { of: "d", replid: "H2", replid2: "H1" }),
      master("d", { replid: "H2", replid2: "H1", secondReplOffset: 91 }),
    );
    expect(change).toMatchObject({ to: at("d"), reason: "followed", lostBytes: 10 });
  });

  it("that follows a foreign history is left only when all do", () => {
    const story = wellGroup();
    const foreign = master("d", { replid: "X" });
    story.round(replica("a", { of: "d", replid: "X" }), foreign);
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "role-changed" });
    story.round(replica("b", { of: "d", replid: "X" }), foreign);
    expect(story.epoch.number).toBe(1);
    const { change } = story.round(replica("c", { of: "d", replid: "X" }), foreign);
    expect(change).toMatchObject({ to: at("d"), reason: "unanimous", lostBytes: null });
  });

  it("that restarted with all that was ever seen is the same one (13)", () => {
    const story = wellGroup();
    story.round(story.failing("a", "unreachable"));
    const { change } = story.round(promoted("a", "H2", 100, { run: "a2" }));
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    expect(change).toMatchObject({ kind: "return", reason: "restarted", lostBytes: 0, goneSinceMs: 302 });
  });

  it.each([
    ["as many keys as any replica", { keys: 5, aof: true }, "return"],
    ["more keys than any replica", { keys: 9, aof: true }, "return"],
    ["fewer keys than a replica", { keys: 4, aof: true }, null],
    ["no append-only file", { keys: 5, aof: false }, null],
    ["the history of a dump, rolled back", { keys: 5, aof: true, replid2: "H1", secondReplOffset: 61 }, null],
  ])("that restarted from its append-only file with %s (13, 41)", (_, word, kind) => {
    const story = wellGroup();
    story.round(
      story.failing("a", "unreachable"),
      replica("b", { linkUp: false }),
      replica("c", { linkUp: false }),
    );
    const { change } = story.round(master("a", { replid: "X", run: "a2", masterReplOffset: 0, ...word }));
    expect(change?.kind ?? null).toBe(kind);
    if (kind !== null) expect(change).toMatchObject({ reason: "reloaded", lostBytes: null });
    expect(story.epoch.holdCause).toBe(kind === null ? "history-refused" : null);
  });

  it("that restarted from its append-only file is refused while a node follows somebody else (41)", () => {
    const story = wellGroup();
    const reloaded = master("a", { replid: "X", run: "a2", aof: true, masterReplOffset: 0 });
    story.round(reloaded, replica("b", { linkUp: false }), replica("c", { of: "d", replid: "Y" }));
    expect(story.epoch.holdCause).toBe("history-refused");
  });

  it("that takes a new replication id without a restart stays the master", () => {
    const story = wellGroup();
    story.round(story.failing("b", "unreachable"), story.failing("c", "unreachable"));
    const { change } = story.round(master("a", { replid: "H2", masterReplOffset: 100 }));
    expect(change).toMatchObject({ kind: "return", reason: "renamed", lostBytes: 0 });
    expect(change?.keptUntilMs, "nothing that it answered can be lost (16, 33)").toBe(
      Number.POSITIVE_INFINITY,
    );
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
  });

  it("that was rolled back is refused, and taken when all have followed it (41)", () => {
    const story = wellGroup();
    const rolledBack = promoted("a", "H2", 60, { run: "a2" });
    const syncing = { replid: "H1", linkUp: false, syncInProgress: true };
    story.round(rolledBack, replica("b", { linkUp: false }), replica("c", syncing));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "history-refused" });
    expect(story.problems).toEqual(["history-refused a"]);
    expect(story.readers).toEqual(["b"]);
    story.round(rolledBack, replica("c", { replid: "H2" }));
    expect(story.epoch.holdCause).toBe("history-refused");
    const { change } = story.round(rolledBack, replica("b", { replid: "H2" }));
    expect(change).toMatchObject({ kind: "return", reason: "unanimous", lostBytes: 40 });
    expect(story.epoch).toMatchObject({ number: 1, holdCause: null });
  });

  it("that came back empty stays refused until an operator adopts it (41)", () => {
    const story = wellGroup();
    const empty = master("a", { replid: "X", run: "a2", keys: 0, masterReplOffset: 0 });
    story.round(empty, replica("b", { replid: "X", keys: 0 }), replica("c", { replid: "X", keys: 0 }));
    story.round(empty);
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "history-refused" });
    const moment = { nowMs: story.nowMs, maxLagMs: MAX_LAG_MS };
    expect(adopt(story.belief, story.views, at("b"), moment)).toEqual({ ok: false, reason: "not-a-master" });
    const result = adopt(story.belief, story.views, at("a"), moment);
    expect(result.ok && result.decision.belief.epoch).toMatchObject({ number: 1, holdCause: null });
    expect(result.ok && result.decision.change).toMatchObject({ kind: "return", reason: "operator" });
  });

  it("that was empty before may come back empty", () => {
    const story = new Story();
    story.round(master("a", { keys: 0 }), replica("b", { keys: 0 }));
    story.round(master("a", { replid: "X", run: "a2", keys: 0 }), replica("b", { replid: "X", keys: 0 }));
    expect(story.last?.change).toMatchObject({ kind: "return", reason: "unanimous" });
  });

  it("of a group of one may restart without proof, if it has data", () => {
    const story = new Story();
    story.round(master("a"));
    story.round(master("a", { replid: "X", run: "a2", keys: 0 }));
    expect(story.epoch.holdCause).toBe("history-refused");
    story.round(master("a", { replid: "X", run: "a2" }));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: null });
  });

  it("is not adopted over while it is well", () => {
    const story = wellGroup();
    story.round(master("d", { replid: "X" }));
    const moment = { nowMs: story.nowMs, maxLagMs: MAX_LAG_MS };
    const reasonFor = (name: string) => {
      const result = adopt(story.belief, story.views, at(name), moment);
      return result.ok ? null : result.reason;
    };
    expect(reasonFor("d")).toBe("master-is-well");
    expect(reasonFor("a")).toBe("already-master");
    expect(reasonFor("z")).toBe("unknown-node");
  });
});

describe("evidence", () => {
  it.each([
    ["connection-lost", "connection-lost"],
    ["connect-failed", "connection-lost"],
    ["not-master", "role-changed"],
    ["loading", "loading"],
  ] as const)("of %s holds the master until a later answer verifies it", (kind, cause) => {
    const story = wellGroup();
    evidenceOf(story, kind, "a");
    expect(story.epoch).toMatchObject({ number: 1, holdCause: cause });
    // The answer that was under way when it happened proves nothing.
    story.nowMs -= 100;
    story.round(master("a"));
    expect(story.epoch.holdCause).toBe(cause);
    story.round(master("a"));
    expect(story.epoch.holdCause).toBeNull();
  });

  it("marks what follows as seen by it", () => {
    const story = wellGroup();
    evidenceOf(story, "connection-lost", "a");
    const { change } = story.round(story.failing("a", "unreachable"), promoted("b", "H2"));
    expect(change).toMatchObject({ seenBy: "evidence", goneSinceMs: 250 });
  });

  it("from another epoch changes nothing", () => {
    const story = wellGroup();
    const before = story.belief;
    evidenceOf(story, "connection-lost", "a", 0);
    expect(story.belief).toBe(before);
  });

  it("about a replica takes it out until it answers again (3)", () => {
    const story = wellGroup();
    evidenceOf(story, "connection-lost", "b");
    expect(story.readers).toEqual(["c"]);
    expect(story.epoch.holdCause).toBeNull();
    story.round(master("a"), replica("b"));
    expect(story.readers).toEqual(["b", "c"]);
  });

  it("that a replica refuses stale reads counts until its link is up", () => {
    const story = wellGroup();
    evidenceOf(story, "link-down", "b");
    story.round(
      story.failing("a", "unreachable"),
      replica("b", { linkUp: false }),
      replica("c", { linkUp: false }),
    );
    expect(story.readers).toEqual(["c"]);
    story.round(master("a"), replica("b"), replica("c"));
    expect(story.readers).toEqual(["b", "c"]);
  });
});

describe("a readable node", () => {
  const verdict = (story: Story, name: string) => story.belief.fitness.get(at(name))?.verdict;

  it.each([
    ["syncing", replica("b", { syncInProgress: true, linkUp: false })],
    ["loading", replica("b", { loading: true })],
    ["link-down", replica("b", { linkUp: false })],
    ["other-history", replica("b", { replid: "X" })],
    ["claims-master", master("b", { replid: "X" })],
    ["lag-unknown", replica("b", { appliedOffset: 50 })],
  ])("is none that is %s (47)", (reason, seen) => {
    const story = wellGroup();
    story.round(master("a"), seen);
    expect(verdict(story, "b")).toBe(reason);
    expect(story.readers).toEqual(["c"]);
    story.round(master("a"), replica("b"));
    expect(story.readers).toEqual(["b", "c"]);
  });

  it("is none that does not answer", () => {
    const story = wellGroup();
    story.round(story.failing("b", "silent"), story.failing("c", "closed"));
    expect(story.readers).toEqual([]);
    expect(verdict(story, "b")).toBe("unreachable");
  });

  it("is none that lags in time, and one again when it caught up (47)", () => {
    const story = wellGroup();
    for (let i = 1; i <= 12; i++) {
      story.round(
        master("a", { masterReplOffset: 100 + i }),
        replica("b"),
        replica("c", { appliedOffset: 100 + i }),
      );
      expect(story.readers).toEqual(i <= 10 ? ["b", "c"] : ["c"]);
    }
    expect(story.belief.fitness.get(at("b"))).toEqual({
      verdict: "lagging-time",
      lagMs: 1_200,
      lagBytes: 12,
    });
    story.round(replica("b", { appliedOffset: 112 }));
    expect(story.readers).toEqual(["b", "c"]);
  });

  it("is a demoted master, and a replica of a replica, when they carry the history (40, 49)", () => {
    const story = wellGroup();
    story.round(promoted("b", "H2"), replica("a", { of: "b", linkUp: false }));
    expect(story.readers).toEqual([]);
    story.round(
      promoted("b", "H2"),
      replica("a", { of: "b", replid: "H2" }),
      replica("c", { of: "a", replid: "H2" }),
    );
    expect(story.readers).toEqual(["a", "c"]);
  });

  it("is a second address of a node never", () => {
    const story = wellGroup();
    story.round(master("a"), replica("d", { run: "b" }));
    expect(verdict(story, "d")).toBe("alias");
    expect(story.readers).toEqual(["b", "c"]);
  });
});

describe("the proof of freshness", () => {
  const provenAt = (story: Story, name: string) =>
    story.epoch.readable.find(({ id }) => id === at(name))?.provenAtMs;

  it("is when the master was asked for the newest offset that the replica has (7)", () => {
    const story = wellGroup();
    expect(provenAt(story, "b")).toBe(200);
    story.round(master("a", { masterReplOffset: 150 }), replica("b", { appliedOffset: 149 }), replica("c"));
    expect(provenAt(story, "b")).toBe(200);
    story.round(master("a", { masterReplOffset: 160 }), replica("b", { appliedOffset: 155 }));
    expect(provenAt(story, "b")).toBe(300);
  });

  it("is nothing right after a switch, and grows again from the new master's offsets", () => {
    const story = wellGroup();
    story.round(promoted("b", "H2"), replica("c", { replid: "H2", of: "b", appliedOffset: 90 }));
    story.round(promoted("b", "H2"), replica("c", { replid: "H2", of: "b", appliedOffset: 99 }));
    expect(provenAt(story, "c")).toBeUndefined();
    story.round(promoted("b", "H2"), replica("c", { replid: "H2", of: "b", appliedOffset: 100 }));
    expect(provenAt(story, "c")).toBe(story.nowMs);
  });

  it("is kept while there is no master", () => {
    const story = wellGroup();
    story.round(story.failing("a", "unreachable"), replica("b", { linkUp: false }));
    expect(provenAt(story, "b")).toBe(200);
  });

  it("starts again for a replica that restarted from an older file", () => {
    const story = wellGroup();
    story.round(master("a", { masterReplOffset: 150 }), replica("b", { appliedOffset: 150 }));
    expect(provenAt(story, "b")).toBe(300);
    story.round(master("a", { masterReplOffset: 150 }), replica("b", { appliedOffset: 120, run: "b2" }));
    expect(provenAt(story, "b")).toBe(200);
  });
});

describe("the published epoch", () => {
  it("is the same object when nothing in it changed", () => {
    const story = wellGroup();
    story.round(
      story.failing("a", "unreachable"),
      replica("b", { linkUp: false }),
      replica("c", { linkUp: false }),
    );
    const before = story.epoch;
    story.round(
      story.failing("a", "unreachable"),
      replica("b", { linkUp: false }),
      replica("c", { linkUp: false }),
    );
    expect(story.epoch).toBe(before);
  });
});

describe("a master that was told to end (50)", () => {
  it("gets nothing new from the first report of that on, and is no reason to believe a stranger", () => {
    const story = wellGroup();
    story.round(master("a", { shutdownInMs: 9_000 }), replica("b"), replica("c"));
    const sentAtMs = story.nowMs;
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: "shutting-down" });
    expect(story.epoch.stoppedAtMs).toBe(sentAtMs);
    expect(story.readers).toEqual(["b", "c"]);
    story.round(master("a", { shutdownInMs: 8_900 }), master("d", { replid: "H2", replid2: "H1", run: "d" }));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "shutting-down", stoppedAtMs: sentAtMs + 100 });
  });

  it("goes on when it thought better of it", () => {
    const story = wellGroup();
    story.round(master("a", { shutdownInMs: 9_000 }), replica("b"), replica("c"));
    story.round(master("a"), replica("b"), replica("c"));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: null, stoppedAtMs: null });
  });

  it("is known to have stopped also when it is gone, until there is another", () => {
    const story = wellGroup();
    story.round(master("a", { shutdownInMs: 10 }), replica("b"), replica("c"));
    const sentAtMs = story.nowMs;
    story.round(story.failing("a", "unreachable"), replica("b"), replica("c"));
    expect(story.epoch).toMatchObject({ holdCause: "connection-lost", stoppedAtMs: sentAtMs });
    story.round(
      story.failing("a", "unreachable"),
      master("b", { replid: "H2", replid2: "H1" }),
      replica("c"),
    );
    expect(story.epoch).toMatchObject({ number: 2, master: at("b"), holdCause: null, stoppedAtMs: null });
  });

  it("is succeeded by a replica of its history that was promoted meanwhile", () => {
    const story = wellGroup();
    story.round(master("a", { shutdownInMs: 9_000 }), replica("b"), replica("c"));
    story.round(master("a", { shutdownInMs: 8_900 }), master("b", { replid: "H2", replid2: "H1" }));
    expect(story.epoch).toMatchObject({ number: 2, master: at("b"), holdCause: null });
  });
});
