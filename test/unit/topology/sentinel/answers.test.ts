import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { NodeId } from "../../../../src/topology/epoch.ts";
import {
  CHANNELS,
  readAddress,
  readEvent,
  readInstances,
  readMaster,
  readRunId,
  readTilt,
} from "../../../../src/topology/sentinel/answers.ts";
import { hex } from "../nodes.ts";

const FAR = "10.0.0.9:26379" as NodeId;

describe("an address", () => {
  it.each([
    [["10.0.0.1", "6379"], "10.0.0.1:6379"],
    [["Redis-1.example", "6379"], "redis-1.example:6379"],
    [["::1:2", "6379"], "[::1:2]:6379"],
    // It is the Sentinel's own machine that is meant.
    [["127.0.0.1", "6379"], "10.0.0.9:6379"],
    [null, null],
    [["10.0.0.1"], "nonsense"],
    [["10.0.0.1", "0"], "nonsense"],
    [["10.0.0.1", "65536"], "nonsense"],
    [["a b", "6379"], "nonsense"],
    [["", "6379"], "nonsense"],
    [[7, "6379"], "nonsense"],
    ["10.0.0.1:6379", "nonsense"],
    [undefined, "nonsense"],
  ])("%j is %j", (reply, expected) => {
    expect(readAddress(FAR, reply)).toBe(expected);
  });
});

describe("instances", () => {
  const replica = (more: readonly string[] = []) => ["name", "x", "ip", "10.0.0.2", "port", "6379", ...more];

  it("have an address, a run id and flags", () => {
    const reply = [replica(["runid", hex("b"), "flags", "slave,s_down"]), replica()];
    expect(readInstances(FAR, reply)).toEqual([
      { node: "10.0.0.2:6379", runId: hex("b"), flags: ["slave", "s_down"] },
      { node: "10.0.0.2:6379", runId: null, flags: [""] },
    ]);
  });

  it("that make no sense are left out", () => {
    const odd = [null, 7, [], ["ip"], ["ip", "10.0.0.3"], ["ip", "10.0.0.3", "port", "many"], [["ip"], "x"]];
    expect(readInstances(FAR, [...odd, replica()])).toHaveLength(1);
    for (const reply of [null, "x", 7, undefined, {}]) expect(readInstances(FAR, reply)).toEqual([]);
  });

  it("are bounded in number", () => {
    expect(
      readInstances(
        FAR,
        Array.from({ length: 1_000 }, () => replica()),
      ).length,
    ).toBe(64);
  });

  it("have the first of a field given twice", () => {
    expect(readInstances(FAR, [replica(["ip", "6.6.6.6"])])[0]?.node).toBe("10.0.0.2:6379");
  });
});

it("SENTINEL MASTER has epoch, quorum, others and flags, and who it is about", () => {
  const reply = ["config-epoch", "7", "quorum", "2", "num-other-sentinels", "-1", "flags", "master,o_down"];
  const about = { configEpoch: 7, quorum: 2, others: null, flags: ["master", "o_down"] };
  expect(readMaster(FAR, reply)).toEqual({ ...about, node: null, runId: null });
  const whole = [...reply, "ip", "127.0.0.1", "port", "6379", "runid", hex("a")];
  expect(readMaster(FAR, whole)).toEqual({ ...about, node: "10.0.0.9:6379", runId: hex("a") });
  expect(readMaster(FAR, [...reply, "runid", ""])?.runId, "not met yet").toBeNull();
  expect(readMaster(FAR, [])).toBeNull();
  expect(readMaster(FAR, "x")).toBeNull();
});

it("SENTINEL MYID is a run id or nothing", () => {
  expect(readRunId(hex("s"))).toBe(hex("s"));
  for (const reply of ["", "XYZ", null, 7, ["a"]]) expect(readRunId(reply)).toBeNull();
});

it("TILT is read off INFO", () => {
  expect(
    readTilt("# Sentinel\r\nsentinel_masters:1\r\nsentinel_tilt:1\r\nsentinel_running_scripts:0\r\n"),
  ).toBe(true);
  expect(readTilt("sentinel_tilt:0\r\n")).toBe(false);
  for (const reply of ["", "sentinel_tilt:x", "sentinel_tilt:11", null, 7])
    expect(readTilt(reply)).toBeNull();
});

describe("an event", () => {
  const ABOUT = "slave 10.0.0.2:6379 10.0.0.2 6379 @ mymaster 10.0.0.1 6379";

  it.each([
    ["+switch-master", "mymaster 10.0.0.1 6379 10.0.0.2 6379", "done", ["10.0.0.2:6379", "10.0.0.1:6379"]],
    ["+selected-slave", ABOUT, "running", ["10.0.0.2:6379", "10.0.0.1:6379"]],
    ["+promoted-slave", ABOUT, "done", ["10.0.0.2:6379", "10.0.0.1:6379"]],
    ["+odown", "master mymaster 10.0.0.1 6379 #quorum 2/2", "running", ["10.0.0.1:6379"]],
    ["+try-failover", "master mymaster 10.0.0.1 6379", "running", ["10.0.0.1:6379"]],
    ["-failover-abort-no-good-slave", "master mymaster 10.0.0.1 6379", "done", ["10.0.0.1:6379"]],
    [
      "+config-update-from",
      `sentinel ${hex("s")} 10.0.0.8 26379 @ mymaster 10.0.0.1 6379`,
      "done",
      ["10.0.0.1:6379"],
    ],
    ["+tilt", "#tilt mode entered", "tilt", []],
    ["+switch-master", "mymaster 10.0.0.1 6379 nowhere", "done", ["10.0.0.1:6379"]],
  ])("%s %s", (channel, text, kind, nodes) => {
    expect(readEvent(FAR, "mymaster", channel, text)).toEqual({ kind, nodes });
  });

  it.each([
    ["+switch-master", "other 10.0.0.1 6379 10.0.0.2 6379"],
    ["+odown", "master other 10.0.0.1 6379"],
    ["+slave", "slave x 10.0.0.2 6379 @ other 10.0.0.1 6379"],
    ["+slave", "slave mymaster"],
    ["+slave", ""],
    ["+monitor", "master mymaster 10.0.0.1 6379"],
    ["toString", "master mymaster 10.0.0.1 6379"],
  ])("of another group or kind is none: %s %s", (channel, text) => {
    expect(readEvent(FAR, "mymaster", channel, text)).toBeNull();
  });
});

it("whatever is answered, nothing throws", () => {
  const reply = fc.anything({ withNullPrototype: true });
  const channel = fc.constantFrom(...Object.keys(CHANNELS));
  fc.assert(
    fc.property(reply, channel, fc.string(), (odd, name, text) => {
      readAddress(FAR, odd);
      readMaster(FAR, odd);
      readInstances(FAR, odd);
      readInstances(FAR, [odd]);
      readRunId(odd);
      readTilt(odd);
      readEvent(FAR, "mymaster", name, text);
    }),
    { numRuns: 2_000 },
  );
});
