/**
 * PURE. The words of the failover machine: what it sees, what it may ask for, what it is told.
 *
 * The machine never makes a node the master by itself: it asks nodes to change their roles, and the watcher's
 * rules accept the result, or not, by the same evidence as any other promotion.
 */

import type { NodeId } from "../topology/epoch.ts";
import type { GroupSight } from "../topology/watcher.ts";

/** Who promotes when the master is gone (`failover.promote`). */
export type PromoteMode = "never" | "sentinel" | "self";

/** What a node can be asked to do. */
export type NodeCommand =
  /** REPLICAOF NO ONE, then CONFIG REWRITE where it is possible. */
  | { readonly kind: "promote" }
  /** REPLICAOF `master`, by an address that is good for the node; then CONFIG REWRITE where possible. */
  | { readonly kind: "follow"; readonly master: NodeId }
  /** FAILOVER TO `to` TIMEOUT `timeoutMs`: answered at once, carried out afterwards. */
  | { readonly kind: "failover"; readonly to: NodeId; readonly timeoutMs: number }
  /** FAILOVER ABORT. */
  | { readonly kind: "abort-failover" }
  /**
   * REPLCONF GETACK to a replica: it tells its master at once what it has applied. FAILOVER waits for that
   * word, which otherwise comes once a second (replication.c, replconfCommand, replicationCron).
   */
  | { readonly kind: "acknowledge" }
  /** CLIENT KILL TYPE master, to a replica: it drops the link to its master and makes it anew, at once. */
  | { readonly kind: "relink" }
  /** CLIENT PAUSE `forMs` WRITE. */
  | { readonly kind: "pause-writes"; readonly forMs: number }
  /** CLIENT UNPAUSE. */
  | { readonly kind: "unpause" }
  /** CONFIG REWRITE, so that a restart keeps the role. */
  | { readonly kind: "keep-role" };

/** How such a request ended. */
export type CommandResult =
  | { readonly kind: "done" }
  /** The node's own error: nothing was changed. */
  | { readonly kind: "refused"; readonly error: string }
  /** No connection could be made: nothing was sent. */
  | { readonly kind: "unreachable"; readonly error: string }
  /** No answer came: it may or may not have been carried out, or be carried out later. */
  | { readonly kind: "unknown"; readonly error: string };

/** What came of a planned switch. */
export interface SwitchoverReport {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly via: SwitchVia;
  /** How long writes were held, ms. */
  readonly stallMs: number;
  /** Of the former history, by the rules that accepted the new master; null = unknown. */
  readonly lostBytes: number | null;
  /** Other replicas that were told to follow the new master. */
  readonly repointed: readonly NodeId[];
}

/** failover: the server's own FAILOVER; promote: pause, compare, promote; sentinel: SENTINEL FAILOVER. */
export type SwitchVia = "failover" | "promote" | "sentinel";

/** What an operator asks for. */
export interface SwitchoverRequest {
  /** Null: the fittest replica. */
  readonly to: NodeId | null;
  /** How long writes may be held at most, ms. */
  readonly timeoutMs: number;
}

export type SwitchoverAnswer =
  | { readonly kind: "done"; readonly report: SwitchoverReport }
  /** Nothing was changed. */
  | { readonly kind: "refused"; readonly reason: string }
  /** It was begun and rolled back: the master is the one of before. */
  | { readonly kind: "rolled-back"; readonly reason: string }
  /** It was begun and its end is not known within the time: the group is observed as always. */
  | { readonly kind: "open"; readonly reason: string };

/** What the machine knows about its right to promote: see lease.ts and foreign-sentinels.ts. */
export type Standing =
  /** Nobody else promotes in this group, as far as a sufficient part of its nodes can tell. */
  { readonly kind: "sole" } | { readonly kind: "refused"; readonly reason: string };

export type Event =
  /** The watcher looked at the group. */
  | { readonly kind: "seen"; readonly group: GroupSight }
  /** The time of an earlier `wake` has come, or any other. */
  | { readonly kind: "tick" }
  /** A command has ended. */
  | { readonly kind: "ended"; readonly id: number; readonly result: CommandResult }
  /** Nothing that was sent to the master before the hold is unanswered. */
  | { readonly kind: "drained" }
  /** The epoch has another master; `seen` follows. */
  | { readonly kind: "switched"; readonly lostBytes: number | null }
  | { readonly kind: "standing"; readonly standing: Standing }
  /** What a fresh look at the leases says, as asked for by `confirm`. */
  | { readonly kind: "confirmed"; readonly standing: Standing }
  /** An operator asks for a planned switch; `ticket` names the request in the answer. */
  | { readonly kind: "asked"; readonly ticket: number; readonly request: SwitchoverRequest };

export type Effect =
  | { readonly kind: "run"; readonly id: number; readonly node: NodeId; readonly command: NodeCommand }
  /** SENTINEL FAILOVER, by any Sentinel that is of the majority's opinion. */
  | { readonly kind: "ask-sentinel"; readonly id: number }
  /** Look at the leases on these nodes now; `confirmed` follows. */
  | { readonly kind: "confirm"; readonly nodes: readonly NodeId[] }
  /** Writes are held until `release`, also while the master is well. `drained` follows. */
  | { readonly kind: "hold" }
  | { readonly kind: "release" }
  /** The node was told to become the master, maybe in vain: as soon as the master is written it must not. */
  | { readonly kind: "renounce"; readonly node: NodeId }
  /** Probe these nodes at once. */
  | { readonly kind: "look"; readonly nodes: readonly NodeId[] }
  /** Send `tick` at this monotonic time, ms. */
  | { readonly kind: "wake"; readonly atMs: number }
  | { readonly kind: "answer"; readonly ticket: number; readonly answer: SwitchoverAnswer }
  /** For people. */
  | { readonly kind: "tell"; readonly what: Told; readonly node: NodeId | null; readonly detail: string };

export type Told =
  | "master-suspected" // it seems to be gone; the grace runs
  | "master-recovered" // it was suspected and is well again
  | "not-asked" // a replica does not let itself be asked whether it reaches the master
  | "promoting" // a replica is told to become the master
  | "promoted" // … and is accepted as the master
  | "promotion-failed"
  | "repointing" // a node is told to follow the master
  | "repointed" // … and does
  | "repointing-failed"
  | "switchover-refused"
  | "switchover-begun"
  | "switchover-done"
  | "switchover-rolled-back"
  | "switchover-open";

/** Why nothing is promoted although the master is gone; null = nothing is wrong. */
export type Obstacle = { readonly kind: ObstacleKind; readonly node: NodeId | null; readonly detail: string };

export type ObstacleKind =
  | "no-candidate" // no replica may become the master
  | "another-promoter" // another proxy promotes in this group, or may (the lease), or a Sentinel does
  | "master-heard-elsewhere" // a replica still hears from the master that is silent here
  | "not-demoted"; // a node of the group claims to be master and does not obey
