import { describe, expect, it } from "vitest";
import { addressOf } from "../../../src/config/address.ts";
import { configWith } from "../../../src/config/schema.ts";
import { Counters } from "../../../src/metrics.ts";
import { Router } from "../../../src/routing/router.ts";
import type { Epoch, NodeId } from "../../../src/topology/epoch.ts";
import { Turn } from "../../../src/turn.ts";

const A = "a:6379" as NodeId;
const B = "b:6379" as NodeId;

function epochWith(provenAtMs: number, changes: Partial<Epoch> = {}): Epoch {
  return {
    ...{ number: 1, master: A, history: { replid: "H1", offset: 1 }, holdCause: null, stoppedAtMs: null },
    readable: [{ id: B, provenAtMs }],
    ...changes,
  };
}

function setUp() {
  const fail = (error: unknown): never => {
    throw error;
  };
  const router = new Router({
    ...{
      config: configWith({ nodes: [A], listen: "127.0.0.1:0" }),
      counters: new Counters(),
      turn: new Turn(fail),
      nowMs: () => 1_000,
    },
    ...{ addressOf, onEvidence: () => undefined, onFault: fail },
  });
  const told = { retries: 0, routings: 0 };
  const waits = {
    heldSinceMs: 1_000,
    lacks: "master" as const,
    heldBytes: () => 1,
    retry: () => void told.retries++,
    expire: () => undefined,
  };
  router.observers.add({ onRouting: () => void told.routings++ });
  router.setEpoch(epochWith(10), null);
  router.hold.add(waits);
  told.routings = 0;
  return { router, told };
}

describe("an epoch in which replicas have only proven more", () => {
  it("is seen where reads go and by observers, and lets nobody choose or try anew (7)", () => {
    const { router, told } = setUp();
    const target = router.readTarget(0, router.readLot(0));
    const { version } = router;
    router.setEpoch(epochWith(20), null);
    expect(router.readTarget(0, router.readLot(0))).toBe(target);
    expect(target).toMatchObject({ node: B, provenAtMs: 20 });
    expect(router.epoch.readable).toEqual([{ id: B, provenAtMs: 20 }]);
    expect(router.version).toBe(version);
    expect(told).toEqual({ retries: 0, routings: 1 });
    router.destroy();
  });

  it.each<[string, Epoch, number | null]>([
    ["held", epochWith(20, { holdCause: "silent" }), null],
    ["another master", epochWith(20, { number: 2, master: B, readable: [] }), 15],
    ["the same master with a new history", epochWith(20, { history: { replid: "H2", offset: 1 } }), 15],
    ["other readers", epochWith(20, { readable: [] }), null],
  ])("is not one with %s: whoever waits tries again", (_, epoch, keptUntilMs) => {
    const { router, told } = setUp();
    router.setEpoch(epoch, keptUntilMs);
    expect(told.retries).toBe(1);
    router.destroy();
  });
});
