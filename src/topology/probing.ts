/**
 * What the watcher asks of a probe. It declares it here, so that it can be tested without sockets.
 */

import type { NodeId } from "./epoch.ts";
import type { NodeReport } from "./report.ts";

export type ProbeFailureKind =
  | "unreachable" // could not connect
  | "closed" // the connection ended before the answer
  | "timeout" // no answer within the time-out
  | "loading" // LOADING instead of INFO
  | "busy" // BUSY: it lives and runs a script; nothing else is known
  | "no-access" // NOAUTH, WRONGPASS, NOPERM
  | "nonsense"; // an answer that makes no sense

export type ProbeOutcome =
  | { readonly ok: true; readonly report: NodeReport }
  | {
      readonly ok: false;
      readonly kind: ProbeFailureKind;
      readonly detail: string;
      /** Monotonic ms at which this probe began. */
      readonly startedAtMs: number;
    };

/** What a server told of itself, to be said again in its words. */
export type Told = string | number | readonly Told[];

/** Learnt once per running instance, apart from the probes. */
export interface NodeFacts {
  readonly node: NodeId;
  readonly runId: string;
  /** "redis", "valkey", … from HELLO; null before Redis 6. */
  readonly server: string | null;
  readonly version: string;
  /** Each loaded module as HELLO describes it: its name, version, path and arguments. */
  readonly modules: readonly ReadonlyMap<string, Told>[];
  /** The decoded reply to COMMAND (RESP2 shapes: arrays, strings, integers); null when it was refused. */
  readonly commands: unknown;
}

export interface ProbeEvents {
  onFacts(facts: NodeFacts): void;
  /** The connection ended between two probes. */
  onClosed(): void;
}

export interface NodeProbe {
  /**
   * Starts a probe; not while another one runs. `full` asks for run id, loading and keys, too. `done` is
   * called exactly once and never before this returns, unless the probe is closed first.
   */
  probe(full: boolean, done: (outcome: ProbeOutcome) => void): void;
  close(): void;
}

export type ProbeFactory = (node: NodeId, events: ProbeEvents) => NodeProbe;
