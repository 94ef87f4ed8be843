/**
 * PURE. What is known of each node, for status pages, PROXY NODES and metrics.
 */

import type { Address } from "../config/address.ts";
import type { NodeId } from "./epoch.ts";
import type { AttachedReplica, FailoverState, Role } from "./report.ts";
import type { Aliases } from "./rules/aliases.ts";
import type { Belief, Contact, FitVerdict, NodeView } from "./rules/model.ts";
import type { SentinelState } from "./rules/sentinel.ts";

export interface NodeStatus {
  readonly id: NodeId;
  /** Configured, as opposed to discovered. */
  readonly seed: boolean;
  /** The first address of the same running instance, if this is a second one. */
  readonly aliasOf: NodeId | null;
  /** Whether it is the master of the current epoch. */
  readonly isMaster: boolean;
  readonly reachable: boolean;
  readonly contact: Contact;
  /** "fit": may be read; otherwise why not. */
  readonly fit: FitVerdict;
  readonly lagMs: number | null;
  readonly lagBytes: number | null;
  /** As in ReadableNode; -Infinity while nothing is proven. */
  readonly provenAtMs: number;
  /** What its last sensible report said; null before the first one. */
  readonly said: NodeWord | null;
  /** Age of that report in ms. */
  readonly lastSeenAgoMs: number | null;
  readonly lastProblem: { readonly detail: string; readonly atWallMs: number } | null;
}

export interface NodeWord {
  readonly role: Role;
  readonly runId: string;
  readonly version: string;
  readonly replid: string;
  readonly replid2: string | null;
  readonly secondReplOffset: number | null;
  readonly masterReplOffset: number;
  readonly appliedOffset: number;
  readonly masterAddress: Address | null;
  readonly linkUp: boolean;
  readonly syncInProgress: boolean;
  readonly loading: boolean;
  readonly readOnly: boolean;
  readonly priority: number;
  readonly failoverState: FailoverState;
  readonly replicas: readonly AttachedReplica[];
  readonly keys: number;
}

/** What is known of one Sentinel. */
export interface SentinelStatus {
  readonly id: NodeId;
  /** Configured, as opposed to discovered. */
  readonly configured: boolean;
  /** It has a say: its word counts towards the majority. */
  readonly counts: boolean;
  readonly state: SentinelState;
  /** Why it is not agreeing, where that is not said by the state; may be empty. */
  readonly detail: string;
  /** Whom it named last; null = nobody, or never asked. */
  readonly master: NodeId | null;
  readonly configEpoch: number | null;
  readonly lastSeenAgoMs: number | null;
}

export interface WatchedNode {
  readonly view: NodeView;
  readonly lastProblem: NodeStatus["lastProblem"];
}

export function describeNodes(
  belief: Belief,
  nodes: readonly WatchedNode[],
  aliases: Aliases,
  nowMs: number,
): NodeStatus[] {
  return nodes.map(({ view, lastProblem }) => {
    const fitness = belief.fitness.get(view.id);
    return {
      id: view.id,
      seed: view.seed,
      aliasOf: aliases.get(view.id) ?? null,
      isMaster: view.id === belief.epoch.master,
      reachable: view.contact === "answering",
      contact: view.contact,
      fit: fitness?.verdict ?? "no-master-known",
      lagMs: fitness?.lagMs ?? null,
      lagBytes: fitness?.lagBytes ?? null,
      provenAtMs: belief.proofs.get(view.id)?.provenAtMs ?? Number.NEGATIVE_INFINITY,
      said: view.report,
      lastSeenAgoMs: view.report === null ? null : nowMs - view.report.receivedAtMs,
      lastProblem,
    };
  });
}
