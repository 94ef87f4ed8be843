/**
 * PURE. Which nodes may be read, and up to when their data is proven to be complete.
 */

import type { Epoch, NodeId, ReadableNode } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
import type { Belief, Fitness, FitVerdict, MasterBelief, NodeView, Proof } from "./model.ts";
import { lagMs, provenAt } from "./samples.ts";
import { isLive, isSuspected, type Scene } from "./scene.ts";

export interface FitnessResult {
  readonly readable: readonly ReadableNode[];
  readonly fitness: ReadonlyMap<NodeId, Fitness>;
  readonly proofs: ReadonlyMap<NodeId, Proof>;
}

/** Judges all nodes against `belief`, whose master and epoch are those of this moment. */
export function judgeFitness(belief: Belief, scene: Scene, maxLagMs: number): FitnessResult {
  const readable: ReadableNode[] = [];
  const fitness = new Map<NodeId, Fitness>();
  const proofs = new Map<NodeId, Proof>();
  for (const view of scene.all) {
    const proof = proveNode(belief, view);
    if (proof !== null) proofs.set(view.id, proof);
    const judged = judgeNode(belief, scene, view, maxLagMs);
    fitness.set(view.id, judged);
    if (judged.verdict === "fit") {
      readable.push({ id: view.id, provenAtMs: proof?.provenAtMs ?? Number.NEGATIVE_INFINITY });
    }
  }
  readable.sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  return { readable, fitness, proofs };
}

function judgeNode(belief: Belief, scene: Scene, view: NodeView, maxLagMs: number): Fitness {
  const { master, epoch } = belief;
  const carries = master !== null && view.report !== null && view.report.replid === master.replid;
  const lag = carries ? lagMs(master.samples, view.report.appliedOffset) : null;
  const lagBytes = carries ? Math.max(0, master.lastSeenOffset - view.report.appliedOffset) : null;
  const verdict = verdictOf(master, scene, view, epoch, lag, maxLagMs);
  return { verdict, lagMs: lag, lagBytes };
}

function verdictOf(
  master: MasterBelief | null,
  scene: Scene,
  view: NodeView,
  epoch: Epoch,
  lag: number | null,
  maxLagMs: number,
): FitVerdict {
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
  if (lag === null) return "lag-unknown";
  return lag > maxLagMs ? "lagging" : "fit";
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
