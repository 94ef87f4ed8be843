import { describe, expect, it } from "vitest";
import type { NodeId } from "../../../../src/topology/epoch.ts";
import {
  combine,
  FRESH_MS,
  type SentinelSays,
  type SentinelView,
  stateOf,
  votersOf,
} from "../../../../src/topology/rules/sentinel.ts";
import { at, hex, master, naming, replica, Story, unanswered, wellGroup } from "../nodes.ts";

const NOW_MS = 10_000;

type Word = Partial<Omit<SentinelView, "says">> & Partial<SentinelSays> & { readonly silent?: boolean };

/** A configured Sentinel that names "a" by default; `silent` = it never answered. */
function sentinel(name: string, word: Word = {}): SentinelView {
  const {
    configured = true,
    runId = hex(name),
    contact = "answering",
    detail = "",
    others,
    silent,
    ...rest
  } = word;
  const says: SentinelSays = {
    atMs: NOW_MS - 500,
    master: at("a"),
    masterRunId: hex("a"),
    configEpoch: 1,
    tilt: false,
    noQuorum: null,
    refused: null,
    ...rest,
  };
  const known = others ?? new Set(["s", "t", "u"].map(hex));
  return {
    ...{ id: at(name), configured, runId, contact, detail, others: known },
    says: silent === true ? null : says,
  };
}

function word(...all: SentinelView[]) {
  return combine("mymaster", all, NOW_MS);
}

const gone = { contact: "unreachable", detail: "refused" } as const;

describe("a majority", () => {
  it.each<[string, SentinelView[], string | null, number]>([
    ["all of three", [sentinel("s"), sentinel("t"), sentinel("u")], "a", 3],
    [
      "two of three, the third one names another",
      [sentinel("s"), sentinel("t"), sentinel("u", { master: at("b") })],
      "a",
      2,
    ],
    [
      "two of three, the third one with a newer epoch",
      [sentinel("s"), sentinel("t"), sentinel("u", { master: at("b"), configEpoch: 9 })],
      "a",
      2,
    ],
    ["two of three, the third one away", [sentinel("s"), sentinel("t"), sentinel("u", gone)], "a", 2],
    [
      "only one of three answers",
      [sentinel("s"), sentinel("t", gone), sentinel("u", { ...gone, silent: true })],
      null,
      0,
    ],
    [
      "one each",
      [sentinel("s"), sentinel("t", { master: at("b") }), sentinel("u", { master: at("c") })],
      null,
      0,
    ],
    ["half is none", [sentinel("s"), sentinel("t", { master: at("b") })], null, 0],
    ["one of one", [sentinel("s")], "a", 1],
    ["none", [], null, 0],
    [
      "one in TILT does not count",
      [sentinel("s"), sentinel("t", { tilt: true }), sentinel("u", gone)],
      null,
      0,
    ],
    [
      "an old answer does not count",
      [sentinel("s"), sentinel("t", { atMs: NOW_MS - FRESH_MS - 1 }), sentinel("u", gone)],
      null,
      0,
    ],
    [
      "one that does not know the name does not count",
      [sentinel("s"), sentinel("t", { master: null }), sentinel("u", gone)],
      null,
      0,
    ],
  ])("%s", (_, all, agreed, agreeing) => {
    expect(word(...all)).toMatchObject({ agreed: agreed === null ? null : at(agreed), agreeing });
  });

  it("has the newest configuration epoch of those that agree", () => {
    const all = [sentinel("s", { configEpoch: 3 }), sentinel("t", { configEpoch: null }), sentinel("u")];
    expect(word(...all).configEpoch).toBe(3);
    expect(word(sentinel("s", { configEpoch: null })).configEpoch).toBeNull();
  });

  it("is settled when every configured one has answered or failed", () => {
    const never = { contact: "never", silent: true } as const;
    expect(word(sentinel("s"), sentinel("t", never)).settled).toBe(false);
    expect(word(sentinel("s"), sentinel("t", gone)).settled).toBe(true);
    expect(word(sentinel("s"), sentinel("t", { ...never, configured: false })).settled).toBe(true);
    expect(word().settled).toBe(true);
  });
});

