/**
 * PURE. Who is to be made to follow the master: replicas left with the former one, and former masters that
 * came back. Done by the proxy that promotes (`failover.promote: self`), as long as it has the right to;
 * otherwise only after a planned switch of its own. Whoever is refused that right may not know of the master
 * that the one who has it has made: it would take that for a former one, and what it was given would be lost.
 *
 * Only members of the group are touched, at addresses that were seen to hold our history. A replica that
 * somebody has given another master outside of the group is left to them, and so is a master that nothing but
 * an address which was once discovered makes one of ours: addresses are given to others.
 */

import type { NodeId } from "../topology/epoch.ts";
import type { NodeReport } from "../topology/report.ts";
import { followedBy } from "../topology/rules/aliases.ts";
import type { NodeView } from "../topology/rules/model.ts";
import { isLive, type LiveView, liveAt } from "../topology/rules/scene.ts";
import type { GroupSight } from "../topology/watcher.ts";
import type { CommandResult, Obstacle } from "./model.ts";
import { type Care, type Draft, isSwitching, type Renounced, type State } from "./state.ts";

/** Between two attempts at one node, ms; doubled after each failure up to the second value. */
const PAUSE_MS = 1_000;
const PAUSE_MOST_MS = 30_000;
/** How long a link to a new master may take, ms: before Redis 7 a replica tries once a second. */
const CHAIN_MS = 2_000;
/** So many failures are said to people. */
const TOO_OFTEN = 3;

/** The addresses of `group` that hold its history now, added to those known. */
export function withMembers(known: ReadonlySet<NodeId>, group: GroupSight): ReadonlySet<NodeId> {
  const { master } = group;
  if (master === null) return known;
  const found = group.nodes.filter(isLive).filter(({ report }) => report.replid === master.replid);
  const missing = [master.id, ...found.map(({ id }) => id)].filter((id) => !known.has(id));
  return missing.length === 0 ? known : new Set([...known, ...missing]);
}

/** What is known of the group's past. */
type Past = Pick<State, "members" | "orphans" | "isNewHistory">;

/**
 * Replicas that the former master leaves behind at a switch: they may stay chained to it, where they get
 * everything later than need be.
 */
export function withOrphans(state: State, group: GroupSight): ReadonlyMap<NodeId, NodeId> {
  const { group: before, orphans } = state;
  const now = group.epoch.master;
  const kept = [...orphans].filter(([id, left]) => {
    const view = group.nodes.find((one) => one.id === id);
    return view === undefined || !isLive(view) || followedBy(group, view.report) === left;
  });
  const former = before?.epoch.master ?? null;
  const left = former === null || former === now || before === null ? [] : lastFollowersOf(before, former);
  if (left.length === 0 && kept.length === orphans.size) return orphans;
  const added = left.map((id): [NodeId, NodeId] => [id, former ?? id]);
  return new Map([...kept, ...added].filter(([id]) => id !== now));
}

/** By their last word: one that is not heard of now comes back as it was. */
function lastFollowersOf(group: GroupSight, master: NodeId): NodeId[] {
  const follows = ({ report }: NodeView): boolean => report !== null && followedBy(group, report) === master;
  return group.nodes.filter(follows).map(({ id }) => id);
}

/** Nodes that do not follow the master and that we may tell to. */
export function strays(group: GroupSight, past: Past): NodeId[] {
  const { master } = group;
  if (master === null || group.epoch.holdCause !== null) return [];
  const live = group.nodes.filter(isLive);
  const heardAtMs = live.find(({ id }) => id === master.id)?.report.receivedAtMs;
  if (heardAtMs === undefined) return [];
  // What a node says after the master was last heard may be news: it may have been made the successor.
  return live
    .filter((view) => view.id !== master.id && past.members.has(view.id))
    .filter((view) => view.report.sentAtMs <= heardAtMs && isStray(view, group, past))
    .map(({ id }) => id);
}

function isStray(view: LiveView, group: GroupSight, past: Past): boolean {
  const { id, report } = view;
  const { master } = group;
  // REPLICAOF is refused during FAILOVER, and a node that loads has not said yet what it is.
  if (master === null || report.loading || report.failoverState !== "no-failover") return false;
  // It may continue the very history that the master was accepted with: the next look tells.
  if (report.role === "master") return !past.isNewHistory && isOurs(view, group);
  const followed = followedBy(group, report);
  if (followed === master.id) return false;
  // A replica of a replica gets everything, too: it is left where it was put.
  if (report.linkUp && report.replid === master.replid) return past.orphans.has(id);
  if (followed === null) return !report.linkUp;
  if (isBeingChained(report, group, followed)) return past.orphans.has(id);
  return past.members.has(followed) || (!report.linkUp && isDeserted(group, followed));
}

/** Somebody has just given it to a replica of the master: it has that link in a moment. */
function isBeingChained(report: NodeReport, { nodes, master }: GroupSight, followed: NodeId): boolean {
  const next = liveAt(nodes, followed)?.report;
  const isLinked = next?.role === "replica" && next.linkUp && next.replid === master?.replid;
  const isNew = report.linkDownForMs !== null && report.linkDownForMs <= CHAIN_MS;
  return isLinked && isNew && report.replid === next.replid;
}

