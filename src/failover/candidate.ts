/**
 * PURE. Which replica may become the master, and which is the best: one that has our history, has applied all
 * it received, and is the most advanced of those that can be reached.
 *
 * A master is replaced only by a replica of its own history. That is the guard against flapping, and it needs
 * no cool-down: right after a promotion nothing carries the new history yet, so nothing can be promoted in
 * its place; as soon as a replica has followed it, another failure is answered at once.
 *
 * Nor is one promoted that continues our history by that of a master that we never met (it came and went
 * between two looks): whether that one lives on, and for whom, is not known.
 */

import type { NodeId } from "../topology/epoch.ts";
import type { NodeReport } from "../topology/report.ts";
import type { MasterBelief, NodeView } from "../topology/rules/model.ts";
import { behindForMs } from "../topology/rules/samples.ts";
import type { GroupSight } from "../topology/watcher.ts";

export type Unfit =
  | "master" // it is the master
  | "unreachable"
  | "no-replica" // it claims to be master itself
  | "other-history"
  | "loading"
  | "syncing"
  | "never-promote"; // its priority is 0

/** How far behind a replica may be: what one beyond it lacks is worth a person's look. */
export interface Bounds {
  /** The master may make this one its successor yet: of equals it is taken, so that there are no two. */
  readonly heir?: NodeId | null;
  /** It may have lacked something for so long before the master went, ms. */
  readonly behindMs: number;
  /** Monotonic ms until which the master is known to have been well; null = we never met it. */
  readonly wellUntilMs: number | null;
}

const NO_BOUNDS: Bounds = { behindMs: Number.POSITIVE_INFINITY, wellUntilMs: null };

/** As Sentinel has it (sentinel.c, sentinelSelectSlave): ten times the patience; at least so long, ms. */
const BEHIND_LEAST_MS = 10_000;

export function tolerableMs(downAfterMs: number): number {
  return Math.max(10 * downAfterMs, BEHIND_LEAST_MS);
}

/** Why a node may not become the master; null = it may. */
export function unfitness(view: NodeView, master: MasterBelief): Unfit | null {
  if (view.contact !== "answering" || view.report === null) return "unreachable";
  const { report } = view;
  if (report.role === "master") return view.id === master.id ? "master" : "no-replica";
  if (report.loading) return "loading";
  if (report.syncInProgress) return "syncing";
  if (report.replid !== master.replid) return "other-history";
  return report.priority === 0 ? "never-promote" : null;
}

export type Choice =
  | { readonly kind: "take"; readonly node: NodeId }
  /** Something is about to be known or applied: look again. */
  | { readonly kind: "wait" }
  | { readonly kind: "nobody"; readonly reasons: string };

/**
 * The replica to promote for a master that is gone.
 * @param sinceMs reports sent before this monotonic time say nothing of how far a replica got.
 * @param excluded nodes that are not to be tried (now).
 * @param bounds what a replica may lack.
 * @param mayWait false = it took long enough: who has not reported is left out, who has not applied counts
 *   with what it has applied.
 */
export function chooseCandidate(
  group: GroupSight,
  sinceMs: number,
  excluded: ReadonlySet<NodeId>,
  mayWait = true,
  bounds: Bounds = NO_BOUNDS,
): Choice {
  const { master } = group;
  if (master === null) return { kind: "nobody", reasons: "no master has been found yet" };
  const reasons: string[] = [];
  const fit: NodeReport[] = [];
  let isWaiting = false;
  for (const view of group.nodes) {
    const why = unfitness(view, master);
    if (why !== null) reasons.push(`${view.id}: ${why}`);
    else if (excluded.has(view.id)) reasons.push(`${view.id}: could not be promoted`);
    else if (view.report === null || view.report.sentAtMs < sinceMs) isWaiting = true;
    else if (isLeftBehind(view.report, master, bounds)) reasons.push(`${view.id}: too far behind`);
    else fit.push(view.report);
  }
  const { heir = null } = bounds;
  const rank = mayWait ? byReceived : byApplied;
  const [best] = fit.sort((a, b) => rank(a, b) || ofHeir(b, heir) - ofHeir(a, heir) || byFitness(a, b));
  if (isWaiting && (mayWait || best === undefined)) return { kind: "wait" };
  if (best === undefined) return { kind: "nobody", reasons: reasons.join(", ") || "there is no other node" };
  if (mayWait && group.nodes.some((view) => isAhead(view, best, master))) return { kind: "wait" };
  // What it received it will have applied in a moment; unless that is half of a command.
  return mayWait && best.appliedOffset < best.receivedOffset
    ? { kind: "wait" }
    : { kind: "take", node: best.node };
}

/**
 * It lacks what others were told long before the master went: its link was down, or it was restarted from an
 * old file. The master's own data, should it come back, is worth more than being quick.
 */
function isLeftBehind(report: NodeReport, master: MasterBelief, { behindMs, wellUntilMs }: Bounds): boolean {
  // One that began a full synchronisation has forgotten what it received, not what it has; but that may be
  // gone, too (replication.c, readSyncBulkPayload).
  if (report.receivedOffset <= 1 && report.keys === 0 && master.keys > 0) return true;
  const offset = Math.max(report.receivedOffset, report.masterReplOffset);
  if (offset >= master.lastSeenOffset) return false;
  if (behindForMs(master.samples, offset) > behindMs) return true;
  if (report.linkDownForMs === null || wellUntilMs === null) return false;
  return report.receivedAtMs - report.linkDownForMs < wellUntilMs - behindMs;
}

/** It cannot be reached now, and had more than the best of those that can: it may be back in a moment. */
function isAhead({ contact, report }: NodeView, best: NodeReport, master: MasterBelief): boolean {
  if (contact === "answering" || report === null || report.role !== "replica") return false;
  return (
    report.replid === master.replid && report.priority > 0 && report.receivedOffset > best.receivedOffset
  );
}

function ofHeir({ node }: NodeReport, heir: NodeId | null): number {
  return node === heir ? 1 : 0;
}

function byApplied(a: NodeReport, b: NodeReport): number {
  return b.appliedOffset - a.appliedOffset || byReceived(a, b);
}

function byReceived(a: NodeReport, b: NodeReport): number {
  return b.receivedOffset - a.receivedOffset;
}

/** Most advanced first; of equals the one the operator prefers (lower priority, as Sentinel has it). */
export function byFitness(a: NodeReport, b: NodeReport): number {
  if (a.receivedOffset !== b.receivedOffset) return byReceived(a, b);
  if (a.priority !== b.priority) return a.priority - b.priority;
  return a.node < b.node ? -1 : 1;
}
