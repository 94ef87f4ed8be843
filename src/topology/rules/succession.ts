/**
 * PURE. Who is the master, once there has been one. In words:
 *
 * 1. Promoted: a process that we saw in our group, that was not restarted since, and whose history continues
 *    ours is the successor at once, also while the old master still claims to be one: somebody promoted it.
 *    Several such at a time: the one that continues all others; otherwise there is no common truth.
 *    Not one that was told to by us, in vain as it seemed, when the master was written since.
 * 2. The master itself, unchanged, is the master. Any other claim is refused while it is well.
 *    The same process under a new replication id is the master, too: it dropped an unused backlog.
 * 3. The master restarted with all of our history that was ever seen is the master again. So is one that read
 *    its append-only file, which knows no history, when no replica has more keys: its replicas, which all
 *    turn to it, will copy it in a moment whatever it has. What it lost is then unknown, and said so.
 * 4. While the master is gone, a claimant never seen before is taken when it holds all of our history.
 * 5. Whoever all other reachable nodes follow, while none of them holds our history, is taken, unless it is
 *    empty and our group was not.
 * 6. A live master that a majority of the Sentinels names is taken where the nodes alone decide nothing:
 *    several contradict each other, or the master is gone; unless it is empty and our group was not, or it
 *    may have been rolled back.
 * 7. Otherwise sessions are held. A silent master alone never makes another node the master.
 *
 * A master that is only remembered (the proxy was restarted) is judged by the same rules, but not before it
 * and all configured nodes have answered or failed once.
 */

import type { EvidenceKind, HoldCause } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
import { followedBy } from "./aliases.ts";
import { type Edge, edgeOf, type Lineage, lineageOf } from "./lineage.ts";
import {
  type AcceptReason,
  type Belief,
  claimKey,
  type MasterBelief,
  type NodeView,
  type Problem,
} from "./model.ts";
import { isRenounced } from "./renounced.ts";
import { follows, isClaimant, isLive, type LiveView, namedBySentinels, type Scene } from "./scene.ts";

export type Verdict =
  | {
      readonly kind: "stay";
      readonly cause: HoldCause | null;
      readonly problems: readonly Problem[];
      /** Claims that were made while the master was well. */
      readonly refused: readonly string[];
    }
  | {
      readonly kind: "take";
      readonly report: NodeReport;
      readonly reason: AcceptReason;
      readonly lostBytes: number | null;
      readonly detail: string;
    };

/** What the epoch's master is like, by the last probe. */
interface MasterState {
  readonly view: NodeView | undefined;
  /** Null: it is verified. */
  readonly cause: HoldCause | null;
  /** It cannot come back by itself as what it was, or is not there: claims may be looked at. */
  readonly gone: boolean;
}

interface Claim {
  readonly report: NodeReport;
  readonly line: Lineage;
  readonly reason: AcceptReason;
  /** Answered the last probe; a claim that is not fresh still contradicts others. */
  readonly fresh: boolean;
}

export function judgeSuccession(belief: Belief, master: MasterBelief, scene: Scene): Verdict {
  if (isUnheard(belief, master, scene)) {
    return { kind: "stay", cause: "no-master-yet", problems: [], refused: [] };
  }
  const state = masterState(belief, master, scene);
  const claims = successors(belief, master, scene, state);
  if (claims.length > 0) {
    const newest = claims.find(
      (claim) => claim.fresh && claims.every((other) => claim.line.path.includes(other.report.replid)),
    );
    if (newest !== undefined) return take(newest.report, newest.reason, master, newest.line);
    if (claims.length > 1) {
      const nodes = claims.map(({ report }) => report.node);
      const named = judgeNamed(belief, master, scene, nodes);
      return judgeUnanimity(master, scene) ?? named ?? contradiction(nodes);
    }
  }
  if (state.cause === null) return stay(belief, master, scene, null);
  const renamed = judgeRename(master, state);
  if (renamed !== null) return renamed;
  const restarted = judgeRestart(master, scene, state);
  if (restarted !== null) return restarted;
  if (state.gone) {
    const complete = completeClaims(belief, master, scene);
    const [only] = complete;
    if (only !== undefined && complete.length === 1) return take(only.report, "complete", master, only.line);
    if (complete.length > 1) {
      const nodes = complete.map(({ report }) => report.node);
      const named = judgeNamed(belief, master, scene, nodes);
      return judgeUnanimity(master, scene) ?? named ?? contradiction(nodes);
    }
  }
  const named = state.gone ? judgeNamed(belief, master, scene, null) : null;
  return judgeUnanimity(master, scene) ?? named ?? stay(belief, master, scene, state.cause);
}

