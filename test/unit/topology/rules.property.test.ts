import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Epoch } from "../../../src/topology/epoch.ts";
import { type Belief, type Contact, FIRST_BELIEF, type NodeView } from "../../../src/topology/rules/model.ts";
import { adopt, type Decision, decide, suspect } from "../../../src/topology/rules.ts";
import { at, MAX_LAG_MS, naming, report } from "./nodes.ts";

const NAMES = ["a", "b", "c", "d"] as const;
const HISTORIES = ["H1", "H2", "H3"] as const;

/** What one node is at one moment, out of a universe so small that everything meets everything. */
const nodeState = fc.record({
  contact: fc.constantFrom<Contact>(
    "answering",
    "answering",
    "answering",
    "unreachable",
    "silent",
    "loading",
  ),
  isMaster: fc.boolean(),
  replid: fc.constantFrom(...HISTORIES),
  replid2: fc.constantFrom(...HISTORIES, null),
  fork: fc.integer({ min: 0, max: 4 }),
  offset: fc.integer({ min: 0, max: 4 }),
  generation: fc.constantFrom(1, 1, 1, 2),
  linkUp: fc.boolean(),
  syncInProgress: fc.constantFrom(false, false, true),
  loading: fc.constantFrom(false, false, false, true),
  keys: fc.constantFrom(0, 5, 5),
  aof: fc.boolean(),
  of: fc.constantFrom(...NAMES),
});
type NodeState = typeof nodeState extends fc.Arbitrary<infer T> ? T : never;

type Step =
  | {
      readonly kind: "round";
      readonly states: readonly (NodeState | null)[];
      /** Whom the Sentinels name. */
      readonly named: string | null;
    }
  | { readonly kind: "evidence"; readonly node: number; readonly ageEpochs: number }
  | { readonly kind: "adopt"; readonly node: number };

const round = fc.record({
  kind: fc.constant("round" as const),
  // null: nothing new of that node
  states: fc.tuple(...NAMES.map(() => fc.option(nodeState, { freq: 2 }))),
  named: fc.constantFrom(null, null, null, ...NAMES),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: round },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("evidence" as const),
      node: fc.nat(NAMES.length - 1),
      ageEpochs: fc.constantFrom(0, 0, 1),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("adopt" as const), node: fc.nat(NAMES.length - 1) }),
  },
);

function see(name: string, state: NodeState, nowMs: number, before: NodeView): NodeView {
  if (state.contact !== "answering") return { ...before, contact: state.contact };
  const said = report(name, nowMs, {
    run: `${name}${state.generation}`,
    replid: state.replid,
    replid2: state.replid2 === state.replid ? null : state.replid2,
    masterReplOffset: state.offset,
    role: state.isMaster ? "master" : "replica",
    linkUp: !state.isMaster && state.linkUp,
    syncInProgress: !state.isMaster && state.syncInProgress,
    loading: state.loading,
    keys: state.keys,
    aof: state.aof,
    masterAddress: state.isMaster ? null : { host: state.of, port: 6379 },
  });
  const secondReplOffset = said.replid2 === null ? null : state.fork + 1;
  return { ...before, contact: "answering", report: { ...said, secondReplOffset } };
}

interface World {
  belief: Belief;
  views: NodeView[];
  nowMs: number;
  /** Every master of every epoch number. */
  masters: Map<number, Set<string | null>>;
  /** "run id:replid" of claims made while another master was well. */
  refused: Set<string>;
  /** Whom the Sentinels named in the last round. */
  named: string | null;
}

function newWorld(): World {
  const unseen = { seed: true, contact: "never", detail: "", report: null } as const;
  return {
    belief: FIRST_BELIEF,
    views: NAMES.map((name) => ({ id: at(name), ...unseen })),
    nowMs: 0,
    masters: new Map(),
    refused: new Set(),
    named: null,
  };
}

function play(world: World, action: Step): Decision | null {
  world.nowMs += 100;
  const moment = { nowMs: world.nowMs, maxLagMs: MAX_LAG_MS };
  switch (action.kind) {
    case "evidence": {
      const epoch = world.belief.epoch.number - action.ageEpochs;
      const evidence = { kind: "connection-lost", node: at(NAMES[action.node]!), epoch } as const;
      world.belief = suspect(world.belief, evidence, world.nowMs);
      return null;
    }
    case "adopt": {
      const result = adopt(world.belief, world.views, at(NAMES[action.node]!), moment);
      return result.ok ? result.decision : null;
    }
    case "round":
      world.views = world.views.map((old, index) => {
        const state = action.states[index];
        return state === null || state === undefined ? old : see(NAMES[index]!, state, world.nowMs, old);
      });
      world.named = action.named;
      if (action.named === null) return decide(world.belief, world.views, moment);
      return decide(world.belief, world.views, { ...moment, sentinels: naming(action.named) });
  }
}

function checkSteps(before: Epoch, after: Epoch): void {
  expect(after.number).toBeGreaterThanOrEqual(before.number);
  expect(after.number - before.number).toBeLessThanOrEqual(1);
  if (after.number === before.number) expect(after.master).toBe(before.master);
  else expect(after.master).not.toBe(before.master);
  expect(after.history === null).toBe(after.master === null);
  if (after.master === null) expect(after.holdCause).not.toBeNull();
}

function checkMaster(world: World, epoch: Epoch): void {
  if (epoch.holdCause !== null) return;
  const view = world.views.find(({ id }) => id === epoch.master);
  expect(view).toMatchObject({ contact: "answering", report: { role: "master", loading: false } });
  expect(view?.report?.replid).toBe(epoch.history?.replid);
}