describe("a say", () => {
  const ids = (...all: SentinelView[]) => votersOf(all).map(({ id }) => id[0]);

  it("has each running Sentinel once, whatever its addresses", () => {
    expect(ids(sentinel("s"), sentinel("t", { runId: hex("s") }))).toEqual(["s"]);
    // The one that answers speaks for both.
    expect(ids(sentinel("s", gone), sentinel("t", { runId: hex("s") }))).toEqual(["t"]);
  });

  it("has a discovered one that most of the configured ones know, and no other", () => {
    const found = { configured: false };
    const knowing = (...names: string[]) => ({ others: new Set(names.map(hex)) });
    const [s, t, u] = [knowing("x"), knowing("x"), knowing("y")];
    const all = [sentinel("s", s), sentinel("t", t), sentinel("u", u)];
    expect(ids(...all, sentinel("x", found), sentinel("y", found))).toEqual(["s", "t", "u", "x"]);
    expect(ids(sentinel("s", knowing("x")), sentinel("x", found))).toEqual(["s", "x"]);
    // What it knew counts on when it is gone; one that never answered knows nobody.
    expect(ids(sentinel("s", { ...s, ...gone }), sentinel("x", found))).toEqual(["s", "x"]);
    expect(ids(sentinel("s", { ...s, ...gone, silent: true }), sentinel("x", found))).toEqual(["s"]);
  });

  it("is not multiplied by Sentinels that only one brings along", () => {
    const fakes = ["v", "w", "x", "y"].map((name) => sentinel(name, { configured: false, master: at("z") }));
    const liar = sentinel("u", { master: at("z"), others: new Set(["v", "w", "x", "y"].map(hex)) });
    expect(word(sentinel("s"), sentinel("t"), liar, ...fakes)).toMatchObject({ agreed: at("a"), known: 3 });
  });
});

describe("what is wrong with Sentinels is said:", () => {
  it.each<[string, SentinelView[], string[]]>([
    ["nothing", [sentinel("s"), sentinel("t"), sentinel("u")], []],
    ["one away", [sentinel("s"), sentinel("t"), sentinel("u", gone)], ["sentinel-unreachable u"]],
    [
      "nonsense",
      [sentinel("s"), sentinel("t"), sentinel("u", { contact: "nonsense" })],
      ["sentinel-unreachable u"],
    ],
    [
      "no access",
      [sentinel("s"), sentinel("t"), sentinel("u", { contact: "no-access" })],
      ["sentinel-no-access u"],
    ],
    ["a refused question", [sentinel("s", { refused: "NOPERM" })], ["sentinel-no-access s"]],
    ["an unknown name", [sentinel("s", { master: null })], ["sentinel-unknown-master s"]],
    [
      "a minority",
      [sentinel("s"), sentinel("t", gone), sentinel("u", gone)],
      ["sentinel-unreachable t", "sentinel-unreachable u", "sentinel-no-quorum"],
    ],
    [
      "no quorum by their own word",
      [sentinel("s"), sentinel("t", { noQuorum: "NOQUORUM 1 usable" })],
      ["sentinel-no-quorum"],
    ],
    ["not yet asked", [sentinel("s", { contact: "never", silent: true })], []],
  ])("%s", (_, all, expected) => {
    expect(
      word(...all).problems.map(({ kind, node }) => (node === null ? kind : `${kind} ${node[0]}`)),
    ).toEqual(expected);
  });

  it("an unknown name with the name", () => {
    expect(word(sentinel("s", { master: null })).problems[0]?.detail).toContain('"mymaster"');
  });

  it.each([
    [{}, "agreeing"],
    [{ master: at("b") }, "disagreeing"],
    [{ tilt: true }, "tilt"],
    [{ master: null }, "unknown-master"],
    [{ contact: "no-access" }, "no-access"],
    [gone, "unreachable"],
    [{ contact: "never", silent: true }, "unreachable"],
  ] as const)("the state of %j is %s", (about, state) => {
    const all = [sentinel("s"), sentinel("t"), sentinel("u", about)];
    expect(stateOf(all[2]!, word(...all))).toBe(state);
  });
});

/** b or c, promoted from H1 at offset 100. */
const promoted = (name: string, replid: string, more = {}) =>
  master(name, { replid, replid2: "H1", secondReplOffset: 101, ...more });