/** Why the master may not be written by what traffic said of it. */
export function causeOfEvidence(kind: EvidenceKind): HoldCause {
  switch (kind) {
    case "connection-lost":
    case "connect-failed":
      return "connection-lost";
    case "loading":
      return "loading";
    // Only a replica answers MASTERDOWN.
    case "not-master":
    case "link-down":
      return "role-changed";
  }
}

function isUnheard(belief: Belief, master: MasterBelief, scene: Scene): boolean {
  if (belief.epoch.holdCause !== "no-master-yet") return false;
  return scene.all.some(({ id, seed, contact }) => (seed || id === master.id) && contact === "never");
}

function masterState(belief: Belief, master: MasterBelief, scene: Scene): MasterState {
  const view = scene.all.find(({ id }) => id === master.id);
  if (view === undefined) return { view, cause: "silent", gone: true };
  const cause = probedCause(belief, master, view);
  if (cause !== null) return { view, cause, gone: isGone(cause) };
  const suspicion = scene.suspicions.find(({ node }) => node === master.id);
  return { view, cause: suspicion === undefined ? null : causeOfEvidence(suspicion.kind), gone: false };
}

function isGone(cause: HoldCause): boolean {
  // A master that loads may come back with everything, one that shuts down may think better of it
  // (SHUTDOWN ABORT): there is nothing to decide yet.
  return cause !== "loading" && cause !== "shutting-down";
}

function probedCause(belief: Belief, master: MasterBelief, view: NodeView): HoldCause | null {
  switch (view.contact) {
    case "never":
      return belief.epoch.holdCause;
    case "unreachable":
    case "closed":
      return "connection-lost";
    case "loading":
      return "loading";
    case "silent":
    case "no-access":
    case "nonsense":
      return "silent";
    case "answering":
      break;
  }
  if (view.report === null) return "silent";
  if (view.report.loading) return "loading";
  if (view.report.role === "replica") return "role-changed";
  const isSame = view.report.runId === master.runId && view.report.replid === master.replid;
  if (!isSame) return "history-refused";
  return view.report.shutdownInMs === null ? null : "shutting-down";
}

/**
 * Claims of running instances that were in our group and continue our history, and of the node that the
 * former master itself follows. A claim of a node that stopped answering counts as long as nothing newer is
 * known of it: of two contradicting claims, the silence of one does not make the other one true.
 */
function successors(belief: Belief, master: MasterBelief, scene: Scene, state: MasterState): Claim[] {
  const edges = witnessedEdges(belief, scene);
  const claims: Claim[] = [];
  for (const view of scene.all) {
    const { report } = view;
    if (report === null || report.role !== "master" || report.loading) continue;
    if (scene.aliases.has(view.id) || report.replid === master.replid) continue;
    if (isRenounced(belief, master, state.cause === null, report)) continue;
    const line = lineageOf(report, master.replid, edges);
    if (line === null) continue;
    const fresh = isLive(view) && isClaimant(scene, view);
    if (belief.instances.has(report.runId) && !belief.refusedClaims.has(claimKey(report))) {
      claims.push({ report, line, fresh, reason: view.id === master.id ? "re-promoted" : "promoted" });
    } else if (fresh && isFollowedByMaster(master, state, report)) {
      claims.push({ report, line, fresh, reason: "followed" });
    }
  }
  // One that was given up is no reason to doubt the one that was promoted in its place.
  const firm = claims.filter((claim) => !belief.renounced.has(claim.report.runId));
  return firm.length > 0 ? firm : claims;
}

function witnessedEdges(belief: Belief, scene: Scene): Edge[] {
  return scene.live
    .filter((view) => belief.instances.has(view.report.runId))
    .map((view) => edgeOf(view.report))
    .filter((edge) => edge !== null);
}

