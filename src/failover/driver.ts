/**
 * Runs the failover machine: feeds it with what happens, carries out what it asks for. All decisions are the
 * machine's; here are the timers, the commands under way and the requests that wait for their answer.
 *
 *   looked(), switched()   the watcher looked at the group; it has another master
 *   standing()             the leases say something else
 *   switchover(), plan()   an operator asks for a planned switch, or what it would do
 *   restartable()          an operator is about to restart a node
 *   close(), destroy()     nothing is begun any more; writes are not held any longer
 */

import type { Clock, SetTimer } from "../clock.ts";
import type { NodeId } from "../topology/epoch.ts";
import { firstAddress } from "../topology/rules/aliases.ts";
import { liveAt } from "../topology/rules/scene.ts";
import type { GroupSight } from "../topology/watcher.ts";
import { step } from "./machine.ts";
import type {
  CommandResult,
  Effect,
  Event,
  NodeCommand,
  Obstacle,
  Standing,
  SwitchoverAnswer,
  SwitchoverRequest,
  Told,
} from "./model.ts";
import { type Planned, planSwitchover } from "./plan.ts";
import { firstState, type Settings, type State } from "./state.ts";

/** What the driver needs of others; each calls back exactly once, never before it returns. */
export interface DriverParts {
  readonly clock: Clock;
  readonly setTimer: SetTimer;
  readonly group: () => GroupSight;
  /** Holds writes, also while the master is well; and ends that. */
  readonly hold: () => void;
  readonly release: () => void;
  /** Once nothing sent to the master is unanswered. @returns what cancels it. */
  readonly whenDrained: (done: () => void) => () => void;
  readonly renounce: (node: NodeId) => void;
  /** Probe these nodes at once. */
  readonly look: (nodes: readonly NodeId[]) => void;
  readonly run: (node: NodeId, command: NodeCommand, done: (result: CommandResult) => void) => void;
  /** A fresh look at the leases on these nodes. */
  readonly confirm: (nodes: readonly NodeId[], done: (standing: Standing) => void) => void;
  /** SENTINEL FAILOVER. */
  readonly askSentinel: (done: (result: CommandResult) => void) => void;
  /** What came of an operator's request; it gets the same answer. */
  readonly onAnswer?: (answer: SwitchoverAnswer) => void;
  readonly tell: (what: Told, node: NodeId | null, detail: string) => void;
  /** Why nothing is promoted although it should be, and why a node is not demoted; told when it changes. */
  readonly onObstacles: (obstacles: readonly Obstacle[]) => void;
}

export type RestartableAnswer =
  /** It may be stopped. `movedTo`: it was the master, this node is it now. */
  | { readonly kind: "yes"; readonly movedTo: NodeId | null; readonly stallMs: number }
  | { readonly kind: "no"; readonly reason: string };

/** How long a former master may take to be a synchronised replica before its restart is advised against. */
const FOLLOW_MS = 10_000;

/** A timer that fires so late, ms, means that our process stood still: answers may lie in the sockets. */
const STALL_MS = 100;

interface Waiter {
  readonly node: NodeId;
  readonly untilMs: number;
  readonly stallMs: number;
  readonly resolve: (answer: RestartableAnswer) => void;
}

export class FailoverDriver {
  private state: State;
  private readonly settings: Settings;
  private readonly parts: DriverParts;
  private readonly queue: Event[] = [];
  private isStepping = false;
  private isClosed = false;
  private wakeAtMs = Number.POSITIVE_INFINITY;
  /** Monotonic ms at which the last stall noticed here ended; the watcher may notice it a little later. */
  private awakeSinceMs = Number.NEGATIVE_INFINITY;
  private cancelWake: (() => void) | null = null;
  private cancelDrain: (() => void) | null = null;
  private readonly asked = new Map<number, (answer: SwitchoverAnswer) => void>();
  private tickets = 0;
  private waiters: Waiter[] = [];

  /** @param members addresses that were members of the group before a restart of the proxy. */
  constructor(settings: Settings, parts: DriverParts, members: readonly NodeId[] = []) {
    this.settings = settings;
    this.parts = parts;
    this.state = firstState(settings.mode, members);
  }

  get obstacles(): readonly Obstacle[] {
    return this.state.obstacles;
  }

  get members(): ReadonlySet<NodeId> {
    return this.state.members;
  }

  looked(): void {
    const group = this.sight();
    this.take({ kind: "seen", group });
    this.serveWaiters(group);
  }

  private sight(): GroupSight {
    const group = this.parts.group();
    return { ...group, awakeSinceMs: Math.max(group.awakeSinceMs, this.awakeSinceMs) };
  }

  switched(lostBytes: number | null): void {
    this.take({ kind: "switched", lostBytes });
  }

  standing(standing: Standing): void {
    this.take({ kind: "standing", standing });
  }

  plan(request: SwitchoverRequest): Planned {
    return planSwitchover(this.parts.group(), request, this.settings.mode);
  }

  switchover(request: SwitchoverRequest): Promise<SwitchoverAnswer> {
    if (this.isClosed) return Promise.resolve({ kind: "refused", reason: "the proxy is stopping" });
    const ticket = ++this.tickets;
    return new Promise((resolve) => {
      this.asked.set(ticket, resolve);
      this.take({ kind: "asked", ticket, request });
    });
  }

