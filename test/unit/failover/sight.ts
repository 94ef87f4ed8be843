/** Short words for the tables of the failover machine: what is seen of a group, and what sees it. */
import { step } from "../../../src/failover/machine.ts";
import type {
  CommandResult,
  Effect,
  Event,
  NodeCommand,
  SwitchoverAnswer,
  SwitchoverRequest,
} from "../../../src/failover/model.ts";
import { firstState, type Settings, type State } from "../../../src/failover/state.ts";
import type { HoldCause, NodeId } from "../../../src/topology/epoch.ts";
import { findAliases } from "../../../src/topology/rules/aliases.ts";
import type { Contact, NodeView } from "../../../src/topology/rules/model.ts";
import type { GroupSight } from "../../../src/topology/watcher.ts";
import { at, hex, replicaReport, report, view, type Word } from "../topology/nodes.ts";

export interface SightOptions {
  /** The epoch's master by its letter; default a. */
  readonly of?: string;
  readonly hold?: HoldCause | null;
  /** The history of the epoch, by its name; default H1. */
  readonly replid?: string;
  readonly epoch?: number;
  readonly awakeSinceMs?: number;
}

/** What the watcher believes, with these nodes; the master was at 90 two seconds before it was at 100. */
export function sight(views: readonly NodeView[], options: SightOptions = {}): GroupSight {
  const { of = "a", hold = null, replid = "H1", epoch: number = 1 } = options;
  const history = { replid: hex(replid), offset: 100 };
  const samples = [
    { atMs: 0, offset: 50 },
    { atMs: 1_000, offset: 90 },
    { atMs: 3_000, offset: 100 },
  ];
  const runId = views.find(({ id }) => id === at(of))?.report?.runId ?? hex(of);
  return {
    epoch: { number, master: at(of), history, holdCause: hold, stoppedAtMs: null, readable: [] },
    master: {
      ...{ id: at(of), runId: hold === null ? runId : hex(of), replid: hex(replid) },
      ...{ lastSeenOffset: 100, keys: 5, samples, forkedFrom: null },
    },
    instances: new Set(),
    nodes: views,
    aliases: findAliases(views, at(of), new Map()),
    awakeSinceMs: options.awakeSinceMs ?? Number.NEGATIVE_INFINITY,
  };
}

/** As a master said it at `sentAtMs`. */
export function masterAt(name: string, sentAtMs: number, word: Word = {}): NodeView {
  return view(report(name, sentAtMs, word));
}

/** As a replica said it at `sentAtMs`. */
export function replicaAt(name: string, sentAtMs: number, word: Word & { of?: string } = {}): NodeView {
  return view(replicaReport(name, sentAtMs, word));
}

/** It said that before; now contact is lost. */
export function lost(said: NodeView, contact: Contact): NodeView {
  return { ...said, contact };
}

export const SELF: Settings = { mode: "self", downAfterMs: 3_000, crashGraceMs: 250 };
export const NEVER: Settings = { ...SELF, mode: "never" };
export const BY_SENTINEL: Settings = { ...SELF, mode: "sentinel" };

export const DONE: CommandResult = { kind: "done" };
export const UNKNOWN: CommandResult = { kind: "unknown", error: "no answer" };
export const UNREACHABLE: CommandResult = { kind: "unreachable", error: "no connection" };

export function refusedWith(error: string): CommandResult {
  return { kind: "refused", error };
}

/** A machine, step by step; keeps count of what it was asked to do. */
export class Play {
  state: State;
  readonly settings: Settings;
  nowMs = 0;
  /** Of the last step. */
  effects: readonly Effect[] = [];
  /** Of all steps. */
  readonly all: Effect[] = [];
  readonly answers: SwitchoverAnswer[] = [];

  constructor(settings: Settings, members: readonly NodeId[] = []) {
    this.settings = settings;
    this.state = firstState(settings.mode, members);
  }

