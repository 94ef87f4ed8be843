/**
 * PURE. The plain immutable data that the epoch rules turn from one state into the next.
 */

import type { Epoch, EvidenceKind, History, NodeId } from "../epoch.ts";
import { FIRST_EPOCH } from "../epoch.ts";
import type { NodeReport } from "../report.ts";

/** How the last finished probe of a node ended. */
export type Contact =
  | "never" // none has finished yet
  | "answering" // with a sensible report
  | "unreachable" // could not connect
  | "closed" // the connection ended before the answer
  | "silent" // no answer within the time-out
  | "loading" // LOADING instead of a report
  | "no-access" // NOAUTH, WRONGPASS, NOPERM
  | "nonsense"; // an answer that makes no sense

/** What is known of one address. */
export interface NodeView {
  readonly id: NodeId;
  /** Configured (never forgotten), as opposed to discovered. */
  readonly seed: boolean;
  readonly contact: Contact;
  /** Why `contact` is not "answering", for people. */
  readonly detail: string;
  /** The last sensible report; older than `contact` unless that is "answering". */
  readonly report: NodeReport | null;
}

/**
 * A master report sent at `atMs` (monotonic) had `offset`: whatever was answered to a client before `atMs`
 * lies at or below `offset`.
 */
export interface OffsetSample {
  readonly atMs: number;
  readonly offset: number;
}

/** The master of the epoch, as far as rules need it. */
export interface MasterBelief {
  readonly id: NodeId;
  /** Its running instance: a restart changes it. */
  readonly runId: string;
  readonly replid: string;
  /** Highest offset of this history seen on any node, in bytes. */
  readonly lastSeenOffset: number;
  /** Keys it had when last verified: an empty master is refused when this is not 0. */
  readonly keys: number;
  /** Its offsets over time, oldest first, bounded. */
  readonly samples: readonly OffsetSample[];
  /** The history this one continues, up to which offset; null when that is not known. */
  readonly forkedFrom: History | null;
}

/** What traffic told about a node, until a probe sent later says otherwise. */
export interface Suspicion {
  readonly node: NodeId;
  readonly kind: EvidenceKind;
  /** Monotonic ms: a probe sent after it can say otherwise. */
  readonly sinceMs: number;
}

export type SeenBy = "probe" | "evidence";

/** Why a node is readable or not. */
export type FitVerdict =
  | "fit"
  | "no-master-known"
  | "is-master"
  | "alias" // another address of a node known already
  | "unreachable" // the last probe failed
  | "suspected" // traffic failed on it since the last probe
  | "claims-master"
  | "loading"
  | "syncing"
  | "other-history" // does not carry the epoch's replication id
  | "link-down"
  | "lag-unknown" // behind everything that is remembered of the master
  | "lagging-time" // too long behind
  | "lagging-bytes" // too many bytes behind
  | "catching-up"; // it was, and is not within half of both bounds again

export interface Fitness {
  readonly verdict: FitVerdict;
  /** How long ago the master was where this node is now, in ms; null when unknown. */
  readonly lagMs: number | null;
  readonly lagBytes: number | null;
}

/** The proof behind ReadableNode.provenAtMs; it holds for one running instance that only moves on. */
export interface Proof {
  readonly runId: string;
  readonly appliedOffset: number;
  readonly provenAtMs: number;
}

