/**
 * Puts the failover machine to work: the driver with the connections that carry its commands out. To the
 * outside it is one object with a life.
 */

import { randomBytes } from "node:crypto";
import { type Clock, systemTimer } from "../clock.ts";
import type { NodeId } from "../topology/epoch.ts";
import type { GroupSight } from "../topology/watcher.ts";
import { FailoverDriver, type RestartableAnswer } from "./driver.ts";
import { markerId } from "./lease.ts";
import type {
  CommandResult,
  Obstacle,
  Standing,
  SwitchoverAnswer,
  SwitchoverRequest,
  Told,
} from "./model.ts";
import { createNodeCommander, type NodeCommander } from "./nodes.ts";
import type { Planned } from "./plan.ts";
import { PromoterLine } from "./promoter-line.ts";
import { Promoters } from "./promoters.ts";
import type { Settings } from "./state.ts";
import { addressFor } from "./whereabouts.ts";

/** The watcher, as far as it is needed here. */
export interface Watching {
  group(): GroupSight;
  hold(): void;
  release(): void;
  hint(nodes: readonly NodeId[]): void;
}

export interface FailoverControlOptions extends Settings {
  /** For one command on a node, connecting included, ms. */
  readonly commandTimeoutMs: number;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
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
  readonly onAnswer: (answer: SwitchoverAnswer) => void;
  readonly tell: (what: Told, node: NodeId | null, detail: string) => void;
  /** An obstacle is there, or is not any more. */
  readonly onObstacle: (obstacle: Obstacle, change: "raised" | "cleared") => void;
}

export class FailoverControl {
  private readonly options: FailoverControlOptions;
  private readonly commander: NodeCommander;
  private readonly driver: FailoverDriver;
  /** Null when this proxy does not promote by itself. */
  private readonly promoters: Promoters | null;
  private obstacles: readonly Obstacle[] = [];

  constructor(options: FailoverControlOptions) {
    this.options = options;
    const { clock, watcher, whenDrained, tell, username, password, members } = options;
    this.commander = createNodeCommander({
      ...{ username, password, timeoutMs: options.commandTimeoutMs },
      isSame: (one, other) => {
        const { aliases } = watcher.group();
        return (aliases.get(one) ?? one) === (aliases.get(other) ?? other);
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
      look: (nodes: readonly NodeId[]) => watcher.hint(nodes),
      run: this.commander.run.bind(this.commander),
      confirm: (nodes: readonly NodeId[], done: (standing: Standing) => void) => this.confirm(nodes, done),
      askSentinel: (done: (result: CommandResult) => void) => void options.askSentinel().then(done),
      tell,
      onAnswer: options.onAnswer,
      onObstacles: (obstacles: readonly Obstacle[]) => this.compare(obstacles),
    };
    this.driver = new FailoverDriver(options, parts, members);
    this.promoters = options.mode === "self" ? this.buildPromoters() : null;
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

  switchover(request: SwitchoverRequest): Promise<SwitchoverAnswer> {
    return this.driver.switchover(request);
  }

  plan(request: SwitchoverRequest): Planned {
    return this.driver.plan(request);
  }

  restartable(node: NodeId, timeoutMs: number): Promise<RestartableAnswer> {
    return this.driver.restartable(node, timeoutMs);
  }

  /** This proxy may replace a master that is gone, by what was last seen of other proxies. */
  get isPromoter(): boolean {
    return this.promoters?.standing().kind === "sole";
  }

  /** For people, a line each. */
  problems(): string[] {
    return this.obstacles.map(({ kind, node, detail }) => `${kind} ${node ?? ""}: ${detail}`);
  }

  private confirm(nodes: readonly NodeId[], done: (standing: Standing) => void): void {
    if (this.promoters !== null) return this.promoters.confirm(nodes, done);
    setImmediate(() => done({ kind: "refused", reason: "this proxy does not promote by itself" }));
  }

  private compare(now: readonly Obstacle[]): void {
    const before = this.obstacles;
    this.obstacles = now;
    const has = (list: readonly Obstacle[], one: Obstacle) =>
      list.some(({ kind, node }) => kind === one.kind && node === one.node);
    for (const one of now) if (!has(before, one)) this.options.onObstacle(one, "raised");
    for (const one of before) if (!has(now, one)) this.options.onObstacle(one, "cleared");
  }

  async close(): Promise<void> {
    this.destroy();
  }

  destroy(): void {
    this.driver.destroy();
    this.promoters?.destroy();
    this.commander.close();
  }
}
