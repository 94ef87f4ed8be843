/**
 * A world small enough to look at all of it: two or three nodes, one proxy's belief and failover machine, a
 * few writes, a few faults. Plain immutable data; what can happen next is in actions.ts.
 */

import { step } from "../../../../src/failover/machine.ts";
import type {
  CommandResult,
  Effect,
  Event,
  NodeCommand,
  PromoteMode,
} from "../../../../src/failover/model.ts";
import { firstState, type Settings, type State } from "../../../../src/failover/state.ts";
import type { NodeId } from "../../../../src/topology/epoch.ts";
import type { NodeReport } from "../../../../src/topology/report.ts";
import {
  type Belief,
  type Contact,
  FIRST_BELIEF,
  type NodeView,
} from "../../../../src/topology/rules/model.ts";
import { type Decision, decide, renounce, suspect } from "../../../../src/topology/rules.ts";
import type { GroupSight } from "../../../../src/topology/watcher.ts";

export interface Setup {
  readonly mode: PromoteMode;
  readonly nodes: 2 | 3;
  readonly version: "7.0.15" | "5.0.14";
  /** Faults of any kind in one run. */
  readonly faults: number;
  readonly writes: number;
  /** An operator asks for a planned switch, once. */
  readonly asks: boolean;
  /** Nodes are looked at one by one, in any order, or all at a time. */
  readonly probes: "each" | "all";
  /** The last node must not be promoted. */
  readonly lastNever?: boolean;
  /** Faults of these names; default: all there are. */
  readonly only?: RegExp;
}

export interface MNode {
  readonly state: "up" | "down" | "hung";
  /** The proxy cannot reach it. */
  readonly cut: boolean;
  /** The index of its master; -1 = it is one. */
  readonly of: number;
  readonly replid: string;
  readonly replid2: string | null;
  readonly fork: number;
  /** A letter for each write: its offset is its length. */
  readonly log: string;
  readonly life: number;
  readonly link: boolean;
  readonly handover: { readonly to: number; readonly state: "waiting" | "asked" } | null;
  readonly pausedUntilMs: number;
}

/** way: not carried out yet; late: given up by us, may be carried out still; back: its end is to be told. */
export interface Sent {
  readonly id: number;
  readonly node: number;
  readonly command: NodeCommand;
  readonly stage: "way" | "late" | "back";
  readonly result: CommandResult;
}

export interface MWrite {
  readonly stage: "unsent" | "sent" | "ran" | "refused" | "acked" | "uncertain";
  readonly node: number;
}

export interface World {
  readonly nowMs: number;
  readonly nodes: readonly MNode[];
  readonly views: readonly NodeView[];
  readonly belief: Belief;
  readonly machine: State;
  readonly wakeAtMs: number;
  readonly isHolding: boolean;
  readonly isDrainAwaited: boolean;
  readonly isConfirming: boolean;
  /** SENTINEL FAILOVER: the number of the question; it may also be carried out later. */
  readonly sentinel: { readonly id: number; readonly stage: "way" | "back" | "later" } | null;
  readonly sent: readonly Sent[];
  readonly writes: readonly MWrite[];
  readonly faults: number;
  /** A node died or was promoted by somebody: what is lost by that is not lost by a planned switch. */
  readonly isDisturbed: boolean;
  /** Somebody promoted a node behind the proxy's back. */
  readonly isMeddledWith: boolean;
  readonly asked: "no" | "open" | "done" | "refused" | "rolled-back";
  readonly hasAsked: boolean;
  /** The number of the epoch in which it was asked. */
  readonly askedIn: number;
  /** The node that was told to become the master in this epoch; -1 = none. */
  readonly promoted: number;
  readonly masters: readonly (NodeId | null)[];
}

export const IDS = ["a:6379", "b:6379", "c:6379"] as unknown as readonly NodeId[];
/** So short that no deadline comes by itself: time passes where an action says so. */
const MOMENT_MS = 0.001;

/** What is found out on the way, for the whole exploration. */
export class Findings {
  readonly violations: string[] = [];
  readonly jobs = new Set<string>();
  readonly events = new Set<string>();
  readonly effects = new Set<string>();
  readonly commands = new Set<string>();
  readonly answers = new Set<string>();

  violation(text: string): void {
    this.violations.push(text);
  }
}

export class Model {
  readonly setup: Setup;
  readonly settings: Settings;
  readonly found: Findings;
  #replids = 1;

  constructor(setup: Setup, found: Findings) {
    this.setup = setup;
    this.settings = { mode: setup.mode, downAfterMs: 1_000, crashGraceMs: 100 };
    this.found = found;
  }

  nextReplid(): string {
    return `H${++this.#replids}_`;
  }

