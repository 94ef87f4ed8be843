/**
 * PURE. What can be seen at one moment: the nodes without their second addresses, and who follows whom.
 */

import { announcedAddress } from "../address.ts";
import type { NodeId } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
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
  /** Second addresses of known nodes, to the first; also those that only Sentinels reach. */
  readonly aliases: ReadonlyMap<NodeId, NodeId>;
  /** Nodes (no aliases) that answer, now. */
  readonly live: readonly LiveView[];
  /** What traffic said and no later report has contradicted. */
  readonly suspicions: readonly Suspicion[];
  readonly sentinels: SentinelWord;
}

export function describeScene(belief: Belief, views: readonly NodeView[], sentinels: SentinelWord): Scene {
  const aliases = withNamed(findAliases(views, belief.epoch.master), views, sentinels);
  const live = views.filter(isLive).filter((view) => !aliases.has(view.id));
  return { all: views, aliases, live, suspicions: openSuspicions(belief.suspicions, views), sentinels };
}

/**
 * Sentinels may know the nodes by addresses that lead nowhere from here (behind a translation of addresses,
 * in a network of containers): whom they have met there is known by its run id. Where somebody has answered
 * us, that one's own word counts.
 */
function withNamed(aliases: Scene["aliases"], views: readonly NodeView[], { runIds }: SentinelWord) {
  const all = new Map(aliases);
  for (const [address, runId] of runIds) {
    if (views.some(({ id, report }) => id === address && report !== null)) continue;
    const met = views.find(({ report }) => report?.runId === runId);
    if (met !== undefined) all.set(address, aliases.get(met.id) ?? met.id);
  }
  return all;
}

/**
 * One running instance has one run id, so two addresses with the same one are the same node. The address
 * known first (that of the epoch's master before all) keeps standing for it, also while only the other one
 * answers: changing over would look like a switch.
 */
export function findAliases(views: readonly NodeView[], master: NodeId | null): ReadonlyMap<NodeId, NodeId> {
  const firstByRunId = new Map<string, NodeId>();
  const aliases = new Map<NodeId, NodeId>();
  const order = [...views.filter(({ id }) => id === master), ...views.filter(({ id }) => id !== master)];
  for (const view of order) {
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

/** A live master that has its data and that nothing newer speaks against; only these can be believed. */
export function isClaimant(scene: Scene, view: LiveView): boolean {
  return view.report.role === "master" && !view.report.loading && !isSuspected(scene, view.id);
}

/** The live master that the majority of the Sentinels names, by any of its addresses. */
export function namedBySentinels(scene: Scene): LiveView | null {
  const { agreed } = scene.sentinels;
  if (agreed === null) return null;
  const id = scene.aliases.get(agreed) ?? agreed;
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

/** Whether `follower` names `master`, by any of its known addresses, as its master; its link may be down. */
export function pointsTo(scene: Scene, follower: NodeReport, master: NodeId): boolean {
  if (follower.masterAddress === null) return false;
  const id = announcedAddress(follower.node, follower.masterAddress);
  return id !== null && (scene.aliases.get(id) ?? id) === master;
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
