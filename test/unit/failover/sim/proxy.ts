/** A proxy of a world: the real watcher and the real failover driver over model nodes and a model router. */

import { FailoverDriver } from "../../../../src/failover/driver.ts";
import { beliefOf, type GroupMemory, memoryOf } from "../../../../src/failover/memory/memory.ts";
import type { NodeCommand, PromoteMode, Standing, SwitchoverAnswer } from "../../../../src/failover/model.ts";
import { markerId } from "../../../../src/failover/right/lease.ts";
import { Promoters } from "../../../../src/failover/right/promoters.ts";
import type { Settings } from "../../../../src/failover/state.ts";
import type { Epoch, NodeId } from "../../../../src/topology/epoch.ts";
import { type SwitchFacts, Watcher } from "../../../../src/topology/watcher.ts";
import { COMMAND_TIMEOUT_MS, runCommand } from "./commander.ts";
import type { Faulty } from "./faulty.ts";
import { ModelLine } from "./line.ts";
import type { Network } from "./network.ts";
import type { ModelNode } from "./node.ts";
import { ModelProbe, nodeNamed, PROBE_TIMEOUT_MS } from "./prober.ts";
import { ModelRouter, type Write } from "./router.ts";
import type { Party, Timeline } from "./timeline.ts";

export const INTERVAL_MS = 100;
const PROOF_INTERVAL_MS = 20;

/** A planned switch: when it was asked for, and who was the master then. */
export interface Asked {
  readonly atMs: number;
  readonly from: NodeId | null;
}

/** What is told to those who check. */
export interface Witness {
  note(text: string): void;
  count(what: string): void;
  violation(text: string): void;
  epoch(proxy: ModelProxy, before: Epoch, epoch: Epoch, keptUntilMs: number | null): void;
  changed(proxy: ModelProxy, facts: SwitchFacts): void;
  sent(proxy: ModelProxy, write: Write, node: NodeId, epoch: number): void;
  acked(proxy: ModelProxy, write: Write): void;
  command(proxy: ModelProxy, node: NodeId, command: NodeCommand): void;
  /** A node carries out what it was asked for at `issuedAtMs`. */
  performed(proxy: ModelProxy, node: ModelNode, command: NodeCommand, issuedAtMs: number): void;
  answered(proxy: ModelProxy, asked: Asked, answer: SwitchoverAnswer): void;
  /** What stood on a node at `servedAtMs` is known now. */
  lookedFor(proxy: ModelProxy, node: ModelNode, channels: readonly string[], servedAtMs: number): void;
  /** It asks anew whether it may promote; and what came of that. */
  asksForRight(proxy: ModelProxy): void;
  gotRight(proxy: ModelProxy, standing: Standing): void;
}

export interface ProxyOptions {
  readonly name: string;
  readonly mode: PromoteMode;
  readonly patience: Pick<Settings, "crashGraceMs" | "downAfterMs">;
  readonly seeds: readonly NodeId[];
  readonly nodes: ReadonlyMap<string, ModelNode>;
  readonly network: Network;
  readonly witness: Witness;
  readonly faulty: Faulty;
  /** SENTINEL FAILOVER. */
  readonly askSentinel: () => boolean;
  /** How far its wall clock is off, ms. */
  readonly clockOffMs: number;
  /** Between two looks for other proxies, ms. */
  readonly lookEveryMs: number;
  /** What a former process has written to the state file. */
  readonly memory?: GroupMemory | null;
}

export class ModelProxy implements Party {
  readonly name: string;
  readonly mode: PromoteMode;
  stalledUntilMs = 0;
  isHolding = false;
  /** Planned switches that wait for their answer, and the monotonic ms of the last one that was asked for. */
  asked = 0;
  lastAskedMs = Number.NEGATIVE_INFINITY;
  readonly watcher: Watcher;
  readonly driver: FailoverDriver;
  /** Null when it does not promote by itself. */
  readonly promoters: Promoters | null;
  readonly markerId: string;
  isDead = false;
  readonly router: ModelRouter;
  readonly options: ProxyOptions;
  readonly #time: Timeline;
  readonly #lines = new Set<ModelLine>();
  #obstacles = "";