export interface Belief {
  readonly epoch: Epoch;
  /** Null exactly when epoch.master is. */
  readonly master: MasterBelief | null;
  /**
   * Run ids seen as a member of our group: as its master or as a replica of its history. Such a process got
   * what it has by replication; a restarted one (another run id) may have read an old file. Bounded.
   */
  readonly instances: ReadonlySet<string>;
  /** Claims ("run id:replid") refused while the master was well. Promotion rules never take them. Bounded. */
  readonly refusedClaims: ReadonlySet<string>;
  /** Run ids told to become the master by an order that was given up, to the offset seen by then. Bounded. */
  readonly renounced: ReadonlyMap<string, number>;
  /** At most one per node. */
  readonly suspicions: readonly Suspicion[];
  /** Since when the master may not be written, monotonic ms; null while it may, and before the first. */
  readonly gone: { readonly sinceMs: number; readonly by: SeenBy } | null;
  readonly proofs: ReadonlyMap<NodeId, Proof>;
  readonly fitness: ReadonlyMap<NodeId, Fitness>;
  /** Sentinels that name another master than the one that is well, to since when, monotonic ms. */
  readonly dissent: ReadonlyMap<NodeId, number>;
}

export const FIRST_BELIEF: Belief = {
  epoch: FIRST_EPOCH,
  master: null,
  instances: new Set(),
  refusedClaims: new Set(),
  renounced: new Map(),
  suspicions: [],
  gone: null,
  proofs: new Map(),
  fitness: new Map(),
  dissent: new Map(),
};

/** The rule by which a master was accepted. */
export type AcceptReason =
  | "first" // the first one after the start
  | "promoted" // a witnessed replica of our history now is its successor
  | "followed" // the former master itself follows it
  | "complete" // it holds all of our history that was ever seen, while the master is gone
  | "unanimous" // all reachable nodes follow it and none holds our history any more
  | "restarted" // the same node, restarted with all of our history
  | "reloaded" // the same node, restarted from its append-only file: nothing is known of what it lost
  | "renamed" // the same running master under a new replication id
  | "re-promoted" // the same running instance, demoted and promoted again
  | "sentinel" // a majority of the Sentinels names it, where the nodes alone decide nothing
  | "operator";

/** Another master, or the same node with a new history. */
export interface MasterChange {
  /** A switch has another master and the next epoch number; a return keeps both. */
  readonly kind: "switch" | "return";
  readonly from: NodeId | null;
  readonly to: NodeId;
  readonly reason: AcceptReason;
  readonly detail: string;
  /** Bytes of the former history that the new one does not contain; null = unknown. */
  readonly lostBytes: number | null;
  /**
   * Monotonic ms: every write answered before it is in the new history; -Infinity = nothing is proven,
   * Infinity = all of them are.
   */
  readonly keptUntilMs: number;
  readonly seenBy: SeenBy;
  /** Since when the former master was gone, monotonic ms; null when it was well. */
  readonly goneSinceMs: number | null;
}

export type ProblemKind =
  | "claimant-refused" // a node claims to be master and is not believed
  | "history-refused" // the master came back with a history that does not continue ours
  | "no-common-truth" // several claims, none continues the other
  | "node-unreachable"
  | "node-nonsense"
  | "probe-no-access" // the probe cannot authenticate, or may not run INFO
  | "too-many-nodes" // a discovered node is not watched because of the bound maxNodes
  | "stalled" // our own event loop stood still
  | "sentinel-unreachable"
  | "sentinel-no-access" // it does not let us in, or refuses a question
  | "sentinel-unknown-master" // it does not know sentinel.name
  | "sentinel-no-quorum" // a failover could not be agreed on
  | "sentinel-disagrees"; // it names another master than the one that is verified and well

export interface Problem {
  readonly kind: ProblemKind;
  readonly node: NodeId | null;
  readonly detail: string;
}

/** Run ids remembered at most. */
export const MAX_INSTANCES = 512;
/** Refused claims remembered at most. */
export const MAX_REFUSED_CLAIMS = 256;

export function claimKey(report: NodeReport): string {
  return `${report.runId}:${report.replid}`;
}

/** `set` with `values` added, the oldest dropped beyond `limit`; the same object when nothing is new. */
export function addBounded(set: ReadonlySet<string>, values: readonly string[], limit: number) {
  const missing = values.filter((value) => !set.has(value));
  if (missing.length === 0) return set;
  return new Set([...set, ...missing].slice(-limit)) as ReadonlySet<string>;
}
