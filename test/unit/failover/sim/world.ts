/** One seed: a group of nodes, proxies, clients, somebody who operates them, and what goes wrong. */
import type { GroupMemory } from "../../../../src/failover/memory/memory.ts";
import type { PromoteMode } from "../../../../src/failover/model.ts";
import { at } from "../../topology/nodes.ts";
import { Checks } from "./checks.ts";
import { Client } from "./client.ts";
import { delay, disturb, disturbSwitch, HEALED_AT_MS, scheduleFaults } from "./faults.ts";
import { type Faulty, SOUND } from "./faulty.ts";
import { Network } from "./network.ts";
import { type Group, ModelNode } from "./node.ts";
import { Operator } from "./operator.ts";
import { nodeNamed } from "./prober.ts";
import { ModelProxy } from "./proxy.ts";
import { Timeline } from "./timeline.ts";

export type Plot =
  /** Anything, several times. */
  | "mixed"
  /** The master crashes and does not come back for long; nothing else is wrong. */
  | "clean-crash"
  /** The master hangs; nothing else is wrong. */
  | "clean-hang"
  /** Planned switches; nothing else is wrong. */
  | "planned"
  /** Several proxies that may promote, which die and come again, and anything else, several times. */
  | "rivals"
  /** Proxies that come at one time while some nodes cannot be reached, just before the master is gone. */
  | "race"
  /** The one of two proxies that may promote is gone, and so is the master; nothing else is wrong. */
  | "takeover";

export const CRASH_GRACE_MS = 250;
export const DOWN_AFTER_MS = 1_000;
/** How long it may take until all is well after the last fault is over, ms. */
const LIVENESS_MS = 20_000;
/** Instead of HEALED_AT_MS: long enough for what takes longer than KEEP_MS. */
const LONG_MS = 22_000;
/** By how often: one proxy is what most people have, and several take longer. */
const PLOTS: readonly Plot[] = [
  ...Array.from({ length: 12 }, () => "mixed" as const),
  ...(["clean-crash", "clean-crash", "clean-hang", "clean-hang", "planned", "planned"] as const),
  ...(["rivals", "rivals", "race", "takeover"] as const),
];
const STEADY_MS = 400;

export interface Outcome {
  readonly seed: number;
  readonly mode: PromoteMode;
  readonly plot: Plot;
  readonly violations: readonly string[];
  readonly counts: ReadonlyMap<string, number>;
  readonly lines: readonly string[];
  readonly virtualMs: number;
  readonly events: number;
  /** Clean plots: how long there was no master, ms; Infinity = for ever. */
  readonly gapMs: number;
}

export class World {
  readonly seed: number;
  readonly time: Timeline;
  readonly network: Network;
  readonly nodes = new Map<string, ModelNode>();
  readonly members: readonly ModelNode[];
  readonly checks: Checks;
  /** Those that live. */
  readonly proxies: ModelProxy[] = [];
  readonly clients: Client[] = [];
  readonly mode: PromoteMode;
  readonly plot: Plot;
  readonly operator: Operator;
  /** Somebody did to the nodes what the proxy cannot put right: it waits for people then. */
  isMeddledWith = false;
  #replids = 0;

  /** Several proxies may promote. */
  readonly hasRivals: boolean;
  /** Nothing but what the plot says is wrong. */
  readonly isClean: boolean;
  /** When the last fault is over, ms. */
  readonly healedAtMs: number;
  readonly faulty: Faulty;
  #made = 0;

  constructor(seed: number, faulty: Faulty, plot: Plot | null = null) {
    this.seed = seed;
    this.time = new Timeline(seed);
    this.network = new Network(this.time);
    const { time } = this;
    this.faulty = faulty;
    this.plot = plot ?? time.pick(PLOTS);
    this.hasRivals = this.plot === "rivals" || this.plot === "race" || this.plot === "takeover";
    this.isClean = this.plot === "clean-crash" || this.plot === "clean-hang" || this.plot === "takeover";
    const isLong = this.plot === "takeover" || (this.plot === "rivals" && time.chance(0.1));
    this.healedAtMs = isLong ? LONG_MS : HEALED_AT_MS;
    this.mode = this.isClean || this.hasRivals ? "self" : time.pick(["self", "self", "never", "sentinel"]);
    this.members = this.#build();
    const names = new Set(this.members.map(({ name }) => name));
    this.checks = new Checks(time, this.nodes, names, new Set([this.mode]));
    this.operator = new Operator(this);
    this.checks.rivals.onGap = () => {
      this.isMeddledWith = true;
    };
    const count = this.plot === "takeover" ? 2 : time.chance(this.hasRivals ? 0.8 : 0.15) ? 2 : 1;
    for (let i = 0; i < (this.plot === "rivals" || this.plot === "race" ? count + 1 : count); i++)
      this.#add();
  }