describe("the first master, with Sentinels", () => {
  it("is the claimant they name where claims contradict each other (42)", () => {
    const story = new Story();
    story.sentinels = naming("b");
    const { change } = story.round(master("a"), master("b", { replid: "X" }));
    expect(change).toMatchObject({ to: at("b"), reason: "first", detail: "3 of 3 Sentinels name it" });
  });

  it.each([
    ["is a replica", [master("a"), master("d", { replid: "X" }), replica("b", { replid: "Y" })]],
    ["does not answer", [master("a"), master("d", { replid: "X" }), () => unanswered("b", "silent")]],
    ["is loading", [master("a"), master("d", { replid: "X" }), master("b", { loading: true, replid: "Y" })]],
    ["is empty and another is not", [master("a"), master("b", { replid: "X", keys: 0 })]],
  ])("is nobody when the one they name %s", (_, seen) => {
    const story = new Story();
    story.sentinels = naming("b");
    story.round(...seen);
    expect(story.epoch).toMatchObject({ master: null, holdCause: "no-common-truth" });
  });

  it("is by the nodes' own word where that is clear, whatever they name", () => {
    const story = new Story();
    story.sentinels = naming("a");
    story.round(master("a"), promoted("b", "H2"), replica("c", { replid: "H2", of: "b" }));
    expect(story.epoch.master).toBe(at("b"));
  });

  it("is not a lonely claimant while they name another node", () => {
    const story = new Story();
    story.sentinels = naming("b");
    story.round(master("a"), () => unanswered("b", "unreachable"));
    expect(story.epoch).toMatchObject({ master: null, holdCause: "no-common-truth" });
    story.sentinels = naming("a");
    story.round(master("a"));
    expect(story.epoch.master).toBe(at("a"));
  });

  it("waits until each of them has answered or failed", () => {
    const story = new Story();
    story.sentinels = { ...naming("a"), settled: false };
    story.round(master("a"), replica("b"));
    expect(story.epoch).toMatchObject({ master: null, holdCause: "no-master-yet" });
    story.sentinels = { ...naming("a"), agreed: null };
    story.round(master("a"), replica("b"));
    expect(story.epoch.master).toBe(at("a"));
  });
});

describe("a succession, with Sentinels", () => {
  it("of two contradicting promotions is that of the one they name (42)", () => {
    const story = wellGroup();
    story.sentinels = naming("c");
    const { change } = story.round(
      story.failing("a", "unreachable"),
      promoted("b", "H2"),
      promoted("c", "H3"),
    );
    expect(change).toMatchObject({ to: at("c"), reason: "sentinel", lostBytes: 0 });
    expect(story.epoch).toMatchObject({ number: 2, holdCause: null });
  });

  it("after two promotions between probes is that of the node they name; the loss is not known", () => {
    const story = wellGroup();
    story.sentinels = naming("c");
    const second = master("c", { replid: "H3", replid2: "H2", secondReplOffset: 131, masterReplOffset: 140 });
    const { change } = story.round(
      story.failing("a", "unreachable"),
      story.failing("b", "unreachable"),
      second,
    );
    expect(change).toMatchObject({
      to: at("c"),
      reason: "sentinel",
      lostBytes: null,
      keptUntilMs: Number.NEGATIVE_INFINITY,
    });
  });

  it.each<[string, Parameters<Story["round"]>]>([
    ["is not a live master", [replica("b", { linkUp: false })]],
    ["is loading", [master("b", { replid: "X", loading: true })]],
    ["is empty, and the group was not (41)", [master("b", { replid: "X", keys: 0 })]],
    [
      "is a process never seen that is behind what was seen",
      [master("b", { replid: "X", run: "b2", masterReplOffset: 99 })],
    ],
    ["was rolled back (41)", [master("b", { replid: "X", replid2: "H1", secondReplOffset: 51, run: "b2" })]],
    [
      "is the former master, restarted without its history (41)",
      [master("a", { replid: "X", run: "a2", masterReplOffset: 500 })],
    ],
  ])("is nobody's when the one they name %s", (_, seen) => {
    const story = wellGroup();
    story.round(story.failing("a", "unreachable"));
    const [look] = seen;
    const node = look!(0).id[0]!;
    story.sentinels = naming(node);
    const { change } = story.round(look!);
    expect(change).toBeNull();
    expect(story.epoch).toMatchObject({ number: 1, master: at("a") });
    expect(story.epoch.holdCause).not.toBeNull();
  });

  it("to a process never seen that is ahead of all that was seen is taken on their word", () => {
    const story = wellGroup();
    story.sentinels = naming("d");
    const fresh = master("d", { replid: "X", masterReplOffset: 200 });
    const { change } = story.round(story.failing("a", "silent"), fresh);
    expect(change).toMatchObject({ to: at("d"), reason: "sentinel", lostBytes: null });
  });

  it.each<[string, number]>([
    ["as it was", 500],
    ["and has gone further than ours since", 900],
  ])("is not back to the history that ours was forked from, %s (41)", (_, offset) => {
    const story = wellGroup();
    story.round(story.failing("a", "unreachable"), promoted("b", "H2", { masterReplOffset: 600 }));
    expect(story.epoch.master).toBe(at("b"));
    story.sentinels = naming("a");
    const old = master("a", { masterReplOffset: offset });
    const { change } = story.round(story.failing("b", "unreachable"), story.failing("c", "silent"), old);
    expect(change).toBeNull();
    expect(story.epoch).toMatchObject({ number: 2, master: at("b"), holdCause: "connection-lost" });
  });

  it("is not by a claim that was made and refused while the master was well (40)", () => {
    const story = wellGroup();
    story.sentinels = naming("d");
    const stray = master("d", { replid: "X", masterReplOffset: 900 });
    story.round(master("a"), stray);
    const { change } = story.round(story.failing("a", "unreachable"), stray);
    expect(change).toBeNull();
    expect(story.epoch.holdCause).toBe("connection-lost");
  });

  it("of several contradicting promotions is not that of a stranger they name, beside a master that is well", () => {
    const story = wellGroup();
    story.sentinels = naming("d");
    const stray = master("d", { replid: "X", masterReplOffset: 900 });
    const { change } = story.round(master("a"), promoted("b", "H2"), promoted("c", "H3"), stray);
    expect(change).toBeNull();
    expect(story.epoch.holdCause).toBe("no-common-truth");
  });

  it("never comes about against a master that is well, by a claimant that proves nothing (40)", () => {
    const story = wellGroup();
    story.sentinels = naming("d");
    const { change } = story.round(master("a"), master("d", { replid: "X", masterReplOffset: 900 }));
    expect(change).toBeNull();
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    expect(story.problems).toEqual(["claimant-refused d"]);
  });

  it("that the nodes prove themselves needs nobody's word", () => {
    const story = wellGroup();
    story.sentinels = naming("a");
    const { change } = story.round(master("a"), promoted("b", "H2"));
    expect(change).toMatchObject({ to: at("b"), reason: "promoted" });
  });

  it("is by any address of the node they name", () => {
    const story = wellGroup();
    story.round((nowMs) => ({ ...replica("c")(nowMs), id: "10.0.0.3:6379" as NodeId }));
    story.sentinels = { ...naming("c"), agreed: "10.0.0.3:6379" as NodeId };
    const seen = [story.failing("a", "unreachable"), promoted("b", "H2"), promoted("c", "H3")] as const;
    const { change } = story.round(...seen);
    expect(change).toMatchObject({ to: at("c"), reason: "sentinel" });
  });
});