/** The former master, not restarted, is a synchronised replica of the claimant. */
function isFollowedByMaster(master: MasterBelief, state: MasterState, claimant: NodeReport): boolean {
  const { view } = state;
  if (view === undefined || !isLive(view) || view.report.runId !== master.runId) return false;
  return follows(view.report, claimant);
}

/**
 * A master without replicas takes a new replication id, and forgets the old one, when it frees its backlog
 * after repl-backlog-ttl (replication.c, replicationCron). The process was not restarted and never was a
 * replica, else it would remember another id: its data is what it was.
 */
function judgeRename(master: MasterBelief, state: MasterState): Verdict | null {
  const { view } = state;
  if (state.cause !== "history-refused" || view === undefined || !isLive(view)) return null;
  const { report } = view;
  if (report.role !== "master" || report.runId !== master.runId || report.replid2 !== null) return null;
  if (report.masterReplOffset < master.lastSeenOffset) return null;
  return take(report, "renamed", master, { endOffset: report.masterReplOffset, path: [report.replid] });
}

/** The master's node is back as a master with another run id or history. Null: not that, or not provable. */
function judgeRestart(master: MasterBelief, scene: Scene, state: MasterState): Verdict | null {
  const { view } = state;
  if (state.cause !== "history-refused" || view === undefined) return null;
  if (!isLive(view) || !isClaimant(scene, view)) return null;
  const { report } = view;
  const line = lineageOf(report, master.replid, []);
  if (line === null)
    return hasReadItsFile(master, scene, view) ? take(report, "reloaded", master, null) : null;
  return line.endOffset < master.lastSeenOffset ? null : take(report, "restarted", master, line);
}

/**
 * A server that starts from its append-only file takes a new replication id (server.c, loadDataFromDisk), so
 * nothing proves what it has. Taken only when no reachable node says otherwise: all others are replicas that
 * turn to it, and none of them has more keys.
 */
function hasReadItsFile(master: MasterBelief, scene: Scene, view: LiveView): boolean {
  const { report } = view;
  if (!report.aof || report.replid2 !== null) return false;
  const others = scene.live.filter((other) => other !== view);
  const isTurnedTo = ({ report: other }: LiveView) =>
    other.role === "replica" && followedBy(scene, other) === view.id;
  const most = Math.max(master.keys > 0 ? 1 : 0, ...others.map((other) => other.report.keys));
  return others.every(isTurnedTo) && report.keys >= most;
}

/** Claimants never seen in our group that say they hold at least what was ever seen of our history. */
function completeClaims(belief: Belief, master: MasterBelief, scene: Scene): Claim[] {
  const claims: Claim[] = [];
  for (const view of scene.live) {
    if (view.id === master.id || !isClaimant(scene, view)) continue;
    // It claimed before the master went: it is one by mistake and not by promotion.
    if (belief.refusedClaims.has(claimKey(view.report))) continue;
    const line = lineageOf(view.report, master.replid, []);
    if (line === null || line.endOffset < master.lastSeenOffset) continue;
    claims.push({ report: view.report, line, reason: "complete", fresh: true });
  }
  return claims;
}

/**
 * The claimant that everybody else who is reachable follows. Without any follower it is only taken in a group
 * of one, whose master is then compared with nobody.
 */
function judgeUnanimity(master: MasterBelief, scene: Scene): Verdict | null {
  for (const view of scene.live) {
    if (!isClaimant(scene, view) || view.report.replid === master.replid) continue;
    const others = scene.live.filter((other) => other !== view);
    if (!others.every((other) => follows(other.report, view.report))) continue;
    const isAlone = scene.all.every(({ id }) => id === master.id || scene.aliases.has(id));
    if (others.length === 0 && !(isAlone && view.id === master.id)) continue;
    if (view.report.keys === 0 && master.keys > 0) continue;
    return take(view.report, "unanimous", master, lineageOf(view.report, master.replid, []));
  }
  return null;
}

/**
 * The claimant that a majority of the Sentinels names; `among` several that contradict each other, else any.
 * It must not be a roll-back of our history:
 * - a process seen as a member of our group that continues our history got all it has by replication: what it
 *   lacks is what every promotion may lose;
 * - of any other one it is only known how far its own history goes: not less far than ours was seen to;
 * - not one that claimed before the master went, nor the history that ours was forked from, nor the master's
 *   own node with another process, which has judgeRestart to convince.
 */