function checkReaders(world: World, epoch: Epoch): void {
  for (const { id } of epoch.readable) {
    expect(id).not.toBe(epoch.master);
    const view = world.views.find((candidate) => candidate.id === id);
    expect(view).toMatchObject({
      contact: "answering",
      report: { role: "replica", loading: false, syncInProgress: false, replid: epoch.history?.replid },
    });
    if (epoch.holdCause === null) expect(view?.report?.linkUp).toBe(true);
  }
}

/** An accepted master is one by a rule that this checks again, from the views alone where it can. */
function checkChange(world: World, before: Belief, decision: Decision): void {
  const { change } = decision;
  if (change === null) {
    expect(decision.belief.epoch.history).toEqual(before.epoch.history);
    return;
  }
  const said = world.views.find(({ id }) => id === change.to)?.report;
  expect(said).toMatchObject({ role: "master", loading: false });
  const others = world.views.filter(({ id, contact }) => id !== change.to && contact === "answering");
  const claim = `${said?.runId}:${said?.replid}`;
  switch (change.reason) {
    case "first":
      expect(before.master).toBeNull();
      return;
    case "promoted":
    case "re-promoted":
      expect(before.instances.has(said!.runId) || wasJustSeen(world, before)).toBe(true);
      expect(world.refused.has(claim)).toBe(false);
      return;
    case "complete":
      expect(world.refused.has(claim)).toBe(false);
      expect(said?.replid2).toBe(before.master?.replid);
      expect(change.lostBytes).toBe(0);
      return;
    case "restarted":
      expect(change).toMatchObject({ kind: "return", lostBytes: 0 });
      return;
    case "reloaded":
      expect(change.kind).toBe("return");
      expect(said).toMatchObject({ replid2: null, aof: true });
      return;
    case "renamed":
      expect(change).toMatchObject({ kind: "return", lostBytes: 0 });
      expect(said).toMatchObject({ runId: before.master?.runId, replid2: null });
      return;
    case "followed": {
      const former = others.find(({ id }) => id === before.epoch.master);
      expect(former?.report).toMatchObject({ role: "replica", linkUp: true, replid: said?.replid });
      return;
    }
    case "unanimous":
      for (const other of others) {
        expect(other.report).toMatchObject({ role: "replica", linkUp: true, replid: said?.replid });
      }
      expect(said!.keys > 0 || before.master?.keys === 0).toBe(true);
      return;
    case "sentinel": {
      expect(world.views.find(({ id }) => id === change.to)?.contact).toBe("answering");
      expect(said!.keys > 0 || before.master?.keys === 0).toBe(true);
      const former = world.views.find(({ id }) => id === before.epoch.master);
      const isWell =
        former?.contact === "answering" &&
        former.report?.role === "master" &&
        former.report.runId === before.master?.runId &&
        former.report.replid === before.master.replid &&
        !former.report.loading;
      // Then it was one of several that were promoted to succeed it.
      const rivals = world.views.filter(
        ({ id, report: other }) => id !== change.to && other?.role === "master",
      );
      if (isWell) expect(rivals.length).toBeGreaterThanOrEqual(2);
      return;
    }
    case "operator":
      expect(before.epoch.holdCause).not.toBeNull();
      return;
  }
}

function wasJustSeen(world: World, before: Belief): boolean {
  return world.views.some(({ report: said }) => said?.replid === before.master?.replid);
}

function noteRefused(world: World): void {
  const { epoch } = world.belief;
  if (epoch.holdCause !== null) return;
  for (const { id, contact, report: said } of world.views) {
    if (id === epoch.master || contact !== "answering" || said?.role !== "master" || said.loading) continue;
    if (world.belief.suspicions.some(({ node }) => node === id)) continue;
    world.refused.add(`${said.runId}:${said.replid}`);
  }
}

describe("whatever the nodes say, in whatever order,", () => {
  it("there is one master per epoch, epochs only go on, and only a rule makes a master (40, 41, 42)", {
    timeout: 60_000,
  }, () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 25 }), (steps) => {
        const world = newWorld();
        for (const action of steps) {
          const before = world.belief;
          const decision = play(world, action);
          if (decision !== null) {
            checkChange(world, before, decision);
            world.belief = decision.belief;
            checkMaster(world, world.belief.epoch);
            checkReaders(world, world.belief.epoch);
            if (decision.change === null) noteRefused(world);
          }
          const { epoch } = world.belief;
          checkSteps(before.epoch, epoch);
          const masters = world.masters.get(epoch.number) ?? new Set();
          world.masters.set(epoch.number, masters.add(epoch.master));
          expect(masters.size).toBe(1);
        }
      }),
      { numRuns: 3_000 },
    );
  });

  it("a switch happens in such a world at all, by each of the rules", () => {
    const reasons = new Set<string>();
    const samples = fc.sample(fc.array(step, { minLength: 5, maxLength: 25 }), { numRuns: 4_000, seed: 7 });
    for (const steps of samples) {
      const world = newWorld();
      for (const action of steps) {
        const decision = play(world, action);
        if (decision === null) continue;
        world.belief = decision.belief;
        if (decision.change !== null) reasons.add(decision.change.reason);
      }
    }
    expect([...reasons].sort()).toEqual(
      [
        "complete",
        "first",
        "followed",
        "operator",
        "promoted",
        "re-promoted",
        "reloaded",
        "renamed",
        "restarted",
        "sentinel",
        "unanimous",
      ].sort(),
    );
  });
});
