/**
 * Puts the failover machine to work: the driver with the connections that carry its commands out. To the
 * outside it is one object with a life.
 */

import { randomBytes } from "node:crypto";
import { type Clock, systemTimer } from "../clock.ts";
import type { Login } from "../topology/dial.ts";
import type { NodeId } from "../topology/epoch.ts";
import { changesOf, type ProblemChange, problemLine } from "../topology/problems.ts";
import { firstAddress } from "../topology/rules/aliases.ts";
import type { GroupSight } from "../topology/watcher.ts";
import { FailoverDriver, type RestartableAnswer } from "./driver.ts";
import type {
  CommandResult,
  Obstacle,
  Standing,
  SwitchoverAnswer,
  SwitchoverRequest,
  Told,
} from "./model.ts";
import { createNodeCommander, type NodeCommander } from "./nodes.ts";
import { objectionToPause, type Planned } from "./plan.ts";
import { markerId } from "./right/lease.ts";
import { Listener } from "./right/listener.ts";
import { PromoterLine } from "./right/promoter-line.ts";
import { Promoters } from "./right/promoters.ts";
import type { Settings } from "./state.ts";
import { addressFor } from "./whereabouts.ts";

/** The watcher, as far as it is needed here. */
export interface Watching {
  group(): GroupSight;
  hold(): void;
  release(): void;
  renounce(node: NodeId): void;
  hint(nodes: readonly NodeId[]): void;
}

export interface FailoverControlOptions extends Settings, Login {
  /** For one command on a node, connecting included, ms. */
  readonly commandTimeoutMs: number;
  readonly clock: Clock;
  readonly watcher: Watching;
  /** Once nothing sent to the master is unanswered. @returns what cancels it. */
  readonly whenDrained: (done: () => void) => () => void;
  /** SENTINEL FAILOVER. */
  readonly askSentinel: () => Promise<CommandResult>;
  /** Where this proxy can be found, for the logs of others. */
  readonly label: string;
  /** Addresses that were members of the group before a restart. */
  readonly members: readonly NodeId[];
  /** The watcher knows of one more order to become the master that was given up. */
  readonly onRenounced: () => void;
  readonly onAnswer: (answer: SwitchoverAnswer) => void;
  readonly tell: (what: Told, node: NodeId | null, detail: string) => void;
  /** An obstacle is there, or is not any more. */
  readonly onObstacle: (obstacle: Obstacle, change: ProblemChange) => void;
}

export class FailoverControl {
  private readonly options: FailoverControlOptions;
  private readonly commander: NodeCommander;
  private readonly driver: FailoverDriver;
  /** Null when this proxy does not promote by itself. */
  private readonly promoters: Promoters | null;
  private readonly listener: Listener;
  /** For the sake of a switch that is about to begin. */
  private isListening = false;
  private obstacles: readonly Obstacle[] = [];

  constructor(options: FailoverControlOptions) {
    this.options = options;
    const { clock, watcher, whenDrained, tell, username, password, members } = options;
    this.commander = createNodeCommander({
      ...{ username, password, timeoutMs: options.commandTimeoutMs },
      isSame: (one, other) => {
        const group = watcher.group();
        return firstAddress(group, one) === firstAddress(group, other);
      },
      addressFor: (node, master) => addressFor(watcher.group(), node, master),
    });
    const parts = {
      clock,
      setTimer: systemTimer,
      group: () => watcher.group(),
      hold: () => watcher.hold(),
      release: () => watcher.release(),
      whenDrained,
      renounce: (node: NodeId) => {
        watcher.renounce(node);
        options.onRenounced();
      },
      look: (nodes: readonly NodeId[]) => watcher.hint(nodes),
      run: this.commander.run.bind(this.commander),
      confirm: (nodes: readonly NodeId[], done: (standing: Standing) => void) => this.confirm(nodes, done),
      askSentinel: (done: (result: CommandResult) => void) => void options.askSentinel().then(done),
      tell,
      onAnswer: options.onAnswer,
      onObstacles: (obstacles: readonly Obstacle[]) => this.onObstacles(obstacles),
    };
    this.driver = new FailoverDriver(options, parts, members);
    this.promoters = options.mode === "self" ? this.buildPromoters() : null;
    this.listener = new Listener({ username, password, timeoutMs: options.commandTimeoutMs });
  }

