/**
 * PURE. What can be seen at one moment: the nodes without their second addresses, and who follows whom.
 */

import type { NodeId } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
import { type Aliases, findAliases, firstAddress } from "./aliases.ts";
import type { Belief, NodeView, Suspicion } from "./model.ts";
import type { SentinelWord } from "./sentinel.ts";

/** A view whose last probe brought a report. */
export interface LiveView extends NodeView {
  readonly contact: "answering";
  readonly report: NodeReport;
}

export interface Scene {
  /** All addresses, in the order they became known. */
  readonly all: readonly NodeView[];
  readonly aliases: Aliases;
  /** Nodes (no aliases) that answer, now. */
  readonly live: readonly LiveView[];
  /** What traffic said and no later report has contradicted. */
  readonly suspicions: readonly Suspicion[];
  readonly sentinels: SentinelWord;
}

export function describeScene(belief: Belief, views: readonly NodeView[], sentinels: SentinelWord): Scene {
  const aliases = findAliases(views, belief.epoch.master, sentinels.runIds);
  const live = views.filter(isLive).filter((view) => !aliases.has(view.id));
  return { all: views, aliases, live, suspicions: openSuspicions(belief.suspicions, views), sentinels };
}

export function isLive(view: NodeView): view is LiveView {
  return view.contact === "answering" && view.report !== null;
}

/** The node at that address, if it answers. */
export function liveAt(nodes: readonly NodeView[], id: NodeId): LiveView | undefined {
  return nodes.filter(isLive).find((view) => view.id === id);
}

/** A live master that has its data and that nothing newer speaks against; only these can be believed. */
export function isClaimant(scene: Scene, view: LiveView): boolean {
  return view.report.role === "master" && !view.report.loading && !isSuspected(scene, view.id);
}

/** The live master that the majority of the Sentinels names, by any of its addresses. */
export function namedBySentinels(scene: Scene): LiveView | null {
  const { agreed } = scene.sentinels;
  if (agreed === null) return null;
  const id = firstAddress(scene, agreed);
  return scene.live.find((view) => view.id === id && isClaimant(scene, view)) ?? null;
}

export function isSuspected(scene: Scene, id: NodeId): boolean {
  return scene.suspicions.some(({ node }) => node === id);
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

function openSuspicions(suspicions: readonly Suspicion[], views: readonly NodeView[]) {
  return suspicions.filter((suspicion) => {
    const view = views.find(({ id }) => id === suspicion.node);
    if (view === undefined) return false;
    const { report } = view;
    // A report that was under way when the connection broke shows the node before that.
    if (report === null || report.sentAtMs <= suspicion.sinceMs) return true;
    // It refuses reads while its link is down (replica-serve-stale-data no), so answering is not enough.
    return suspicion.kind === "link-down" && report.role === "replica" && !report.linkUp;
  });
}
