/** PURE. What the failover machine remembers from one step to the next, and the draft a step works on. */

import type { NodeId } from "../topology/epoch.ts";
import type { GroupSight } from "../topology/watcher.ts";
import type { Outage, Patience } from "./diagnosis.ts";
import type { Asking } from "./hasten.ts";
import type {
  Effect,
  NodeCommand,
  Obstacle,
  PromoteMode,
  Standing,
  SwitchoverRequest,
  SwitchVia,
  Told,
} from "./model.ts";

export interface Settings extends Patience {
  readonly mode: PromoteMode;
}

/** What the machine is busy with; one thing at a time. */
export type Job =
  | { readonly kind: "none" }
  /** Promotion: a last look at the leases before it. */
  | { readonly kind: "confirming"; readonly candidate: NodeId; readonly sinceMs: number }
  /** Promotion: the candidate was told. `endedAtMs` null = `command` has not been answered. */
  | {
      readonly kind: "promoting";
      readonly candidate: NodeId;
      readonly former: NodeId;
      readonly command: number | null;
      readonly sinceMs: number;
      readonly endedAtMs: number | null;
    }
  | SwitchoverJob;

export type SwitchoverPhase =
  | "draining" // what was sent to the master is being answered
  | "handing-over" // FAILOVER runs on the master
  | "aborting" // FAILOVER ABORT was sent
  | "pausing" // the master was told to pause writes of others
  | "comparing" // until the replica has all that the master has
  | "promoting" // the replica was told to become the master, or Sentinel to see to it
  | "settling"; // it is the master; the others are told to follow it

export interface SwitchoverJob {
  readonly kind: "switchover";
  readonly ticket: number;
  readonly request: SwitchoverRequest;
  readonly from: NodeId;
  /** Null: Sentinel chooses. */
  readonly to: NodeId | null;
  readonly via: SwitchVia;
  readonly phase: SwitchoverPhase;
  /** Monotonic ms: when writes were held, and when they are let go at the latest. */
  readonly heldAtMs: number;
  readonly deadlineMs: number;
  /** The command that the phase waits for; null = it has ended, at `endedAtMs`. */
  readonly command: number | null;
  readonly endedAtMs: number;
  /** Monotonic ms: when the replica is asked for its word again; and that question, null = it has ended. */
  readonly nudgeAtMs: number;
  readonly nudge: number | null;
  readonly isHolding: boolean;
  readonly stallMs: number;
  readonly lostBytes: number | null;
  readonly repointed: readonly NodeId[];
}

/** A planned switch is under way that has no new master yet. */
export function isSwitching(job: Job): boolean {
  return job.kind === "switchover" && job.phase !== "settling";
}

/** How far the machine got with making a node follow the master. */
export interface Care {
  /** The command under way; null = none. */
  readonly command: number | null;
  /** Monotonic ms before which it is not tried again. */
  readonly nextAtMs: number;
  readonly failures: number;
}

/** To whom a master may hand over yet, of a planned switch that was over before its end was known. */
export interface Heir {
  readonly from: NodeId;
  readonly to: NodeId;
  /** Monotonic ms: then that switch was over. */
  readonly endedAtMs: number;
}

/** Who is to be made to follow the master after a planned switch, where nobody else would do it. */
export interface Duty {
  readonly nodes: ReadonlySet<NodeId>;
  /** Monotonic ms. */
  readonly untilMs: number;
}

/** Who was told to become the master, until that was given up. */
export interface Renounced {
  /** The process that was told: an order ends with it. */
  readonly runId: string;
  /** Monotonic ms. */
  readonly sinceMs: number;
}

/** A CLIENT PAUSE or UNPAUSE that is under way on a node. */
export interface Pausing {
  readonly command: number;
  /** UNPAUSE is to follow as soon as it has ended. */
  readonly isToLift: boolean;
}

export interface State {
  readonly group: GroupSight | null;
  /** The master has another history than at the look before: other claims were not judged by it yet. */
  readonly isNewHistory: boolean;
  readonly standing: Standing;
  /** Monotonic ms since which the standing is refused without a break; null = it is not. */
  readonly refusedSinceMs: number | null;
  /** Monotonic ms since which the group is looked at and no master was ever found; null = it was at once. */
  readonly masterlessSinceMs: number | null;
  readonly outage: Outage | null;
  readonly job: Job;
  readonly heir: Heir | null;
  readonly care: ReadonlyMap<NodeId, Care>;
  readonly duty: Duty | null;
  readonly renounced: ReadonlyMap<NodeId, Renounced>;
  readonly pauses: ReadonlyMap<NodeId, Pausing>;
  /** Replicas that were asked for their word. */
  readonly asking: ReadonlyMap<NodeId, Asking>;
  /** Addresses that were seen as members of the group. */
  readonly members: ReadonlySet<NodeId>;
  /** Replicas that followed a former master when there was a switch, and have not left it, to that one. */
  readonly orphans: ReadonlyMap<NodeId, NodeId>;
  readonly obstacles: readonly Obstacle[];
  readonly lastId: number;
}

/** @param members addresses known from before a restart. */
export function firstState(mode: PromoteMode, members: readonly NodeId[] = []): State {
  const reason = "the leases have not been looked at yet";
  return {
    group: null,
    isNewHistory: true,
    standing: mode === "self" ? { kind: "refused", reason } : { kind: "sole" },
    refusedSinceMs: null,
    masterlessSinceMs: null,
    outage: null,
    job: { kind: "none" },
    heir: null,
    care: new Map(),
    duty: null,
    renounced: new Map(),
    pauses: new Map(),
    asking: new Map(),
    members: new Set(members),
    orphans: new Map(),
    obstacles: [],
    lastId: 0,
  };
}

/** One step under way: the next state and the effects so far. Lives within a call of `step` only. */
export class Draft {
  state: State;
  readonly nowMs: number;
  readonly settings: Settings;
  readonly effects: Effect[] = [];

  constructor(state: State, nowMs: number, settings: Settings) {
    this.state = state;
    this.nowMs = nowMs;
    this.settings = settings;
  }

  set(change: Partial<State>): void {
    this.state = { ...this.state, ...change };
  }

  emit(effect: Effect): void {
    this.effects.push(effect);
  }

  /** @returns the number by which the end of the command will be told. */
  run(node: NodeId, command: NodeCommand): number {
    const id = this.nextId();
    this.emit({ kind: "run", id, node, command });
    return id;
  }

  nextId(): number {
    const id = this.state.lastId + 1;
    this.set({ lastId: id });
    return id;
  }

  look(...nodes: readonly NodeId[]): void {
    this.emit({ kind: "look", nodes });
  }

  wake(atMs: number): void {
    if (atMs !== Number.POSITIVE_INFINITY) this.emit({ kind: "wake", atMs });
  }

  tell(what: Told, node: NodeId | null, detail: string): void {
    this.emit({ kind: "tell", what, node, detail });
  }
}