  do(atMs: number, event: Event): this {
    if (atMs < this.nowMs) throw new Error("time runs backwards");
    this.nowMs = atMs;
    const { state, effects } = step(this.state, event, atMs, this.settings);
    this.state = state;
    this.effects = effects;
    this.all.push(...effects);
    for (const effect of effects) if (effect.kind === "answer") this.answers.push(effect.answer);
    return this;
  }

  see(atMs: number, views: readonly NodeView[], options: SightOptions = {}): this {
    return this.do(atMs, { kind: "seen", group: sight(views, options) });
  }

  tick(atMs: number): this {
    return this.do(atMs, { kind: "tick" });
  }

  ask(atMs: number, request: Partial<SwitchoverRequest> = {}): this {
    return this.do(atMs, { kind: "asked", ticket: 1, request: { to: null, timeoutMs: 1_000, ...request } });
  }

  drained(atMs: number): this {
    return this.do(atMs, { kind: "drained" });
  }

  confirmed(atMs: number): this {
    return this.do(atMs, { kind: "confirmed", standing: { kind: "sole" } });
  }

  /** The newest command of the kind has ended. */
  ended(atMs: number, kind: NodeCommand["kind"], result: CommandResult = DONE): this {
    const runs = this.all
      .filter((effect) => effect.kind === "run")
      .filter((one) => one.command.kind === kind);
    const last = runs.at(-1);
    if (last === undefined) throw new Error(`no ${kind} was run`);
    return this.do(atMs, { kind: "ended", id: last.id, result });
  }

  /** All replicas that were told to make their link anew in the last step have done so, or not. */
  relinked(atMs: number, result: CommandResult = DONE): this {
    const runs = this.effects.filter((effect) => effect.kind === "run");
    for (const { id, command } of runs)
      if (command.kind === "relink") this.do(atMs, { kind: "ended", id, result });
    return this;
  }

  /** SENTINEL FAILOVER has been answered. */
  sentinelAnswered(atMs: number, result: CommandResult = DONE): this {
    const asked = this.all.filter((effect) => effect.kind === "ask-sentinel").at(-1);
    if (asked === undefined) throw new Error("Sentinel was not asked");
    return this.do(atMs, { kind: "ended", id: asked.id, result });
  }

  /** The commands of the last step, as "node: command words". */
  get runs(): string[] {
    return this.runsIn(this.effects);
  }

  /** The commands of all steps; what only speeds things up is left out. */
  get allRuns(): string[] {
    return this.runsIn(this.all).filter((run) => !run.endsWith("acknowledge"));
  }

  get phase(): string {
    const { job } = this.state;
    return job.kind === "switchover" ? job.phase : job.kind;
  }

  /** Writes are held by the machine. */
  get isHolding(): boolean {
    let held = false;
    for (const { kind } of this.all) {
      if (kind === "hold") {
        if (held) throw new Error("held twice");
        held = true;
      } else if (kind === "release") {
        if (!held) throw new Error("released what was not held");
        held = false;
      }
    }
    return held;
  }

  get told(): string[] {
    return this.effects.flatMap((effect) => (effect.kind === "tell" ? [effect.what] : []));
  }

  get obstacles(): string[] {
    return this.state.obstacles.map(({ kind, node }) => (node === null ? kind : `${kind} ${node[0]}`));
  }

  private runsIn(effects: readonly Effect[]): string[] {
    return effects.flatMap((effect) => (effect.kind === "run" ? [inWords(effect.node, effect.command)] : []));
  }
}

function inWords(node: NodeId, command: NodeCommand): string {
  const letter = node.split(":")[0];
  switch (command.kind) {
    case "follow":
      return `${letter}: follow ${command.master.split(":")[0]}`;
    case "failover":
      return `${letter}: failover to ${command.to.split(":")[0]} within ${command.timeoutMs}`;
    case "pause-writes":
      return `${letter}: pause-writes for ${command.forMs}`;
    case "promote":
    case "abort-failover":
    case "acknowledge":
    case "relink":
    case "unpause":
    case "keep-role":
      return `${letter}: ${command.kind}`;
  }
}
