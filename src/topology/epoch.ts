/**
 * The words the control plane and the data plane share: which node is the master, which replicas may be
 * read, and what the data plane noticed. Only these small plain values cross the seam.
 */

/** A node's address as "host:port" (IPv6 hosts in brackets), as the proxy dials it. */
export type NodeId = string & { readonly __brand: "NodeId" };

/** A replication id (40 hex digits) and the offset up to which it is known to count, in bytes. */
export interface History {
  readonly replid: string;
  readonly offset: number;
}

/** A replica that may be read. */
export interface ReadableNode {
  readonly id: NodeId;
  /**
   * Monotonic time in ms. Every write answered to a client before this moment is applied on the node:
   * it has applied an offset that the master reported after it. `-Infinity` while nothing is proven.
   */
  readonly provenAtMs: number;
}

/** Why there is no master that may be written right now. */
export type HoldCause =
  | "no-master-yet" // none has been found since the start
  | "connection-lost" // its connections were closed or refused
  | "silent" // it does not answer probes
  | "shutting-down" // it has stopped writing and ends once its replicas have everything
  | "loading" // it is loading its data set
  | "role-changed" // it says it is a replica (or answered READONLY); its successor is not verified yet
  | "history-refused" // it came back with a history that does not continue ours
  | "no-common-truth" // several nodes claim to be master and none provably continues the other
  /**
   * A planned switch is under way: the master is well and answers what it was sent, it just gets nothing new.
   */
  | "switchover";

/**
 * The immutable belief all routing uses. A new object is published at every change; `number` grows only
 * when the master becomes another one (a switch).
 */
export interface Epoch {
  /** 0 until the first master was found; then +1 at each switch. */
  readonly number: number;
  readonly master: NodeId | null;
  /** The master's replication id at the time of verification; null exactly when `master` is null. */
  readonly history: History | null;
  /** Whether the master is verified and nothing speaks against it: null = writes may go to it. */
  readonly holdCause: HoldCause | null;
  /**
   * Monotonic ms: a report that was sent then, the newest of its kind, said that the master has stopped
   * writing in order to end. Kept for what follows; null once it is known to write.
   */
  readonly stoppedAtMs: number | null;
  /** Replicas fit to be read, sorted by id. */
  readonly readable: readonly ReadableNode[];
}

export const FIRST_EPOCH: Epoch = {
  number: 0,
  master: null,
  history: null,
  holdCause: "no-master-yet",
  stoppedAtMs: null,
  readable: [],
};

/** Whether the same nodes may be used for the same: they differ at most in what the replicas have proven. */
export function isSameRouting(a: Epoch, b: Epoch): boolean {
  return (
    a.number === b.number &&
    a.master === b.master &&
    a.holdCause === b.holdCause &&
    a.stoppedAtMs === b.stoppedAtMs &&
    a.history?.replid === b.history?.replid &&
    a.history?.offset === b.history?.offset &&
    a.readable.length === b.readable.length &&
    a.readable.every(({ id }, index) => id === b.readable[index]?.id)
  );
}

/** What the data plane noticed about a node in its traffic. */
export type EvidenceKind =
  | "connection-lost" // an established upstream connection ended without our doing
  | "connect-failed" // could not connect, or the handshake failed
  | "not-master" // READONLY (also inside EXECABORT), or the node's own word during a master handshake
  | "loading" // LOADING
  | "link-down"; // MASTERDOWN from a replica

export interface Evidence {
  readonly kind: EvidenceKind;
  readonly node: NodeId;
  /**
   * The epoch the connection belonged to; evidence from an older epoch changes nothing but starts a probe.
   */
  readonly epoch: number;
}