  /** Moves the master role away from `node` if it has it, and says when `node` may be stopped. */
  async restartable(node: NodeId, timeoutMs: number): Promise<RestartableAnswer> {
    const group = this.parts.group();
    const id = firstAddress(group, node);
    if (!group.nodes.some((view) => view.id === id)) return no(`${node} is not a node of this group`);
    const { master, holdCause } = group.epoch;
    if (master === null || holdCause !== null) {
      return no(`the group has no master that can be written: ${holdCause ?? "none was found"}`);
    }
    if (master !== id) {
      // It may be about to become the master.
      const isSettled = this.state.job.kind === "none";
      return isSettled ? { kind: "yes", movedTo: null, stallMs: 0 } : no("a switch is under way");
    }
    const answer = await this.switchover({ to: null, timeoutMs });
    if (answer.kind !== "done") return no(answer.reason);
    const { stallMs } = answer.report;
    return new Promise((resolve) => {
      const untilMs = this.parts.clock.nowMs() + FOLLOW_MS;
      this.waiters.push({ node: id, untilMs, stallMs, resolve });
      this.serveWaiters(this.parts.group());
    });
  }

  /** Answers those who wait for a former master to be a replica like any other. */
  private serveWaiters(group: GroupSight): void {
    if (this.waiters.length === 0) return;
    const { master } = group;
    this.waiters = this.waiters.filter(({ node, untilMs, stallMs, resolve }) => {
      const report = liveAt(group.nodes, node)?.report;
      const follows = report?.role === "replica" && report.linkUp && report.replid === master?.replid;
      if (follows && master !== null) resolve({ kind: "yes", movedTo: master.id, stallMs });
      else if (this.parts.clock.nowMs() < untilMs) return true;
      else resolve(no(`it is no master any more, but it does not follow ${master?.id ?? "anybody"} yet`));
      return false;
    });
  }

  private take(event: Event): void {
    if (this.isClosed) return;
    // It must come before any look at its new master: what it says of the loss belongs to that.
    if (event.kind !== "switched") this.noticeStall();
    this.queue.push(event);
    if (this.isStepping) return;
    this.isStepping = true;
    try {
      for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) this.stepOnce(next);
    } finally {
      this.isStepping = false;
    }
  }

  /** Before anything is judged by time: what is known is as old as the stall was long. */
  private noticeStall(): void {
    const nowMs = this.parts.clock.nowMs();
    if (nowMs - this.wakeAtMs <= STALL_MS || nowMs === this.awakeSinceMs) return;
    this.awakeSinceMs = nowMs;
    this.queue.push({ kind: "seen", group: this.sight() });
  }

  private stepOnce(event: Event): void {
    const before = this.state;
    const { state, effects } = step(before, event, this.parts.clock.nowMs(), this.settings);
    this.state = state;
    for (const effect of effects) this.carryOut(effect);
    if (state.obstacles !== before.obstacles) this.parts.onObstacles(state.obstacles);
  }

  private carryOut(effect: Effect): void {
    const { parts } = this;
    switch (effect.kind) {
      case "run": {
        const { id } = effect;
        return parts.run(effect.node, effect.command, (result) => this.take({ kind: "ended", id, result }));
      }
      case "ask-sentinel": {
        const { id } = effect;
        return parts.askSentinel((result) => this.take({ kind: "ended", id, result }));
      }
      case "confirm":
        return parts.confirm(effect.nodes, (standing) => this.take({ kind: "confirmed", standing }));
      case "hold":
        parts.hold();
        this.cancelDrain?.();
        this.cancelDrain = parts.whenDrained(() => this.take({ kind: "drained" }));
        return;
      case "release":
        this.cancelDrain?.();
        this.cancelDrain = null;
        return parts.release();
      case "renounce":
        return parts.renounce(effect.node);
      case "look":
        return parts.look(effect.nodes);
      case "wake":
        return this.wake(effect.atMs);
      case "answer":
        parts.onAnswer?.(effect.answer);
        this.asked.get(effect.ticket)?.(effect.answer);
        this.asked.delete(effect.ticket);
        return;
      case "tell":
        return parts.tell(effect.what, effect.node, effect.detail);
    }
  }

  /** The earliest time counts; whatever is still to be waited for then is asked for again. */
  private wake(atMs: number): void {
    if (atMs >= this.wakeAtMs) return;
    this.cancelWake?.();
    this.wakeAtMs = atMs;
    const delayMs = Math.max(0, Math.ceil(atMs - this.parts.clock.nowMs()));
    this.cancelWake = this.parts.setTimer(() => {
      this.noticeStall();
      this.cancelWake = null;
      this.wakeAtMs = Number.POSITIVE_INFINITY;
      this.take({ kind: "tick" });
    }, delayMs);
  }

  /** What is under way on the nodes ends by itself there. */
  async close(): Promise<void> {
    this.destroy();
  }

  destroy(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.cancelWake?.();
    this.cancelDrain?.();
    this.parts.release();
    for (const resolve of this.asked.values()) resolve({ kind: "open", reason: "the proxy is stopping" });
    this.asked.clear();
    for (const { resolve } of this.waiters) resolve(no("the proxy is stopping"));
    this.waiters = [];
  }
}

function no(reason: string): RestartableAnswer {
  return { kind: "no", reason };
}