function judgeNamed(
  belief: Belief,
  master: MasterBelief,
  scene: Scene,
  among: readonly string[] | null,
): Verdict | null {
  const view = namedBySentinels(scene);
  if (view === null || (among !== null && !among.includes(view.id))) return null;
  const { report } = view;
  if (report.keys === 0 && master.keys > 0) return null;
  if (report.replid === master.replid || report.replid === master.forkedFrom?.replid) return null;
  if (view.id === master.id && report.runId !== master.runId) return null;
  if (belief.refusedClaims.has(claimKey(report))) return null;
  const line = lineageOf(report, master.replid, witnessedEdges(belief, scene));
  const end = line?.endOffset ?? report.masterReplOffset;
  const isWitnessed = line !== null && belief.instances.has(report.runId);
  if (!isWitnessed && end < master.lastSeenOffset) return null;
  return take(report, "sentinel", master, line);
}

function take(report: NodeReport, reason: AcceptReason, master: MasterBelief, line: Lineage | null): Verdict {
  const lostBytes = bytesLost(report, master, line);
  const end = line === null ? "unknown" : `${line.endOffset}`;
  const detail =
    `history ${master.replid.slice(0, 8)} seen up to ${master.lastSeenOffset}, ` +
    `contained in ${report.replid.slice(0, 8)} up to ${end}`;
  return { kind: "take", report, reason, lostBytes, detail };
}

/** Bytes of the master's history that the new one lacks; null when nothing is known of it. */
export function bytesLost(report: NodeReport, master: MasterBelief, line: Lineage | null): number | null {
  if (line !== null) return Math.max(0, master.lastSeenOffset - line.endOffset);
  // Back to the history that ours was forked from: what was written since the fork is lost.
  const { forkedFrom } = master;
  if (forkedFrom !== null && forkedFrom.replid === report.replid) {
    return Math.max(0, master.lastSeenOffset - forkedFrom.offset);
  }
  return null;
}

function stay(belief: Belief, master: MasterBelief, scene: Scene, cause: HoldCause | null): Verdict {
  const problems: Problem[] = [];
  const refused: string[] = [];
  for (const view of scene.live) {
    if (!isClaimant(scene, view)) continue;
    if (view.id === master.id) {
      if (cause === "history-refused") problems.push(refusedHistory(view, master));
      continue;
    }
    const words = belief.renounced.has(view.report.runId) ? RENOUNCED : refusal(view.report, master, cause);
    problems.push({ kind: "claimant-refused", node: view.id, detail: words });
    if (cause === null) refused.push(claimKey(view.report));
  }
  return { kind: "stay", cause, problems, refused };
}

const RENOUNCED =
  "became the master by an order that was given up, and lacks what the master took since; " +
  "to take it all the same: PROXY ADOPT";

function refusal(report: NodeReport, master: MasterBelief, cause: HoldCause | null): string {
  const line = lineageOf(report, master.replid, []);
  const claim =
    line === null
      ? "its history does not continue ours"
      : `it shares our history up to ${line.endOffset} (seen: ${master.lastSeenOffset}), not promoted`;
  return `claims to be master; ${claim}; ${master.id} is ${cause === null ? "well" : "gone"}`;
}

function refusedHistory(view: LiveView, master: MasterBelief): Problem {
  const line = lineageOf(view.report, master.replid, []);
  const how =
    view.report.keys === 0 && master.keys > 0
      ? `came back empty (it had ${master.keys} keys)`
      : line === null
        ? "came back with a history of which nothing is known"
        : `was rolled back by at least ${master.lastSeenOffset - line.endOffset} bytes`;
  return { kind: "history-refused", node: view.id, detail: how };
}

function contradiction(nodes: readonly string[]): Verdict {
  const detail = `${nodes.join(", ")} claim to be master and none continues the history of the others`;
  const problem: Problem = { kind: "no-common-truth", node: null, detail };
  return { kind: "stay", cause: "no-common-truth", problems: [problem], refused: [] };
}
