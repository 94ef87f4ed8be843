import { describe, expect, it } from "vitest";
import {
  type Condition,
  diagnose,
  followOutage,
  goneAtMs,
  heardAtMs,
  isHandingOver,
  type Outage,
} from "../../../src/failover/diagnosis.ts";
import type { HoldCause } from "../../../src/topology/epoch.ts";
import { followedBy } from "../../../src/topology/rules/aliases.ts";
import type { NodeView } from "../../../src/topology/rules/model.ts";
import { at, hex, replicaReport, unanswered } from "../topology/nodes.ts";
import { lost, masterAt, replicaAt, sight } from "./sight.ts";

/** Noticed at 5000; until 4900 it was well. */
const OUTAGE: Outage = {
  master: at("a"),
  noticedAtMs: 5_000,
  wellUntilMs: 4_900,
  crashedSinceMs: null,
  aloneAtMs: Number.NEGATIVE_INFINITY,
  failed: new Map(),
  questions: new Map(),
  refusal: null,
  reachedAtMs: Number.NEGATIVE_INFINITY,
  isTold: false,
};
const PATIENCE = { downAfterMs: 3_000, crashGraceMs: 250 };

const gone = (contact: NodeView["contact"]) => lost(masterAt("a", 4_899), contact);
const linkUp = (name: string, sentAtMs = 5_100) => replicaAt(name, sentAtMs);
const linkDown = (name: string, sentAtMs = 5_100) => replicaAt(name, sentAtMs, { linkUp: false });

type Row = [title: string, views: readonly NodeView[], hold: HoldCause | null, expected: Condition];

describe("what is wrong with a master", () => {
  const rows: Row[] = [
    ["nothing holds writes", [masterAt("a", 5_100)], null, "well"],
    ["nothing holds writes, whatever its contact is", [gone("closed")], null, "well"],
    ["several claim to be master", [gone("unreachable")], "no-common-truth", "unclear"],
    ["it is not watched", [linkDown("b")], "silent", "absent"],
    ["it was never asked", [unanswered("a", "never")], "silent", "unclear"],
    ["its connection was cut, dialling tells more", [gone("closed"), linkDown("b")], "silent", "unclear"],
    ["it does not let us in", [gone("no-access"), linkDown("b")], "silent", "unclear"],
    ["it talks nonsense", [gone("nonsense"), linkDown("b")], "silent", "unclear"],
    [
      "its address leads to a replica now, and it answers at another one",
      [replicaAt("a", 5_100, { run: "b", of: "z" }), masterAt("z", 5_100, { run: "a" })],
      "role-changed",
      "unclear",
    ],
    ["it is silent", [gone("silent"), linkDown("b")], "silent", "absent"],
    ["it loads (as an error)", [gone("loading"), linkDown("b")], "loading", "absent"],
    ["it loads (by its word)", [masterAt("a", 5_100, { loading: true })], "loading", "absent"],
    ["it refuses and nobody has a link", [gone("unreachable"), linkDown("b")], "connection-lost", "crashed"],
    [
      "it refuses, and a replica has a link to an address where we never met anybody",
      [
        gone("unreachable"),
        linkDown("b"),
        replicaAt("c", 5_100, { of: "z" }),
        unanswered("z", "unreachable"),
      ],
      "connection-lost",
      "absent",
    ],
    ["it refuses and nobody else can be asked", [gone("unreachable")], "connection-lost", "absent"],
    [
      "it refuses and one of two has a link",
      [gone("unreachable"), linkDown("b"), linkUp("c")],
      "connection-lost",
      "absent",
    ],
    [
      "it refuses, and a link was down before the outage",
      [gone("unreachable"), linkDown("b", 4_999)],
      "connection-lost",
      "absent",
    ],
    [
      "it refuses, and a replica that does not answer had a link",
      [gone("unreachable"), linkDown("b"), lost(linkUp("c"), "unreachable")],
      "connection-lost",
      "crashed",
    ],
    [
      "it refuses, and a replica of somebody else has a link",
      [gone("unreachable"), linkDown("b"), replicaAt("c", 5_100, { of: "z", replid: "X" })],
      "connection-lost",
      "crashed",
    ],
    [
      "another process answers there, without our history",
      [masterAt("a", 5_100, { run: "a2", replid: "X" }), linkDown("b")],
      "history-refused",
      "replaced",
    ],
    ["the same process answers: the next probe tells", [masterAt("a", 5_100)], "connection-lost", "unclear"],
    ["it is a replica without a successor", [replicaAt("a", 5_100, { of: "b" })], "role-changed", "absent"],
    [
      "it is a replica during FAILOVER",
      [replicaAt("a", 5_100, { of: "b", failoverState: "failover-in-progress" }), linkUp("b")],
      "role-changed",
      "unclear",
    ],
  ];
  it.each(rows)("%s", (_title, views, hold, expected) => {
    expect(diagnose(sight(views, { hold }), OUTAGE)).toBe(expected);
  });

  it("is unclear without any master", () => {
    const group = sight([gone("unreachable")], { hold: "no-master-yet" });
    expect(diagnose({ ...group, master: null }, null)).toBe("unclear");
  });

  it("is no crash at the first look: links must be seen down after the outage was noticed", () => {
    const group = sight([gone("unreachable"), linkDown("b")], { hold: "connection-lost" });
    expect(diagnose(group, null)).toBe("absent");
  });
});

