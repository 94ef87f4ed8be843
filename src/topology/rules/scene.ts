/**
 * PURE. What can be seen at one moment: the nodes without their second addresses, and who follows whom.
 */

import { announcedAddress } from "../address.ts";
import type { NodeId } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
import type { NodeView } from "./model.ts";

/** A view whose last probe brought a report. */
export interface LiveView extends NodeView {
  readonly contact: "answering";
  readonly report: NodeReport;
}

export interface Scene {
  /** All addresses, in the order they became known. */
  readonly all: readonly NodeView[];
  /** Second addresses of known nodes, to the first. */
  readonly aliases: ReadonlyMap<NodeId, NodeId>;
  /** Nodes (no aliases) that answer, now. */
  readonly live: readonly LiveView[];
}

export function describeScene(views: readonly NodeView[]): Scene {
  const aliases = findAliases(views);
  return { all: views, aliases, live: views.filter(isLive).filter((view) => !aliases.has(view.id)) };
}

/**
 * One running instance has one run id, so two addresses with the same one are the same node. The address known
 * first keeps standing for it, also while only the other one answers: changing over would look like a switch.
 */
export function findAliases(views: readonly NodeView[]): ReadonlyMap<NodeId, NodeId> {
  const firstByRunId = new Map<string, NodeId>();
  const aliases = new Map<NodeId, NodeId>();
  for (const view of views) {
    if (view.report === null) continue;
    const first = firstByRunId.get(view.report.runId);
    if (first === undefined) firstByRunId.set(view.report.runId, view.id);
    else aliases.set(view.id, first);
  }
  return aliases;
}

export function isLive(view: NodeView): view is LiveView {
  return view.contact === "answering" && view.report !== null;
}

/** A live master that has its data; the only ones that can be believed. */
export function isClaimant(view: LiveView): boolean {
  return view.report.role === "master" && !view.report.loading;
}

/** Whether `follower` is a synchronised replica within the history of `master`. */
export function follows(follower: NodeReport, master: NodeReport): boolean {
  return (
    follower.role === "replica" &&
    follower.linkUp &&
    !follower.syncInProgress &&
    !follower.loading &&
    follower.replid === master.replid
  );
}

/** Whether `follower` names `master`, by any of its known addresses, as its master; its link may be down. */
export function pointsTo(scene: Scene, follower: NodeReport, master: NodeId): boolean {
  if (follower.masterAddress === null) return false;
  const id = announcedAddress(follower.node, follower.masterAddress);
  return id !== null && (scene.aliases.get(id) ?? id) === master;
}
