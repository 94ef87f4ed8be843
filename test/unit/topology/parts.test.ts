import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addressOf } from "../../../src/config/address.ts";
import { announcedAddress, parseNodeId, toNodeId } from "../../../src/topology/address.ts";
import { discover, mentioned } from "../../../src/topology/discovery.ts";
import type { NodeId } from "../../../src/topology/epoch.ts";
import { lineageOf } from "../../../src/topology/rules/lineage.ts";
import type { OffsetSample } from "../../../src/topology/rules/model.ts";
import { addSample, lagMs, MAX_SAMPLES, provenAt } from "../../../src/topology/rules/samples.ts";
import { at, hex, replicaReport, report, view } from "./nodes.ts";

describe("an address", () => {
  it.each(["127.0.0.1:6380", "redis-1.local:6379", "[::1]:6379"])("%s survives being taken apart", (text) => {
    const id = parseNodeId(text);
    expect(id).toBe(text);
    const { host, port } = addressOf(id!);
    expect(toNodeId(host, port)).toBe(text);
  });

  it.each([
    "",
    "host",
    "host:0",
    "host:65536",
    "host:1x",
    "::1:6379",
    "a b:1",
    "[::1:6379",
    `${"x".repeat(300)}:1`,
  ])("%j is none", (text) => expect(parseNodeId(text)).toBeNull());

  it("announced as loopback means the machine of the node that says so", () => {
    const remote = "10.0.0.5:6379" as NodeId;
    expect(announcedAddress(remote, { host: "127.0.0.1", port: 6380 })).toBe("10.0.0.5:6380");
    expect(announcedAddress(remote, { host: "10.0.0.6", port: 6380 })).toBe("10.0.0.6:6380");
    expect(announcedAddress("localhost:1" as NodeId, { host: "127.0.0.1", port: 2 })).toBe("127.0.0.1:2");
    expect(announcedAddress(remote, { host: "?", port: 6380 })).toBeNull();
  });
});

describe("discovery", () => {
  const listed = [{ host: "c", port: 6379, state: "online", offset: 1, lag: 0 }];

  it("finds the master of a replica and the replicas of a master", () => {
    const views = [view(replicaReport("b", 1, { of: "a" })), view(report("d", 1, { replicas: listed }))];
    expect(discover(views, null)).toEqual([at("a"), at("c")]);
    expect(mentioned(views)).toEqual(new Set([at("a"), at("c")]));
  });

  it("does not follow a stranger that was itself only discovered", () => {
    const stranger = { ...view(report("x", 1, { replid: "X", replicas: listed })), seed: false };
    expect(discover([stranger], hex("H1"))).toEqual([]);
    expect(discover([stranger], hex("X"))).toEqual([at("c")]);
  });
});

describe("a lineage", () => {
  const claimant = report("b", 1, { replid: "H3", replid2: "H2", secondReplOffset: 50 });

  it("goes over several promotions and ends where the shortest step ends", () => {
    const edges = [{ from: hex("H1"), to: hex("H2"), offset: 40 }];
    expect(lineageOf(claimant, hex("H1"), edges)).toEqual({
      endOffset: 40,
      path: [hex("H3"), hex("H2"), hex("H1")],
    });
    expect(lineageOf(claimant, hex("H0"), edges)).toBeNull();
  });

  it("ends in a circle of lies", () => {
    const edges = [
      { from: hex("H3"), to: hex("H2"), offset: 40 },
      { from: hex("H2"), to: hex("H3"), offset: 40 },
    ];
    expect(lineageOf(claimant, hex("H1"), edges)).toBeNull();
  });
});

describe("the offset history", () => {
  it("is bounded and never proves more than the whole of it would", () => {
    const growths = fc.array(fc.nat(3), { minLength: 1, maxLength: 3 * MAX_SAMPLES });
    fc.assert(
      fc.property(growths, fc.nat(4_000), (growth, applied) => {
        const all: OffsetSample[] = [];
        let kept: readonly OffsetSample[] = [];
        let offset = 0;
        for (const [index, bytes] of growth.entries()) {
          offset += bytes;
          const sample = { atMs: index * 10, offset };
          all.push(sample);
          kept = addSample(kept, sample, 100_000);
        }
        expect(kept.length).toBeLessThanOrEqual(MAX_SAMPLES);
        const proven = provenAt(kept, applied);
        const contained = all.filter((sample) => sample.offset <= applied);
        expect(proven).toBeLessThanOrEqual(contained.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY);
        if (applied >= offset) expect([proven, lagMs(kept, applied)]).toEqual([all.at(-1)!.atMs, 0]);
      }),
      { numRuns: 200 },
    );
  });

  it("forgets what is older than asked for, but the one sample before", () => {
    let kept: readonly OffsetSample[] = [];
    for (let i = 0; i < 100; i++) kept = addSample(kept, { atMs: i * 10, offset: i }, 100);
    expect(kept[0]?.atMs).toBe(880);
    expect(lagMs(kept, 90)).toBe(90);
    expect(lagMs(kept, 10)).toBeNull();
  });

  it("ignores what comes late", () => {
    const kept = addSample([{ atMs: 10, offset: 5 }], { atMs: 9, offset: 7 }, 100);
    expect(kept).toEqual([{ atMs: 10, offset: 5 }]);
  });
});
