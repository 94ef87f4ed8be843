import { describe, expect, it, onTestFinished } from "vitest";
import { Chronicle } from "../../../src/admin/chronicle.ts";
import { type Doubt, Failovers, type SwitchNews } from "../../../src/admin/failovers.ts";
import { Counters } from "../../../src/metrics.ts";
import type { NodeId } from "../../../src/topology/epoch.ts";

const NODE = "a:1" as NodeId;
const NO_DOUBT: Doubt = { clients: 0, ms: 0 };

/** The master is back with another history, of which so much is known. */
function returnedWith(lostBytes: number | null, doubt: Doubt) {
  const counters = new Counters();
  const progress = {
    ...{ heldNow: () => 0, retiringNow: () => 0, nowMs: () => 0 },
    lossKnownAtMs: () => Number.POSITIVE_INFINITY,
  };
  const failovers = new Failovers({ keep: 10, counters, progress, onFinished: () => {} });
  onTestFinished(() => failovers.finish());
  const lines: object[] = [];
  const log = { info: () => {}, warn: (fields: object) => void lines.push(fields) };
  const news: SwitchNews = {
    ...{ atMs: 1_000, epochNumber: 1, from: NODE, to: NODE, reason: "unanimous", seenBy: "probe" },
    ...{ detail: "", lostBytes, masterGoneAtMs: 800, doubt },
  };
  new Chronicle(log, counters, failovers).returned(news);
  return { counters, lines, records: failovers.records };
}

describe("a master that is back with another history", () => {
  it.each([
    ["lost bytes", 70, NO_DOUBT, { lostBytes: 70, switchesLossUnknown: 0 }],
    ["may have lost anything", null, NO_DOUBT, { lostBytes: 0, switchesLossUnknown: 1 }],
    ["may lack what it answered last", 0, { clients: 2, ms: 90 }, { lostBytes: 0, switchesLossUnknown: 0 }],
  ])("%s: log, metric, PROXY FAILOVERS (16, 41)", (_, lostBytes, doubt, counted) => {
    const { counters, lines, records } = returnedWith(lostBytes, doubt);
    expect(lines).toMatchObject([{ lostBytes, doubtMs: doubt.ms, doubtClients: doubt.clients }]);
    expect(counters).toMatchObject({ ...counted, switches: 0 });
    expect(records).toMatchObject([{ from: NODE, to: NODE, lostBytes, doubt, holdMs: 200 }]);
  });

  it("has all that it ever had: it is no switch, and none is recorded (13)", () => {
    const { counters, records } = returnedWith(0, NO_DOUBT);
    expect(records).toEqual([]);
    expect(counters).toMatchObject({ lostBytes: 0, switchesLossUnknown: 0 });
  });
});