  constructor(options: ProxyOptions) {
    const { network, nodes, witness, faulty } = options;
    const { time } = network;
    this.options = options;
    this.name = options.name;
    this.mode = options.mode;
    this.#time = time;
    this.router = new ModelRouter(
      network,
      this,
      nodes,
      {
        evidence: (evidence) => this.watcher.evidence(evidence),
        sent: (write, node, epoch) => witness.sent(this, write, node, epoch),
        acked: (write) => witness.acked(this, write),
        fault: (text) => witness.violation(text),
      },
      faulty,
    );
    this.watcher = this.#buildWatcher();
    this.driver = this.#buildDriver();
    this.markerId = markerId(this.clock.wallMs(), options.name);
    this.promoters = options.mode === "self" ? this.#buildPromoters() : null;
  }

  get clock() {
    const { clockOffMs } = this.options;
    return { nowMs: () => this.#time.nowMs, wallMs: () => 1e12 + this.#time.nowMs + clockOffMs };
  }

  get isSole(): boolean {
    return this.promoters?.standing().kind === "sole";
  }

  get epoch(): Epoch {
    return this.router.epoch;
  }

  #setTimer = (run: () => void, delayMs: number): (() => void) => this.#time.after(delayMs, run, this);

  #buildWatcher(): Watcher {
    const { witness, network, nodes, seeds, memory } = this.options;
    const changed = (facts: SwitchFacts): void => {
      witness.changed(this, facts);
    };
    return new Watcher(
      {
        ...{ seeds, intervalMs: INTERVAL_MS, timeoutMs: PROBE_TIMEOUT_MS, maxLagMs: 10_000 },
        proofIntervalMs: PROOF_INTERVAL_MS,
        belief: memory ? beliefOf(memory) : undefined,
      },
      {
        onEpoch: (epoch, keptUntilMs) => {
          const before = this.router.epoch;
          witness.epoch(this, before, epoch, keptUntilMs);
          this.router.setEpoch(epoch);
        },
        onSwitch: (facts) => {
          if (facts.from !== null) this.driver.switched(facts.lostBytes);
          changed(facts);
        },
        onReturn: changed,
        onProblem: ({ kind, node }, change) => {
          if (change === "raised") witness.count(`problem ${kind}`);
          witness.note(`${this.name}: ${change} ${kind} ${node ?? ""}`);
        },
        onFacts: () => undefined,
        onLooked: () => {
          this.promoters?.setNodes(this.watcher.group().nodes.map(({ id }) => id));
          this.driver.looked();
        },
      },
      {
        clock: this.clock,
        createProbe: (node, events) => new ModelProbe(network, this, nodeNamed(nodes, node), events),
        random: this.#time.random,
        setTimer: this.#setTimer,
      },
    );
  }