  first(): World {
    const nodes: MNode[] = IDS.slice(0, this.setup.nodes).map((_, index) => ({
      ...{ state: "up", cut: false, of: index === 0 ? -1 : 0, replid: "H1_", replid2: null, fork: 0 },
      ...{ log: "s", life: 0, link: index > 0, handover: null, pausedUntilMs: 0 },
    }));
    const unseen = { seed: true, contact: "never", detail: "", report: null } as const;
    let world: World = {
      ...{ nowMs: 0, nodes, views: nodes.map((_, index) => ({ id: IDS[index]!, ...unseen })) },
      ...{ belief: FIRST_BELIEF, machine: firstState(this.setup.mode), wakeAtMs: Number.POSITIVE_INFINITY },
      ...{ isHolding: false, isDrainAwaited: false, isConfirming: false, sentinel: null, sent: [] },
      writes: Array.from({ length: this.setup.writes }, () => ({ stage: "unsent", node: -1 }) as const),
      ...{
        faults: this.setup.faults,
        isDisturbed: false,
        isMeddledWith: false,
        asked: "no",
        hasAsked: false,
        askedIn: 0,
        promoted: -1,
        masters: [],
      },
    };
    for (let round = 0; round < 2; round++)
      for (const index of nodes.keys()) world = this.probe(world, index);
    // Where it may never promote, nobody tells it that it may.
    const isAlone = this.setup.mode === "self";
    return isAlone ? this.take(world, { kind: "standing", standing: { kind: "sole" } }) : world;
  }

  moved(world: World): World {
    return { ...world, nowMs: world.nowMs + MOMENT_MS };
  }

  // The proxy

  sight(world: World): GroupSight {
    const { epoch, master, instances } = world.belief;
    const aliases = new Map<NodeId, NodeId>();
    return { epoch, master, instances, nodes: world.views, aliases, awakeSinceMs: Number.NEGATIVE_INFINITY };
  }

  canWrite({ belief, isHolding }: World): boolean {
    return belief.epoch.master !== null && belief.epoch.holdCause === null && !isHolding;
  }

  masterOf({ belief }: World): number {
    return belief.epoch.master === null ? -1 : IDS.indexOf(belief.epoch.master);
  }

  probe(world: World, index: number): World {
    const before = world.views[index]!;
    const node = world.nodes[index]!;
    const contact: Contact =
      node.cut || node.state === "hung" ? "silent" : node.state === "down" ? "unreachable" : "answering";
    const report = contact === "answering" ? this.#report(world, node, index) : before.report;
    const view: NodeView = { ...before, contact, report };
    const views = world.views.map((one, i) => (i === index ? view : one));
    // A round that is not over tells nothing: see the batches of the watcher.
    const next = { ...world, views };
    return this.#apply(next, decide(world.belief, views, { nowMs: world.nowMs, maxLagMs: 10_000 }));
  }

