/**
 * PURE. What is wrong with a master, and how long it has been: the evidence that promotion by the proxy rests
 * on. Silence alone takes `downAfter`; what proves that its process is gone takes `crashGrace`.
 */

import type { NodeId } from "../topology/epoch.ts";
import type { NodeReport } from "../topology/report.ts";
import { followedBy } from "../topology/rules/aliases.ts";
import type { NodeView } from "../topology/rules/model.ts";
import type { GroupSight } from "../topology/watcher.ts";

export type Condition =
  | "well"
  /** Nothing can be concluded (yet). */
  | "unclear"
  /** Its port refuses connections, and no replica has a link to it. */
  | "crashed"
  /** Its process is gone: another one answers at its address, without our history. */
  | "replaced"
  /** It does not answer, loads its data, or is a replica without a successor. */
  | "absent";

/** A time without a master that can be written; one for each master. */
export interface Outage {
  readonly master: NodeId;
  /** Monotonic ms: when it was noticed. */
  readonly noticedAtMs: number;
  /** Monotonic ms: until then it is known to have been well. */
  readonly wellUntilMs: number;
  /** Monotonic ms since which it is crashed without a break; null = it is not. */
  readonly crashedSinceMs: number | null;
  /**
   * Monotonic ms: then no other node answered either, for the last time; -Infinity = one always did. Whoever
   * reaches nobody is alone himself, and says nothing of the master when he is back.
   */
  readonly aloneAtMs: number;
  /** Candidates that could not be promoted, with the monotonic ms from which they may be tried again. */
  readonly failed: ReadonlyMap<NodeId, number>;
  /** What became of asking replicas whether they reach it: see hearsay.ts. At most one for each replica. */
  readonly questions: ReadonlyMap<NodeId, Question>;
  /** The last look at the leases refused: why, and until when that stands, monotonic ms; null = none did. */
  readonly refusal: { readonly reason: string; readonly untilMs: number } | null;
  /** Monotonic ms at which a replica was seen to have reached it when asked; -Infinity = none. */
  readonly reachedAtMs: number;
  /** People know of it. */
  readonly isTold: boolean;
}

/** A replica was told to make its link to the master anew. */
export interface Question {
  /** Null = it has ended, at `endedAtMs` (monotonic). */
  readonly command: number | null;
  readonly endedAtMs: number;
  /** It did so. */
  readonly isDone: boolean;
  /** Another replica has answered meanwhile: its end tells nothing, and then it may be asked anew. */
  readonly isLeft: boolean;
}

export interface Patience {
  readonly downAfterMs: number;
  readonly crashGraceMs: number;
}

/** @param outage what is known of it already; null = it was well when it was last looked at. */
export function diagnose(group: GroupSight, outage: Outage | null): Condition {
  const { epoch, master } = group;
  if (master === null || epoch.master === null) return "unclear";
  if (epoch.holdCause === null) return "well";
  // Several claim to be master: one more would not help.
  if (epoch.holdCause === "no-common-truth") return "unclear";
  // Its address leads elsewhere now (a name, a moved IP): it lives, and takes what others write to it.
  if (isElsewhere(group)) return "unclear";
  const view = group.nodes.find(({ id }) => id === master.id);
  if (view === undefined) return "absent";
  switch (view.contact) {
    case "never":
    // Its connection was cut: dialling tells more.
    case "closed":
    // It lives and does not talk to us: a matter of passwords and versions, not of failures.
    case "no-access":
    case "nonsense":
      return "unclear";
    case "unreachable":
      return isLinkless(group, outage) ? "crashed" : "absent";
    case "silent":
    case "loading":
      return "absent";
    case "answering":
      return conditionOf(view, group);
  }
}

/** The very process of the master answers, as a master, at another address. */
function isElsewhere({ master, nodes }: GroupSight): boolean {
  return nodes.some(
    ({ id, contact, report }) =>
      id !== master?.id &&
      contact === "answering" &&
      report?.role === "master" &&
      report.runId === master?.runId &&
      report.replid === master.replid,
  );
}

/** It answers, and still it is not the master that may be written. */
function conditionOf(view: NodeView, group: GroupSight): Condition {
  const { report } = view;
  const { master } = group;
  if (report === null || master === null) return "unclear";
  if (report.loading) return "absent";
  if (report.role === "replica") return isHandingOver(group) ? "unclear" : "absent";
  // Suspected by traffic: the next probe tells.
  return report.runId === master.runId ? "unclear" : "replaced";
}

/** FAILOVER is under way on some node: the servers carry it out or roll it back themselves. */
export function isHandingOver(group: GroupSight): boolean {
  return group.nodes.some(
    ({ contact, report }) =>
      contact === "answering" && report !== null && report.failoverState !== "no-failover",
  );
}

/** No replica that answers has a link to the master, by a report of this outage. */
function isLinkless(group: GroupSight, outage: Outage | null): boolean {
  const replicas = followersOf(group);
  if (outage === null || replicas.length === 0) return false;
  return replicas.every(({ report }) => report.sentAtMs >= outage.noticedAtMs && !report.linkUp);
}

