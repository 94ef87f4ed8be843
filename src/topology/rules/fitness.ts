/**
 * PURE. Which nodes may be read, and up to when their data is proven to be complete.
 */

import type { Epoch, NodeId, ReadableNode } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
import type { Belief, Fitness, FitVerdict, MasterBelief, NodeView, Proof } from "./model.ts";
import { behindForMs, lagMs, provenAt } from "./samples.ts";
import { isLive, isSuspected, type Scene } from "./scene.ts";

export interface FitnessResult {
  readonly readable: readonly ReadableNode[];
  readonly fitness: ReadonlyMap<NodeId, Fitness>;
  readonly proofs: ReadonlyMap<NodeId, Proof>;
}

/** Judges all nodes against `belief`, whose master and epoch are those of this moment. */
export function judgeFitness(belief: Belief, scene: Scene, bounds: LagBounds): FitnessResult {
  const readable: ReadableNode[] = [];
  const fitness = new Map<NodeId, Fitness>();
  const proofs = new Map<NodeId, Proof>();
  for (const view of scene.all) {
    const proof = proveNode(belief, view);
    if (proof !== null) proofs.set(view.id, proof);
    const judged = judgeNode(belief, scene, view, bounds);
    fitness.set(view.id, judged);
    if (judged.verdict === "fit") {
      readable.push({ id: view.id, provenAtMs: proof?.provenAtMs ?? Number.NEGATIVE_INFINITY });
    }
  }
  readable.sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  return { readable, fitness, proofs };
}

function judgeNode(belief: Belief, scene: Scene, view: NodeView, bounds: LagBounds): Fitness {
  const { master, epoch } = belief;
  const carries = master !== null && view.report !== null && view.report.replid === master.replid;
  const lag = carries ? lagMs(master.samples, view.report.appliedOffset) : null;
  const lagBytes = carries ? Math.max(0, master.lastSeenOffset - view.report.appliedOffset) : null;
  const unfit = unfitness(master, scene, view, epoch);
  if (unfit !== null || master === null || view.report === null) {
    return { verdict: unfit ?? "no-master-known", lagMs: lag, lagBytes };
  }
  const leastLagMs = behindForMs(master.samples, view.report.appliedOffset);
  const before = belief.fitness.get(view.id)?.verdict ?? "fit";
  return { verdict: judgeLag({ lagMs: lag, leastLagMs, lagBytes }, before, bounds), lagMs: lag, lagBytes };
}

export interface LagBounds {
  readonly maxLagMs: number;
  /** 0 or none: no bound. */
  readonly maxLagBytes?: number;
}

export interface Lag {
  /** At most, ms; null = unknown. */
  readonly lagMs: number | null;
  /** At least, ms: the two are as far apart as two looks at the master. */
  readonly leastLagMs: number;
  readonly lagBytes: number | null;
}

/**
 * Out at once; back, for one that was out because of its lag, only within half of both bounds, so that one
 * that is as slow as the bound does not come and go. There the lag is taken at its least: half of a bound may
 * be shorter than the time between two looks at the master.
 */
export function judgeLag(lag: Lag, before: FitVerdict, { maxLagMs, maxLagBytes = 0 }: LagBounds): FitVerdict {
  if (lag.lagMs === null || lag.lagBytes === null) return "lag-unknown";
  if (lag.lagMs > maxLagMs) return "lagging-time";
  const most = maxLagBytes === 0 ? Number.POSITIVE_INFINITY : maxLagBytes;
  if (lag.lagBytes > most) return "lagging-bytes";
  if (!isBehind(before)) return "fit";
  return lag.leastLagMs <= maxLagMs / 2 && lag.lagBytes <= most / 2 ? "fit" : "catching-up";
}

/** Nothing but its lag speaks against it. */
export function isBehind(verdict: FitVerdict): boolean {
  switch (verdict) {
    case "lag-unknown":
    case "lagging-time":
    case "lagging-bytes":
    case "catching-up":
      return true;
    case "fit":
    case "no-master-known":
    case "is-master":
    case "alias":
    case "unreachable":
    case "suspected":
    case "claims-master":
    case "loading":
    case "syncing":
    case "other-history":
    case "link-down":
      return false;
  }
}

/** What speaks against reading from it, its lag apart; null = nothing. */
function unfitness(
  master: MasterBelief | null,
  scene: Scene,
  view: NodeView,
  epoch: Epoch,
): FitVerdict | null {
  if (master === null) return "no-master-known";
  if (view.id === master.id) return "is-master";
  if (scene.aliases.has(view.id)) return "alias";
  if (!isLive(view)) return "unreachable";
  if (isSuspected(scene, view.id)) return "suspected";
  const { report } = view;
  if (report.role === "master") return "claims-master";
  if (report.loading) return "loading";
  if (report.syncInProgress) return "syncing";
  if (report.replid !== master.replid) return "other-history";
  // Without a master every link goes down, and what the replica has is still what was answered to clients.
  if (!report.linkUp && epoch.holdCause === null) return "link-down";
  return null;
}

/**
 * The proof only grows as long as the same process moves on within the same history. A restarted replica may
 * have read an older file, so it starts again from what it has.
 */
function proveNode(belief: Belief, view: NodeView): Proof | null {
  const { master } = belief;
  const { report } = view;
  if (master === null || report === null || !isReplicaOf(report, master)) return null;
  const before = belief.proofs.get(view.id);
  const goesOn =
    before !== undefined && before.runId === report.runId && before.appliedOffset <= report.appliedOffset;
  const proven = provenAt(master.samples, report.appliedOffset);
  return {
    runId: report.runId,
    appliedOffset: report.appliedOffset,
    provenAtMs: goesOn ? Math.max(before.provenAtMs, proven) : proven,
  };
}

function isReplicaOf(report: NodeReport, master: MasterBelief): boolean {
  return report.role === "replica" && report.replid === master.replid && report.node !== master.id;
}