  private buildPromoters(): Promoters {
    const { clock, username, password, label, commandTimeoutMs: timeoutMs } = this.options;
    const id = markerId(clock.wallMs(), randomBytes(8).toString("hex"));
    const createLine = (node: NodeId, onEnd: () => void): PromoterLine =>
      new PromoterLine(node, { username, password }, onEnd);
    return new Promoters(
      { timeoutMs, id, label },
      { onStanding: (standing) => this.driver.standing(standing) },
      { clock, setTimer: systemTimer, random: Math.random, createLine },
    );
  }

  start(): void {
    this.promoters?.start();
  }

  /** The watcher has looked at the group. */
  looked(): void {
    this.promoters?.setNodes(this.options.watcher.group().nodes.map(({ id }) => id));
    this.driver.looked();
  }

  /** The epoch has another master. */
  switched(lostBytes: number | null): void {
    this.driver.switched(lostBytes);
  }

  async switchover(request: SwitchoverRequest): Promise<SwitchoverAnswer> {
    const reason = await this.soleObjection(this.driver.plan(request));
    if (reason === null) return this.driver.switchover(request);
    this.options.tell("switchover-refused", request.to, reason);
    const answer = { kind: "refused", reason } as const;
    this.options.onAnswer(answer);
    return answer;
  }

  async plan(request: SwitchoverRequest): Promise<Planned> {
    const planned = this.driver.plan(request);
    const reason = await this.objection(planned);
    return reason === null ? planned : { kind: "refused", reason };
  }

  async restartable(node: NodeId, timeoutMs: number): Promise<RestartableAnswer> {
    const group = this.options.watcher.group();
    const isMaster = firstAddress(group, node) === group.epoch.master;
    const reason = isMaster ? await this.soleObjection(this.driver.plan({ to: null, timeoutMs })) : null;
    return reason === null ? this.driver.restartable(node, timeoutMs) : { kind: "no", reason };
  }

  /**
   * Why a planned switch would be undone: a Sentinel that does not know of it sees its master as a replica,
   * which to it is an outage, and promotes (sentinel.c, sentinelCheckSubjectivelyDown). Or why it would not
   * be safe: the master's writes cannot be paused. Null = nothing is known of either, or there is no switch
   * to be made.
   */
  private async objection(planned: Planned): Promise<string | null> {
    if (planned.kind === "refused") return null;
    if (planned.plan.via === "sentinel") return this.pauseObjection(planned.plan.from);
    const { from, to, via } = planned.plan;
    const heard = await this.listener.objection(to === null ? [from] : [from, to]);
    return heard === null && via === "promote" ? this.pauseObjection(from) : heard;
  }

  /** The master is told to pause for no time at all, which changes nothing where it can. */
  private pauseObjection(master: NodeId): Promise<string | null> {
    return new Promise((resolve) => {
      this.commander.run(master, { kind: "pause-writes", forMs: 0 }, (result) => {
        resolve(objectionToPause(master, result));
      });
    });
  }

  /** The same before a switch that is to be made; of two at one time the second one is not. */
  private async soleObjection(planned: Planned): Promise<string | null> {
    if (this.isListening) return "another switch is under way";
    this.isListening = true;
    try {
      return await this.objection(planned);
    } finally {
      this.isListening = false;
    }
  }

  /** This proxy may replace a master that is gone, by what was last seen of other proxies. */
  get isPromoter(): boolean {
    return this.promoters?.standing().kind === "sole";
  }

  /** For people, a line each. */
  problems(): string[] {
    return this.obstacles.map(problemLine);
  }

  private confirm(nodes: readonly NodeId[], done: (standing: Standing) => void): void {
    if (this.promoters !== null) return this.promoters.confirm(nodes, done);
    setImmediate(() => done({ kind: "refused", reason: "this proxy does not promote by itself" }));
  }

  private onObstacles(now: readonly Obstacle[]): void {
    const before = this.obstacles;
    this.obstacles = now;
    for (const [obstacle, change] of changesOf(before, now)) this.options.onObstacle(obstacle, change);
  }

  async close(): Promise<void> {
    this.destroy();
  }

  destroy(): void {
    this.driver.destroy();
    this.promoters?.destroy();
    this.listener.close();
    this.commander.close();
  }
}