/**
 * Replicas that answer and name the epoch's master as theirs; those of our history, too, that name an address
 * at which we never met anybody: it may be the master's, behind a translation of addresses.
 */
export function followersOf(group: GroupSight): readonly { readonly report: NodeReport }[] {
  const { master, nodes } = group;
  return nodes.flatMap(({ contact, report }) => {
    if (contact !== "answering" || report === null || report.role !== "replica") return [];
    const followed = followedBy(group, report);
    // The address itself is among the nodes: what a member names is watched.
    const isMet = nodes.some((node) => node.id === followed && node.report !== null);
    const isUnknown = !isMet && report.replid === master?.replid;
    return followed === master?.id || isUnknown ? [{ report }] : [];
  });
}

/** What has become of the outage since it was looked at last; null = it is over. */
export function followOutage(group: GroupSight, before: Outage | null, nowMs: number): Outage | null {
  const { master } = group;
  const outage = before?.master === master?.id ? before : null;
  const condition = diagnose(group, outage);
  if (condition === "well" || master === null) return null;
  if (outage === null) {
    const view = group.nodes.find(({ id }) => id === master.id);
    const wellUntilMs = view?.report?.receivedAtMs ?? nowMs;
    return {
      ...{ master: master.id, noticedAtMs: nowMs, wellUntilMs, crashedSinceMs: null, failed: new Map() },
      ...{ questions: new Map(), reachedAtMs: Number.NEGATIVE_INFINITY },
      ...{ refusal: null, isTold: false },
      aloneAtMs: Number.NEGATIVE_INFINITY,
    };
  }
  const crashedSinceMs = condition === "crashed" ? (outage.crashedSinceMs ?? nowMs) : null;
  const aloneAtMs = hasCompany(group) ? outage.aloneAtMs : nowMs;
  const reachedAtMs = reachedSince(group, outage);
  if (reachedAtMs === null) return { ...outage, crashedSinceMs, aloneAtMs };
  return { ...outage, crashedSinceMs, aloneAtMs, reachedAtMs, questions: underWay(outage.questions) };
}

/** Whoever is being asked is not asked again before that has ended: it may hang, and they would pile up. */
function underWay(questions: ReadonlyMap<NodeId, Question>): ReadonlyMap<NodeId, Question> {
  const left = [...questions].filter(([, { command }]) => command !== null);
  return new Map(left.map(([node, question]) => [node, { ...question, isLeft: true }]));
}

/** Any other node answers. */
function hasCompany({ master, nodes }: GroupSight): boolean {
  return nodes.some(({ id, contact }) => id !== master?.id && contact === "answering");
}

/** When a replica that dropped its link to the master when asked had it again; null = none has. */
function reachedSince(group: GroupSight, { questions }: Outage): number | null {
  const times = followersOf(group).flatMap(({ report }) => {
    const question = questions.get(report.node);
    const isAnew = question?.isDone === true && report.linkUp && report.sentAtMs > question.endedAtMs;
    return isAnew ? [report.sentAtMs] : [];
  });
  return times.length === 0 ? null : Math.max(...times);
}

/**
 * When the master counts as gone, monotonic ms; Infinity = not by what is known now. Time in which our own
 * process stood still or reached nobody does not count, nor time in which a replica heard from the master.
 */
export function goneAtMs(group: GroupSight, outage: Outage, patience: Patience): number {
  const condition = diagnose(group, outage);
  switch (condition) {
    case "well":
    case "unclear":
      return Number.POSITIVE_INFINITY;
    case "replaced":
      return outage.noticedAtMs;
    case "crashed":
      // It was seen shutting down: whoever ends it on purpose need not wait for it to come back.
      if (group.epoch.stoppedAtMs !== null) return outage.noticedAtMs;
      return (
        Math.max(outage.crashedSinceMs ?? outage.noticedAtMs, group.awakeSinceMs) + patience.crashGraceMs
      );
    case "absent": {
      const { wellUntilMs, aloneAtMs } = outage;
      const aliveAtMs = Math.max(wellUntilMs, aloneAtMs, hearsayAtMs(group, outage), group.awakeSinceMs);
      return aliveAtMs + patience.downAfterMs;
    }
  }
}

/** The last moment at which a replica is known to have heard from the master or reached it, monotonic ms. */
export function hearsayAtMs(group: GroupSight, outage: Outage): number {
  return Math.max(heardAtMs(group), outage.reachedAtMs);
}

/**
 * The last moment at which a replica provably heard from the master, monotonic ms. Servers tell whole seconds
 * (master_last_io_seconds_ago), so up to one more may have passed. An idle master is heard every
 * repl-ping-replica-period (10 s) only: not having heard proves nothing within that time.
 */
export function heardAtMs(group: GroupSight): number {
  let newest = Number.NEGATIVE_INFINITY;
  for (const { report } of followersOf(group)) {
    if (report.heardSecondsAgo === null) continue;
    newest = Math.max(newest, report.sentAtMs - (report.heardSecondsAgo + 1) * 1_000);
  }
  return newest;
}