  #report(world: World, node: MNode, index: number): NodeReport {
    const isReplica = node.of >= 0;
    const offset = node.log.length;
    // One literal: this is built for every look in every state.
    return {
      node: IDS[index]!,
      sentAtMs: world.nowMs,
      receivedAtMs: world.nowMs,
      runId: `${index}.${node.life}`,
      version: this.setup.version,
      loading: false,
      keys: offset,
      role: isReplica ? "replica" : "master",
      replid: node.replid,
      replid2: node.replid2,
      secondReplOffset: node.replid2 === null ? null : node.fork + 1,
      aof: false,
      shutdownInMs: null,
      masterReplOffset: offset,
      appliedOffset: offset,
      receivedOffset: offset,
      heardSecondsAgo: null,
      linkUp: node.link,
      linkDownForMs: null,
      syncInProgress: false,
      readOnly: true,
      replicas: [],
      masterAddress: isReplica ? { host: IDS[node.of]!.slice(0, 1), port: 6379 } : null,
      priority: this.setup.lastNever === true && index === world.nodes.length - 1 ? 0 : 100,
      failoverState:
        node.handover === null
          ? "no-failover"
          : node.handover.state === "waiting"
            ? "waiting-for-sync"
            : "failover-in-progress",
    };
  }

  #apply(before: World, { belief, change }: Decision): World {
    let world: World = { ...before, belief };
    if (change !== null) world = this.#switched(world, change.from, change.lostBytes);
    return this.take(world, { kind: "seen", group: this.sight(world) });
  }

  #switched(before: World, from: NodeId | null, lostBytes: number | null): World {
    const { number, master } = before.belief.epoch;
    const known = before.masters[number];
    if (known !== undefined && known !== master) this.found.violation(`epoch ${number} has two masters`);
    const masters = [...before.masters];
    masters[number] = master;
    let world: World = { ...before, masters, promoted: -1 };
    const wasPlanned = before.isHolding && before.machine.job.kind === "switchover" && !before.isDisturbed;
    if (wasPlanned) this.#judgeKept(before);
    // What is in flight to another master has no known end.
    const writes = world.writes.map((one) => {
      const isLost = (one.stage === "sent" || one.stage === "ran") && IDS[one.node] !== master;
      return isLost ? ({ ...one, stage: "uncertain" } as const) : one;
    });
    world = { ...world, writes };
    return from === null || from === master ? world : this.take(world, { kind: "switched", lostBytes });
  }

  /** In a planned switch nothing that was answered is lost. */
  #judgeKept(world: World): void {
    const node = world.nodes[this.masterOf(world)];
    for (const [i, { stage }] of world.writes.entries()) {
      if (stage === "acked" && node?.log.includes(`${i}`) !== true) {
        this.found.violation(`write ${i} was answered and is lost in a planned switch`);
      }
    }
  }

  suspect(world: World, index: number): World {
    const { number } = world.belief.epoch;
    const evidence = { kind: "connection-lost", node: IDS[index]!, epoch: number } as const;
    return { ...world, belief: suspect(world.belief, evidence, world.nowMs) };
  }

  take(world: World, event: Event): World {
    this.found.events.add(event.kind);
    const { state, effects } = step(world.machine, event, world.nowMs, this.settings);
    const { job } = state;
    this.found.jobs.add(job.kind === "switchover" ? `${job.kind} ${job.phase}` : job.kind);
    let next: World = { ...world, machine: state };
    for (const effect of effects) next = this.#carryOut(next, effect);
    return next;
  }

  #carryOut(world: World, effect: Effect): World {
    const { found } = this;
    found.effects.add(effect.kind);
    switch (effect.kind) {
      case "run":
        return this.#run(world, effect.id, effect.node, effect.command);
      case "ask-sentinel":
        return { ...world, sentinel: { id: effect.id, stage: "way" } };
      case "confirm":
        if (world.isConfirming) found.violation("confirms twice at a time");
        return { ...world, isConfirming: true };
      case "hold":
        if (world.isHolding) found.violation("holds what is held");
        return { ...world, isHolding: true, isDrainAwaited: true };
      case "release":
        if (!world.isHolding) found.violation("releases what is not held");
        return { ...world, isHolding: false, isDrainAwaited: false };
      case "renounce":
        return { ...world, belief: renounce(world.belief, world.views, effect.node) };
      case "wake":
        return { ...world, wakeAtMs: Math.min(world.wakeAtMs, effect.atMs) };
      case "answer":
        return this.#answered(world, effect);
      case "look":
      case "tell":
        return world;
    }
  }

  #run(world: World, id: number, node: NodeId, command: NodeCommand): World {
    const { found, setup } = this;
    found.commands.add(command.kind);
    const index = IDS.indexOf(node);
    if (world.nodes[index] === undefined) found.violation(`${node} is no member and gets ${command.kind}`);
    if (setup.mode !== "self" && !world.hasAsked) found.violation(`${command.kind} though nobody asked`);
    let { promoted } = world;
    if (command.kind === "promote") {
      this.#judgePromotion(world, index);
      promoted = index;
    }
    // Nothing depends on when it is done, or whether.
    if (command.kind === "keep-role") return world;
    const sent: Sent = { id, node: index, command, stage: "way", result: { kind: "done" } };
    return { ...world, promoted, sent: [...world.sent, sent] };
  }

  #judgePromotion(world: World, index: number): void {
    const { found } = this;
    const report = world.views[index]?.report;
    const { master } = world.belief;
    if (!world.isHolding) found.violation("promotes without a hold");
    if (report?.priority === 0) found.violation("promotes a node with priority 0");
    if (report?.replid !== master?.replid) found.violation("promotes a node of another history");
    const first = world.nodes[world.promoted];
    const isPending = world.sent.some(
      ({ node, command, stage }) => node === world.promoted && command.kind === "promote" && stage === "way",
    );
    const couldBe = isPending || (first?.of === -1 && first.state === "up" && !first.cut);
    if (world.promoted >= 0 && world.promoted !== index && couldBe) {
      found.violation("promotes a second node while the first may be the master");
    }
  }

  #answered(world: World, { answer }: Extract<Effect, { kind: "answer" }>): World {
    const { found } = this;
    found.answers.add(answer.kind);
    if (world.asked !== "open") found.violation(`a second answer: ${answer.kind}`);
    const { job } = world.machine;
    if (answer.kind === "done") {
      if (answer.report.to !== world.belief.epoch.master)
        found.violation("done, and another one is the master");
      const { lostBytes, via } = answer.report;
      if (via === "failover" && lostBytes !== 0 && world.faults === this.setup.faults) {
        found.violation("done with a loss although nothing went wrong");
      }
    }
    if (answer.kind === "rolled-back" && job.kind === "none") this.#judgeRollBack(world);
    return { ...world, asked: answer.kind === "open" ? "done" : answer.kind };
  }

  #judgeRollBack(world: World): void {
    const { found } = this;
    if (world.belief.epoch.number !== world.askedIn) found.violation("rolled back, and there was a switch");
    const isOut = world.sent.some(
      ({ command, stage }) => (command.kind === "promote" || command.kind === "failover") && stage === "way",
    );
    if (isOut) found.violation("rolled back while the new master is being made");
  }
}
