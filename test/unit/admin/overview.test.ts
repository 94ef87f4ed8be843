import { describe, expect, it } from "vitest";
import { Overview, type OverviewSources } from "../../../src/admin/overview.ts";
import { Counters } from "../../../src/metrics.ts";
import type { Value } from "../../../src/resp/encode.ts";
import { FIRST_EPOCH, type NodeId } from "../../../src/topology/epoch.ts";
import type { NodeStatus } from "../../../src/topology/status.ts";

function node(id: string, over: Partial<NodeStatus> = {}): NodeStatus {
  return {
    id: id as NodeId,
    seed: true,
    aliasOf: null,
    isMaster: false,
    reachable: true,
    contact: "answering",
    fit: "fit",
    lagMs: 12.4,
    lagBytes: 3,
    provenAtMs: 0,
    said: null,
    lastSeenAgoMs: null,
    lastProblem: null,
    ...over,
  };
}

function overviewOf(counters: Counters, over: Partial<OverviewSources> = {}): Overview {
  return new Overview({
    version: "1",
    counters,
    epoch: () => ({ ...FIRST_EPOCH, number: 1, master: "a:1" as NodeId, holdCause: null }),
    nodes: () => [
      node("a:1", { isMaster: true }),
      node("b:2"),
      node("c:3", { fit: "lagging-time" }),
      node("d:4", { aliasOf: "a:1" as NodeId }),
    ],
    outstanding: () => new Map([["b:2", 7]]),
    isSlow: (id) => id === "b:2",
    problems: () => [],
    sentinels: () => [],
    failovers: () => [],
    uptimeSeconds: () => 1,
    paused: () => null,
    isPromoter: () => false,
    isStopping: () => false,
    ...over,
  });
}

function object(value: Value): Record<string, Value> {
  return Object.fromEntries(value as ReadonlyMap<string, Value>);
}

describe("what is told of each node", () => {
  it("reads, what it owes, whether it is slow, and why it is (not) fit, in all three forms", () => {
    const counters = new Counters();
    counters.addNodeRequests("b:2", 9, 5);
    const overview = overviewOf(counters);
    const shown = (overview.nodes() as Value[]).map(object);
    expect(shown.map((one) => [one.node, one.requests, one.reads, one.outstanding, one.slow])).toEqual([
      ["a:1", 0, 0, 0, 0],
      ["b:2", 9, 5, 7, 1],
      ["c:3", 0, 0, 0, 0],
    ]);
    expect(shown.map((one) => one.reason)).toEqual(["master", "fit", "lagging-time"]);
    expect(overview.view().nodes.map(({ reads, outstanding, slow }) => [reads, outstanding, slow])).toEqual([
      [0, 0, false],
      [5, 7, true],
      [0, 0, false],
    ]);
    expect(overview.readings()[1]).toMatchObject({ outstanding: 7, slow: true, lagMs: 12.4, lagBytes: 3 });
  });
});

describe("what is told of the reads", () => {
  it("who served them, why the master did, the share of the freshness rule, and hedges", () => {
    const counters = new Counters();
    counters.reads.replica = 4;
    counters.addMasterRead("freshness");
    counters.addMasterRead("freshness");
    counters.addMasterRead("policy");
    counters.hedges = 6;
    counters.hedgesWon = 5;
    const overview = overviewOf(counters);
    expect(object(overview.status())).toMatchObject({
      reads_replica: 4,
      reads_master_freshness: 2,
      reads_master_none_fit: 0,
      reads_master_policy: 1,
      freshness_share: 0.2857,
      hedges: 6,
      hedges_won: 5,
    });
    expect(overview.view().reads).toEqual({
      replica: 4,
      masterFreshness: 2,
      masterNoneFit: 0,
      masterPolicy: 1,
      freshnessShare: 2 / 7,
      hedges: 6,
      hedgesWon: 5,
    });
  });

  it("there is no share before there are reads", () => {
    expect(object(overviewOf(new Counters()).status()).freshness_share).toBeNull();
  });
});

describe("whether it is ready", () => {
  const PROBLEM = "sentinel-no-access s:1: WRONGPASS invalid username-password pair";
  const EPOCH = { ...FIRST_EPOCH, number: 1, master: "a:1" as NodeId };

  it.each([
    ["while writes go", { ...EPOCH, holdCause: null }, true, "writes go to a:1"],
    ["while writes are held", { ...EPOCH, holdCause: "silent" }, false, "writes are held: silent"],
    ["before there was a master", FIRST_EPOCH, false, "no master has been found yet"],
  ] as const)("says what is wrong also %s", (_, epoch, ready, reason) => {
    const told = (problems: readonly string[]) =>
      overviewOf(new Counters(), { epoch: () => epoch, problems: () => problems }).ready();
    expect(told([])).toEqual({ ready, reason });
    expect(told([PROBLEM])).toEqual({ ready, reason: `${reason}; ${PROBLEM}` });
  });
});