/** What it has may be thrown away: it is configured as one of ours, or has been one by its history. */
function isOurs({ seed, report }: LiveView, { instances, master }: GroupSight): boolean {
  const ours = [master?.replid, master?.forkedFrom?.replid];
  return (
    seed ||
    instances.has(report.runId) ||
    [report.replid, report.replid2 ?? ""].some((id) => ours.includes(id))
  );
}

/** Nobody is there. As long as that is not known, a replica without a link may be about to get it. */
function isDeserted(group: GroupSight, address: NodeId): boolean {
  const view = group.nodes.find(({ id }) => id === address);
  return view !== undefined && (view.contact === "unreachable" || view.contact === "silent");
}

export function takeCare(draft: Draft): void {
  const { group, duty, job } = draft.state;
  if (group === null || job.kind === "confirming" || job.kind === "promoting" || isSwitching(job)) return;
  if (duty !== null && draft.nowMs >= duty.untilMs) draft.set({ duty: null });
  forgetRenounced(draft, group);
  const { renounced } = draft.state;
  const isOnDuty = (id: NodeId) => draft.state.duty?.nodes.has(id) === true || renounced.has(id);
  const hasRight = draft.settings.mode === "self" && draft.state.standing.kind === "sole";
  const mayTouch = (id: NodeId) => hasRight || isOnDuty(id);
  const wanted = strays(group, draft.state).filter(mayTouch);
  forget(draft, new Set(wanted));
  for (const node of wanted) attend(draft, group, node);
}

/** An order to become the master is given up. It may be carried out late: then it is taken back. */
export function renounce(draft: Draft, node: NodeId): void {
  draft.emit({ kind: "renounce", node });
  const report = draft.state.group?.nodes.find(({ id }) => id === node)?.report;
  if (!report) return;
  const one = { runId: report.runId, sinceMs: draft.nowMs };
  draft.set({ renounced: new Map(draft.state.renounced).set(node, one) });
}

/** Those heard of since that are what they should be, or other processes: an order ends with its own. */
function forgetRenounced(draft: Draft, group: GroupSight): void {
  const { renounced } = draft.state;
  if (renounced.size === 0) return;
  const { master } = group.epoch;
  const isSettled = ([node, { runId, sinceMs }]: readonly [NodeId, Renounced]): boolean => {
    const report = liveAt(group.nodes, node)?.report;
    if (node === master || (report !== undefined && report.runId !== runId)) return true;
    return report?.role === "replica" && report.sentAtMs > sinceMs && followedBy(group, report) === master;
  };
  const left = [...renounced].filter((one) => !isSettled(one));
  if (left.length < renounced.size) draft.set({ renounced: new Map(left) });
}

function attend(draft: Draft, group: GroupSight, node: NodeId): void {
  const master = group.epoch.master;
  const care = draft.state.care.get(node) ?? { command: null, nextAtMs: draft.nowMs, failures: 0 };
  if (master === null || care.command !== null) return;
  if (draft.nowMs < care.nextAtMs) return draft.wake(care.nextAtMs);
  draft.tell("repointing", node, `to follow ${master}`);
  const command = draft.run(node, { kind: "follow", master });
  setCare(draft, node, { ...care, command });
}

export function onFollowEnded(draft: Draft, id: number, result: CommandResult): void {
  for (const [node, care] of draft.state.care) {
    if (care.command !== id) continue;
    const isDone = result.kind === "done";
    // Also one that said OK counts until it is seen to follow; then all of this is forgotten.
    const failures = care.failures + 1;
    const why = isDone ? "it said OK and does not follow" : result.error;
    if (failures === TOO_OFTEN) draft.tell("repointing-failed", node, why);
    const pauseMs = Math.min(PAUSE_MS * 2 ** failures, PAUSE_MOST_MS);
    setCare(draft, node, { command: null, nextAtMs: draft.nowMs + pauseMs, failures });
    draft.look(node);
    const { job } = draft.state;
    if (isDone && job.kind === "switchover") {
      draft.set({ job: { ...job, repointed: [...job.repointed, node] } });
    }
  }
}

function setCare(draft: Draft, node: NodeId, care: Care): void {
  draft.set({ care: new Map(draft.state.care).set(node, care) });
}

/** Those who follow the master need no more care; what is under way ends by itself. */
function forget(draft: Draft, wanted: ReadonlySet<NodeId>): void {
  const kept = [...draft.state.care].filter(([node, care]) => wanted.has(node) || care.command !== null);
  for (const node of draft.state.care.keys()) if (!kept.some(([id]) => id === node)) tellEnd(draft, node);
  if (kept.length !== draft.state.care.size) draft.set({ care: new Map(kept) });
  const { obstacles } = draft.state;
  const others = obstacles.filter(({ kind }) => kind !== "not-demoted");
  const failing = kept.filter(([, care]) => care.failures >= TOO_OFTEN);
  if (failing.length === 0 && others.length === obstacles.length) return;
  draft.set({ obstacles: [...others, ...failing.map(([node]) => notDemoted(node))] });
}

function tellEnd(draft: Draft, node: NodeId): void {
  const { group } = draft.state;
  const report = liveAt(group?.nodes ?? [], node)?.report;
  const master = group?.epoch.master ?? null;
  if (group === null || report === undefined || master === null) return;
  if (followedBy(group, report) === master) draft.tell("repointed", node, `it follows ${master}`);
}

function notDemoted(node: NodeId): Obstacle {
  return { kind: "not-demoted", node, detail: "it was told to follow the master and does not" };
}