describe("when a master counts as gone", () => {
  type Times = [title: string, views: readonly NodeView[], hold: HoldCause | null, more: object, at: number];
  const never = Number.POSITIVE_INFINITY;
  const crashed = [gone("unreachable"), linkDown("b")];
  const heard = (seconds: number, sentAtMs = 6_000) =>
    replicaAt("b", sentAtMs, { heardSecondsAgo: seconds, linkUp: true });
  const rows: Times[] = [
    ["never while it is well", [masterAt("a", 5_100)], null, {}, never],
    ["never while that is unclear", [gone("no-access")], "silent", {}, never],
    ["crashGrace after the crash was seen", crashed, "connection-lost", { crashedSinceMs: 5_120 }, 5_370],
    ["crashGrace after it was noticed when the crash is seen first now", crashed, "silent", {}, 5_250],
    ["crashGrace after our own stall", crashed, "silent", { crashedSinceMs: 5_120, awake: 5_500 }, 5_750],
    [
      "at once when another process is there",
      [masterAt("a", 5_100, { run: "x", replid: "X" })],
      "history-refused",
      {},
      5_000,
    ],
    ["downAfter after it was well", [gone("silent")], "silent", {}, 7_900],
    ["downAfter after our own stall", [gone("silent")], "silent", { awake: 6_500 }, 9_500],
    [
      "downAfter after we reached nobody else either",
      [gone("silent")],
      "silent",
      { aloneAtMs: 6_900 },
      9_900,
    ],
    ["downAfter after a replica heard of it", [gone("silent"), heard(0)], "silent", {}, 8_000],
    [
      "downAfter after a replica reached it",
      [gone("silent"), heard(2)],
      "silent",
      { reachedAtMs: 6_000 },
      9_000,
    ],
    ["a replica heard of it before it was well here", [gone("silent"), heard(3)], "silent", {}, 7_900],
    [
      "a replica that does not answer any more tells nothing",
      [gone("silent"), lost(heard(0), "silent")],
      "silent",
      {},
      7_900,
    ],
    [
      "what a replica of our history hears counts, also under an address that is not known",
      [gone("silent"), replicaAt("b", 6_000, { of: "z", heardSecondsAgo: 0 })],
      "silent",
      {},
      8_000,
    ],
    [
      "what a replica of our history hears counts, also under one that is watched and was never met",
      [
        gone("silent"),
        unanswered("z", "unreachable"),
        replicaAt("b", 6_000, { of: "z", heardSecondsAgo: 0 }),
      ],
      "silent",
      {},
      8_000,
    ],
    [
      "what the replica of another master hears tells nothing",
      [gone("silent"), replicaAt("b", 6_000, { of: "z", replid: "X", heardSecondsAgo: 0 })],
      "silent",
      {},
      7_900,
    ],
  ];
  it.each(rows)("%s", (_title, views, hold, more, expected) => {
    const { awake, ...outage } = more as Partial<Outage> & { awake?: number };
    const group = sight(views, { hold, ...(awake === undefined ? {} : { awakeSinceMs: awake }) });
    expect(goneAtMs(group, { ...OUTAGE, ...outage }, PATIENCE)).toBe(expected);
  });

  it("servers tell whole seconds: one more may have passed", () => {
    expect(heardAtMs(sight([gone("silent"), heard(2)]))).toBe(3_000);
    expect(heardAtMs(sight([gone("silent"), linkUp("b")]))).toBe(Number.NEGATIVE_INFINITY);
  });
});