describe("an address that leads nowhere from here", () => {
  /** All Sentinels name it, and have met a there. */
  const far = { ...naming("far"), runIds: new Map([[at("far"), hex("a")]]) };

  it("is told with who was met there, as far as Sentinels that are heard are at one", () => {
    const named = { master: at("far"), masterRunId: hex("a") };
    const agreed = word(sentinel("s", named), sentinel("t", named), sentinel("u", { masterRunId: null }));
    expect(agreed.runIds).toEqual(new Map([[at("far"), hex("a")]]));
    const other = sentinel("t", { ...named, masterRunId: hex("b") });
    expect(word(sentinel("s", named), other).runIds).toEqual(new Map());
    expect(word(sentinel("s", { ...named, ...gone }), sentinel("t", { tilt: true })).runIds).toEqual(
      new Map(),
    );
  });

  it("is the master's, when that was met there: nobody disagrees", () => {
    const story = wellGroup();
    story.sentinels = far;
    story.round(() => unanswered("far", "unreachable"));
    for (let round = 0; round < 60; round++) story.round(master("a"), replica("b"));
    expect(story.problems).toEqual([]);
    expect(story.belief.dissent).toEqual(new Map());
  });

  it("is the first master's, when that was met there", () => {
    const story = new Story();
    story.sentinels = far;
    story.round(master("a"), () => unanswered("far", "unreachable"));
    expect(story.epoch).toMatchObject({ master: at("a"), holdCause: null });
  });

  it("is nobody's when somebody else has answered there", () => {
    const story = new Story();
    story.sentinels = far;
    story.round(master("a"), replica("far", { of: "z", replid: "X", keys: 0 }));
    expect(story.epoch).toMatchObject({ master: null, holdCause: "no-common-truth" });
  });
});

describe("Sentinels that name another master than the one that is well", () => {
  it("are a problem after a while, each of them, and nothing else", () => {
    const story = wellGroup();
    story.sentinels = naming("b");
    for (let round = 0; round < 50; round++) story.round(master("a"), replica("b"));
    expect(story.problems).toEqual([]);
    for (let round = 0; round < 2; round++) story.round(master("a"), replica("b"));
    expect(story.problems).toEqual(["sentinel-disagrees s", "sentinel-disagrees t", "sentinel-disagrees u"]);
    expect(story.last?.problems[0]?.detail).toBe("it names b:6379; a:6379 is verified and well");
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    story.sentinels = naming("a");
    story.round(master("a"));
    expect(story.problems).toEqual([]);
  });

  it("are none while they have not yet heard of a promotion", () => {
    const story = wellGroup();
    story.sentinels = naming("a");
    story.round(story.failing("a", "unreachable"), promoted("b", "H2"));
    for (let round = 0; round < 20; round++) story.round(promoted("b", "H2"));
    story.sentinels = naming("b");
    for (let round = 0; round < 60; round++) story.round(promoted("b", "H2"));
    expect(story.problems).toEqual([]);
  });
});