  #buildDriver(): FailoverDriver {
    const { witness, network, nodes, faulty, patience, memory } = this.options;
    return new FailoverDriver(
      { mode: this.mode, ...patience },
      {
        clock: this.clock,
        setTimer: this.#setTimer,
        group: () => this.watcher.group(),
        hold: () => this.#hold(),
        release: () => this.#release(),
        whenDrained: (done) => this.router.whenDrained(done),
        renounce: (node) => this.watcher.renounce(node),
        look: (list) => this.watcher.hint(list),
        run: (node, command, done) => {
          witness.command(this, node, command);
          if (faulty.releasesEarly && command.kind !== "acknowledge") this.watcher.release();
          const issuedAtMs = this.#time.nowMs;
          const performed = (at: ModelNode): void => witness.performed(this, at, command, issuedAtMs);
          runCommand(network, this, nodeNamed(nodes, node), command, performed, (result) => {
            witness.note(`${this.name}: ${command.kind} on ${node} ended: ${result.kind}`);
            witness.count(`result ${result.kind}`);
            done(result);
          });
        },
        confirm: (list, done) => this.#confirm(list, done),
        askSentinel: (done) => {
          const isTaken = this.options.askSentinel();
          this.#time.after(
            2,
            () => done(isTaken ? { kind: "done" } : { kind: "refused", error: "-NOGOODSLAVE" }),
            this,
          );
        },
        tell: (what, node, detail) => {
          witness.count(`told ${what}`);
          witness.note(`${this.name}: ${what} ${node ?? ""} ${detail}`);
        },
        onObstacles: (list) => {
          const kinds = list.map(({ kind }) => kind).join();
          if (kinds === this.#obstacles) return;
          this.#obstacles = kinds;
          for (const { kind, detail } of list) {
            witness.count(`obstacle ${kind}`);
            witness.note(`${this.name}: obstacle ${kind}: ${detail}`);
          }
        },
      },
      memory?.members,
    );
  }

  /** What its state file says. */
  memory(): GroupMemory | null {
    const { watcher, options } = this;
    return memoryOf(watcher.belief(), watcher.views(), options.seeds, this.clock.wallMs());
  }

  #buildPromoters(): Promoters {
    const { network, nodes, witness, lookEveryMs } = this.options;
    return new Promoters(
      { timeoutMs: COMMAND_TIMEOUT_MS, id: this.markerId, label: this.name, lookEveryMs },
      {
        onStanding: (standing) => {
          witness.note(`${this.name}: ${standing.kind === "sole" ? "sole" : `not sole: ${standing.reason}`}`);
          this.driver.standing(standing);
        },
      },
      {
        ...{ clock: this.clock, setTimer: this.#setTimer, random: this.#time.random },
        createLine: (id, onEnd) => {
          const node = nodeNamed(nodes, id);
          const line: ModelLine = new ModelLine(network, this, node, {
            onEnd: () => {
              this.#lines.delete(line);
              onEnd();
            },
            onChannels: (channels, servedAtMs) => {
              if (node !== undefined) witness.lookedFor(this, node, channels, servedAtMs);
            },
          });
          this.#lines.add(line);
          return line;
        },
      },
    );
  }

  #confirm(nodes: readonly NodeId[], done: (standing: Standing) => void): void {
    const { witness, faulty } = this.options;
    const { promoters } = this;
    const tell = (standing: Standing): void => {
      witness.gotRight(this, standing);
      done(standing);
    };
    this.#time.isStirred = true;
    witness.asksForRight(this);
    if (promoters !== null && !faulty.looksOnce) return promoters.confirm(nodes, tell);
    const standing: Standing = promoters?.standing() ?? { kind: "refused", reason: "it does not promote" };
    this.#time.after(1, () => tell(standing), this);
  }

  #hold(): void {
    const { witness, faulty } = this.options;
    if (this.isHolding) witness.violation(`${this.name} holds what it holds already`);
    this.isHolding = true;
    if (!faulty.neverHolds) this.watcher.hold();
  }

  #release(): void {
    const { witness, faulty } = this.options;
    if (!this.isHolding) witness.violation(`${this.name} releases what it does not hold`);
    this.isHolding = false;
    if (!faulty.forgetsRelease) this.watcher.release();
  }

  start(): void {
    this.watcher.start();
    this.promoters?.start();
    this.#time.isStirred = true;
    this.watcher.hint(this.options.memory?.members ?? []);
  }

  /** Its connections are closed where only its process ends; where its machine dies nobody hears of it. */
  die(what: "process" | "machine"): void {
    this.isDead = true;
    this.stalledUntilMs = Number.POSITIVE_INFINITY;
    if (what === "machine") return this.options.network.machineDies(this.name);
    for (const line of this.#lines) line.die();
  }

  switchover(to: NodeId | null, timeoutMs: number): void {
    // While another one is under way this one is refused.
    const asked: Asked = { atMs: this.#time.nowMs, from: this.epoch.master };
    if (this.asked++ === 0) this.lastAskedMs = asked.atMs;
    void this.driver.switchover({ to, timeoutMs }).then((answer) => {
      this.asked--;
      this.options.witness.answered(this, asked, answer);
    });
  }
}