describe("an outage", () => {
  const silent = sight([gone("silent"), linkUp("b")], { hold: "silent" });

  it("begins when writes are held, from the moment it was last well", () => {
    expect(followOutage(silent, null, 5_000)).toEqual(OUTAGE);
  });

  it("of a node that was never heard of begins now", () => {
    const group = sight([unanswered("a", "silent")], { hold: "silent" });
    expect(followOutage(group, null, 5_000)).toMatchObject({ wellUntilMs: 5_000 });
  });

  it("goes on, and remembers since when it is a crash without a break", () => {
    const crash = sight([gone("unreachable"), linkDown("b")], { hold: "connection-lost" });
    const one = followOutage(crash, OUTAGE, 5_120);
    expect(one).toMatchObject({ noticedAtMs: 5_000, crashedSinceMs: 5_120 });
    expect(followOutage(crash, one, 5_150)).toMatchObject({ crashedSinceMs: 5_120 });
    expect(followOutage(silent, one, 5_180)).toMatchObject({ crashedSinceMs: null });
  });

  it("remembers when nobody else could be reached: being alone proves nothing", () => {
    const alone = sight([gone("unreachable"), lost(linkUp("b"), "silent")], { hold: "silent" });
    const one = followOutage(alone, OUTAGE, 6_000);
    expect(one).toMatchObject({ aloneAtMs: 6_000, crashedSinceMs: null });
    expect(followOutage(silent, one, 6_100)).toMatchObject({ aloneAtMs: 6_000 });
  });

  it("ends when the master is well", () => {
    expect(followOutage(sight([masterAt("a", 6_000)]), OUTAGE, 6_001)).toBeNull();
  });

  it("of one master is not that of the next", () => {
    const next = sight([lost(masterAt("b", 8_000, { replid: "H2" }), "silent")], {
      ...{ of: "b", replid: "H2", hold: "silent" as const },
    });
    const outage = followOutage(next, { ...OUTAGE, failed: new Map([[at("c"), 1]]) }, 9_000);
    expect(outage).toMatchObject({ master: at("b"), noticedAtMs: 9_000, failed: new Map() });
  });
});

describe("FAILOVER under way", () => {
  it.each(["waiting-for-sync", "failover-in-progress"] as const)("%s, on any node that answers", (state) => {
    const busy = replicaAt("b", 5_100, { failoverState: state });
    expect(isHandingOver(sight([masterAt("a", 5_100), busy]))).toBe(true);
    expect(isHandingOver(sight([masterAt("a", 5_100), lost(busy, "unreachable")]))).toBe(false);
  });
});

describe("whom a replica follows", () => {
  it("the node known under that address, by the address known first", () => {
    const second = { ...masterAt("a", 5_100, {}), id: at("alias") };
    const group = sight([masterAt("a", 5_100), second]);
    expect(followedBy(group, replicaReport("b", 5_100, { of: "alias" }))).toBe(at("a"));
    expect(followedBy(group, replicaReport("b", 5_100, { of: "z" }))).toBe(at("z"));
    expect(followedBy(group, replicaReport("b", 5_100, { masterAddress: null }))).toBeNull();
    expect(hex("a")).toBe(group.master?.runId);
  });
});