  #add(memory: GroupMemory | null = null): ModelProxy {
    const proxy = this.#proxy(this.#made++, memory);
    this.proxies.push(proxy);
    for (let i = 0; i < (this.hasRivals ? 2 : 3); i++) this.clients.push(new Client(this, proxy));
    return proxy;
  }

  get truth(): ModelNode | undefined {
    return this.members.find((one) => one.isMaster && one.isWell) ?? this.members.find((one) => one.isMaster);
  }

  #build(): ModelNode[] {
    const { time, network, nodes } = this;
    const isNew = this.isClean || (this.plot !== "planned" && time.chance(0.8));
    const group: Group = {
      ...{ time, network, nodes, linkTimeoutMs: time.between(3_000, 12_000) },
      keepAliveMs: time.pick([1_000, 3_000]),
      marked: (node, by) => this.checks.rivals.marked(node, by),
      unmarked: (node, by, why) => {
        this.checks.note(`the marker of ${by.from.name} is gone from ${node}: ${why}`);
        this.checks.rivals.unmarked(node, by, why);
      },
      pingEveryMs: time.pick([1_000, 1_000, 10_000]),
      applyMs: time.pick([1, 1, 20, 150]),
      // Replicas of older servers take a second longer to show that their link is down for good.
      version: isNew ? "7.0.15" : time.pick(["7.0.15", "5.0.14"]),
      nextReplid: () => `H${++this.#replids}`,
      note: (text) => this.checks.note(text),
    };
    // With five, one that stands still and one that is gone leave a majority.
    const names = time.pick([
      ...(this.plot === "race" ? Array.from({ length: 4 }, () => ["a", "b", "c", "d", "e"]) : []),
      ["a", "b", "c"],
      ["a", "b", "c"],
      ["a", "b"],
      ["a", "b", "c", "d"],
    ]);
    const first = group.nextReplid();
    const members = names.map((name) => new ModelNode(name, group, first));
    for (const node of members) {
      nodes.set(node.name, node);
      if (node.name !== "a") node.master = node.configMaster = "a";
    }
    const last = members.at(-1);
    if (last !== undefined && members.length > 2 && time.chance(0.15)) last.priority = 0;
    // A master of another group, which is in the list by mistake.
    if (this.plot === "mixed" && time.chance(0.1))
      nodes.set("x", new ModelNode("x", group, group.nextReplid()));
    return members;
  }

  #proxy(index: number, memory: GroupMemory | null): ModelProxy {
    const { network, nodes, checks, faulty } = this;
    const seeds = [...nodes.keys()].map((name) => at(name));
    const patience = { crashGraceMs: CRASH_GRACE_MS, downAfterMs: DOWN_AFTER_MS };
    return new ModelProxy({
      ...{ network, nodes, seeds, patience, faulty, memory },
      name: `p${index}`,
      mode: index === 0 || this.hasRivals ? this.mode : "never",
      // More often than in life: more happens in a time.
      lookEveryMs: this.plot === "race" ? 300 : 2_000,
      clockOffMs: this.hasRivals ? this.time.between(-3_000, 3_000) : 0,
      witness: checks,
      askSentinel: () => this.operator.failover(),
    });
  }

  start(): void {
    for (const node of this.nodes.values()) node.start();
    for (const proxy of this.proxies) {
      this.time.after(this.#startDelayMs(), () => proxy.start());
    }
    for (const client of this.clients) client.start();
    this.operator.start();
    scheduleFaults(this);
    this.checks.onMoment = (proxy, node, what) => {
      // A question that is asked every few ms is no moment.
      if (what === "promote") delay(this, proxy, node);
      if (what !== "acknowledge") disturb(this, proxy, node, what === "accepted");
    };
    this.#askForSwitchovers();
    this.#sampleReaders();
  }

  #startDelayMs(): number {
    const { time } = this;
    if (this.plot === "rivals") return time.pick([0, 1, 30, 1_000]) * time.random();
    return this.plot === "race" ? time.pick([0, 5, 5, 300]) * time.random() : 0;
  }

  #askForSwitchovers(): void {
    const { time, proxies } = this;
    if (this.isClean || this.hasRivals) return;
    const times = this.plot === "planned" ? 3 : time.pick([0, 0, 1, 2]);
    const [proxy] = proxies;
    if (proxy === undefined) return;
    for (let i = 0; i < times; i++) {
      const ask = (): void => {
        const to = time.chance(0.5) ? null : time.pick(this.members).id;
        this.checks.note(`an operator asks ${proxy.name} for a switchover to ${to ?? "anybody"}`);
        proxy.switchover(to, time.pick([20, 100, 1_000, 5_000]));
        disturbSwitch(this);
      };
      time.at(time.between(1_500, HEALED_AT_MS), ask, proxy);
    }
  }

  /** Whenever a replica is fit for a while, somebody can be read, or half a second later. */
  #sampleReaders(): void {
    const { time } = this;
    const fitSince = new Map<string, number>();
    const unread = new Set<ModelProxy>();
    const look = (): void => {
      for (const proxy of this.proxies) {
        const isLongFit = this.members.map((node) => this.#isLongFit(proxy, node, fitSince)).includes(true);
        if (!isLongFit || proxy.epoch.readable.length > 0) unread.delete(proxy);
        // The proxy's connection to it may just be lost, which says nothing of the node.
        else if (unread.has(proxy)) this.checks.violation("a fit replica is not read");
        else unread.add(proxy);
      }
      time.after(500, look);
    };
    time.after(500, look);
  }

  #isLongFit(proxy: ModelProxy, node: ModelNode, since: Map<string, number>): boolean {
    // Much may happen between two looks: another switch, and another role or link of the node.
    const { number, history } = proxy.epoch;
    const key = `${proxy.name} ${number} ${history?.replid} ${node.name} ${node.life} ${node.linkNumber}`;
    const { master } = proxy.epoch;
    const believed = master === null ? undefined : nodeNamed(this.nodes, master);
    const isFit =
      node.isWell &&
      node.link === "up" &&
      node.master === believed?.name &&
      believed.isWell &&
      node.replid === proxy.epoch.history?.replid &&
      !this.network.isCut(proxy.name, node.name) &&
      proxy.stalledUntilMs < this.time.nowMs - 3_000;
    if (!isFit) since.delete(key);
    else if (!since.has(key)) since.set(key, this.time.nowMs);
    return isFit && this.time.nowMs - (since.get(key) ?? 0) > 3_000;
  }

  /** From now on it is measured how long it takes until another master may be written. */
  watchGap(proxy = this.proxies[0]): void {
    if (proxy !== undefined) this.checks.watchGap(proxy);
  }

  /** A proxy is gone; another one may come in its place. */
  lose(proxy: ModelProxy, what: "process" | "machine", isReplacedInMs: number | null): void {
    this.checks.note(`the ${what} of ${proxy.name} is gone`);
    this.checks.count(`gone: ${what}`);
    proxy.die(what);
    this.proxies.splice(this.proxies.indexOf(proxy), 1);
    if (isReplacedInMs === null) return;
    const memory = this.time.chance(0.7) ? proxy.memory() : null;
    this.time.after(isReplacedInMs, () => {
      const next = this.#add(memory);
      this.checks.note(`${next.name} comes in its place${memory === null ? " and remembers nothing" : ""}`);
      next.start();
      for (const client of this.clients.slice(-2)) client.start();
    });
  }

  /** All is as it should be in the end. */
  isWell(): boolean {
    const { truth } = this;
    if (truth === undefined || this.members.filter((one) => one.isMaster).length !== 1) return false;
    const followers = this.members.filter((one) => one !== truth);
    if (!followers.every((one) => one.isWell && one.link === "up" && one.replid === truth.replid))
      return false;
    // Exactly one of them may promote.
    if (this.mode === "self" && this.proxies.filter(({ isSole }) => isSole).length !== 1) return false;
    return this.proxies.every(
      (proxy) =>
        proxy.epoch.master === truth.id && proxy.router.writable && !proxy.isHolding && proxy.asked === 0,
    );
  }

  /** A cause that the proxy is right to wait with: a person has to decide. */
  isForPeople(): boolean {
    // A stranger among the configured nodes never follows anybody: no unanimity.
    if (this.isMeddledWith || this.nodes.size > this.members.length) return true;
    if (this.#hasUnknownMaster() || this.#hasMissedMaster()) return true;
    return this.proxies.some(({ epoch }) => {
      if (epoch.holdCause === "no-common-truth" || epoch.holdCause === "history-refused") return true;
      const replid = epoch.history?.replid;
      return !this.members.some((node) => node.replid === replid || node.replid2 === replid);
    });
  }

  /** One that belonged to the group only before the proxy came that may promote: it does not touch it. */
  #hasUnknownMaster(): boolean {
    const sole = this.proxies.filter(({ isSole }) => isSole);
    return sole.some(({ driver }) => this.members.some((one) => one.isMaster && !driver.members.has(one.id)));
  }

  /**
   * Of the history that the one who may promote believes in, nothing is left but what another master has
   * written on, one that came and went between two looks: it never met that one, and promotes nothing of it.
   */
  #hasMissedMaster(): boolean {
    return this.proxies.some(({ isSole, epoch }) => {
      const replid = epoch.history?.replid;
      const isGone = this.members.every((node) => node.replid !== replid);
      return isSole && isGone && !this.members.some((one) => one.isMaster && one.replid2 === replid);
    });
  }

  /** Puts right what was broken; the operator does the rest where the proxy may not. */
  heal(): void {
    const { network } = this;
    this.checks.note("everything is healed");
    network.leastMs = 0.1;
    network.mostMs = 1;
    for (const [a, b] of network.cuts) network.heal(a, b);
    for (const node of this.members) {
      node.wake();
      if (!node.isRunning) node.restart("data");
    }
  }

  async run(): Promise<Outcome> {
    const { time, checks } = this;
    this.start();
    // Nothing more is to happen once somebody has taken over.
    const isOver = (): boolean =>
      this.plot === "takeover" && checks.gapMs > 0 && checks.gapMs < this.healedAtMs;
    await this.#runUntil(this.healedAtMs, isOver);
    this.heal();
    let wellSinceMs = Number.NaN;
    const isSteady = (): boolean => {
      if (!this.isWell()) wellSinceMs = Number.NaN;
      else if (Number.isNaN(wellSinceMs)) wellSinceMs = time.nowMs;
      return time.nowMs - wellSinceMs > STEADY_MS;
    };
    const isDone = await this.#runUntil(this.healedAtMs + LIVENESS_MS, isSteady);
    if (!isDone) this.#notLive();
    else checks.count("well in the end");
    checks.atTheEnd(this.proxies, isDone);
    const { seed, mode, plot } = this;
    const { violations, counts, lines, gapMs } = checks;
    return { seed, mode, plot, violations, counts, lines, gapMs, virtualMs: time.nowMs, events: time.events };
  }

  #notLive(): void {
    const states = this.proxies.map(({ name, epoch, isSole }) => {
      return `${name}: ${isSole ? "sole " : ""}${epoch.master} ${epoch.holdCause}`;
    });
    const nodes = this.members.map((one) => {
      return `${one.name}${one.isWell ? "" : "!"} of ${one.master ?? "-"} ${one.replid} ${one.link}`;
    });
    const text = `not well again: ${states.join(", ")}; ${nodes.join(", ")}`;
    if (this.isForPeople()) {
      this.checks.note(text);
      this.checks.count("left to people");
    } else this.checks.violation(text);
  }

  async #runUntil(untilMs: number, isDone: () => boolean): Promise<boolean> {
    const { time, proxies } = this;
    let nextLookMs = 0;
    while (time.step(untilMs)) {
      // Answers of planned switches come by promises.
      if (proxies.some(({ asked }) => asked > 0)) await Promise.resolve();
      if (time.isStirred) await settled(time);
      if (time.nowMs < nextLookMs) continue;
      if (isDone()) return true;
      nextLookMs = time.nowMs + 50;
    }
    return isDone();
  }
}

/** What is begun by that, in a turn of its own, too (a confirmation). */
async function settled(time: Timeline): Promise<void> {
  time.isStirred = false;
  for (let i = 0; i < 2; i++) await new Promise((resolve) => setImmediate(resolve));
}

export function play(seed: number, faulty: Faulty = SOUND, plot: Plot | null = null): Promise<Outcome> {
  return new World(seed, faulty, plot).run();
}
