/**
 * A Redis server as far as replication goes: roles, histories, offsets, links, FAILOVER, CLIENT PAUSE, deaths
 * and restarts. What it does follows replication.c and the facts that the rules of the proxy rest on.
 */
import type { NodeId } from "../../../../src/topology/epoch.ts";
import type { FailoverState, NodeReport } from "../../../../src/topology/report.ts";
import { at } from "../../topology/nodes.ts";
import type { Connection, Network } from "./network.ts";
import type { Timeline } from "./timeline.ts";

/** A stretch of the replication stream; `write` 0 = a PING. */
interface Entry {
  readonly end: number;
  readonly write: number;
}

export type WriteReply = "ok" | "READONLY" | "LOADING";
export type Reply = "ok" | { readonly error: string };
/** How a marker came to be gone from a node. */
export type Unmarking = "taken away" | "restarted" | "keep-alive" | "broken";
export type RestartKind = "data" | "empty" | "rolled-back";

/** What all nodes of a world share. */
export interface Group {
  readonly time: Timeline;
  readonly network: Network;
  readonly nodes: ReadonlyMap<string, ModelNode>;
  readonly pingEveryMs: number;
  readonly applyMs: number;
  /** A link that brings nothing for so long is given up, ms. */
  readonly linkTimeoutMs: number;
  /** A client that is silent for so long is given up, ms (tcp-keepalive; much shorter than in life). */
  readonly keepAliveMs: number;
  /** Whether servers know FAILOVER. */
  readonly version: string;
  nextReplid(): string;
  /** A marker stands on a node from now on; or does not any more, and why. */
  marked(node: string, by: Connection): void;
  unmarked(node: string, by: Connection, why: Unmarking): void;
  note(text: string): void;
}

const WRITE_BYTES = 37;
const PING_BYTES = 14;

interface Handover {
  readonly to: string;
  readonly state: FailoverState;
}

export class ModelNode {
  readonly name: string;
  readonly id: NodeId;
  readonly group: Group;
  readonly connections = new Set<Connection>();
  /** Connections that are subscribed, with their channel. */
  readonly markers = new Map<Connection, string>();
  isRunning = true;
  isHung = false;
  isLoading = false;
  life = 0;
  master: string | null = null;
  replid: string;
  replid2: string | null = null;
  second = -1;
  priority = 100;
  /** What the data set contains, in order, and up to which byte. */
  log: Entry[] = [];
  applied = 0;
  received = 0;
  link: "down" | "syncing" | "up" = "down";
  lastIoMs = 0;
  handover: Handover | null = null;
  /** Of the role that its configuration file has. */
  configMaster: string | null = null;
  /** What a restart from an old file would bring. */
  saved: { readonly log: readonly Entry[]; readonly applied: number; readonly replid: string };
  pausedUntilMs = 0;
  readonly acks = new Map<string, number>();
  #pending: Entry[] = [];
  #inbox: (() => void)[] = [];
  #postponed: (() => void)[] = [];
  /** Changes with every link, so that what belongs to an older one changes nothing. */
  #linkNumber = 0;
  #tries = 0;

  constructor(name: string, group: Group, replid: string) {
    this.name = name;
    this.id = at(name);
    this.group = group;
    this.replid = replid;
    this.saved = { log: [], applied: 0, replid };
  }

  get isWell(): boolean {
    return this.isRunning && !this.isHung && !this.isLoading;
  }

  get isMaster(): boolean {
    return this.master === null;
  }

  /** Another one for each link that it has had to a master, and for each that it has lost. */
  get linkNumber(): number {
    return this.#linkNumber;
  }

  start(): void {
    const { time } = this.group;
    const every = (ms: number, run: () => void): void => {
      const tick = (): void => {
        if (this.isRunning && !this.isHung) run();
        time.after(ms, tick);
      };
      time.after(time.between(0, ms), tick);
    };
    every(this.group.pingEveryMs, () => this.#ping());
    every(1_000, () => this.#cron());
    if (this.master !== null) this.tryLinkSoon(1);
  }

  // Time and death

  whenAwake(run: () => void): void {
    if (this.isHung) this.#inbox.push(run);
    else run();
  }

  crash(): void {
    this.isRunning = false;
    this.isHung = false;
    this.isLoading = false;
    this.#inbox = [];
    this.#postponed = [];
    this.#pending = [];
    this.#linkNumber++;
    this.link = "down";
    this.handover = null;
    this.pausedUntilMs = 0;
    for (const connection of this.markers.keys()) this.unmark(connection, "restarted");
    for (const connection of [...this.connections]) connection.serverGone();
    this.connections.clear();
    this.#dropReplicas();
  }

  // Markers

  subscribe(connection: Connection, channel: string): void {
    if (connection.isForgotten) return;
    this.markers.set(connection, channel);
    this.group.marked(this.name, connection);
  }

  /** PUBSUB CHANNELS. */
  channels(): string[] {
    return [...new Set(this.markers.values())];
  }

  unmark(connection: Connection, why: Unmarking): void {
    if (this.markers.delete(connection)) this.group.unmarked(this.name, connection, why);
  }

  /** TCP keep-alive: whoever does not answer for long is given up, and cannot be told. */
  #keepAlive(): void {
    const { time, network, keepAliveMs } = this.group;
    for (const connection of this.markers.keys()) {
      const { halfOpenSinceMs, from } = connection;
      const sinceMs = halfOpenSinceMs ?? network.silentSinceMs(from.name, this.name);
      if (sinceMs === null || time.nowMs - sinceMs < keepAliveMs) continue;
      connection.isForgotten = true;
      this.connections.delete(connection);
      this.unmark(connection, "keep-alive");
    }
  }

  hang(): void {
    this.isHung = true;
  }

  wake(): void {
    if (!this.isHung) return;
    this.isHung = false;
    const inbox = this.#inbox;
    this.#inbox = [];
    for (const run of inbox) run();
  }

  save(): void {
    this.saved = { log: [...this.log], applied: this.applied, replid: this.replid };
  }

  restart(kind: RestartKind): void {
    const { time } = this.group;
    this.life++;
    this.isRunning = true;
    this.acks.clear();
    this.replid2 = null;
    this.second = -1;
    const { log, applied, replid } = kind === "rolled-back" ? this.saved : this;
    this.log = kind === "empty" ? [] : [...log];
    this.applied = kind === "empty" ? 0 : applied;
    this.master = this.configMaster;
    if (kind === "empty") this.replid = this.group.nextReplid();
    else if (this.master === null) {
      this.replid2 = replid;
      this.second = this.applied + 1;
      this.replid = this.group.nextReplid();
    } else this.replid = replid;
    this.received = this.applied;
    this.isLoading = true;
    const { life } = this;
    time.after(time.between(1, 300), () => {
      if (this.life === life) this.isLoading = false;
      this.tryLinkSoon(1);
    });
  }

  // Replication: the master's side

  #ping(): void {
    if (this.master === null && !this.isPaused() && this.#replicas().length > 0 && !this.isLoading) {
      this.#append(0, PING_BYTES);
    }
  }

  #append(write: number, bytes: number): void {
    this.applied += bytes;
    this.received = this.applied;
    this.log.push({ end: this.applied, write });
    this.feed();
  }

  #replicas(): ModelNode[] {
    return [...this.group.nodes.values()].filter((one) => one.master === this.name && one.link === "up");
  }

  feed(): void {
    for (const replica of this.#replicas()) replica.streamFrom(this);
  }

  #dropReplicas(): void {
    for (const node of this.group.nodes.values()) if (node.master === this.name) node.linkLost();
    this.acks.clear();
  }

  // Replication: the replica's side

  /** What the master has now arrives a little later, also when the master has restarted meanwhile. */
  streamFrom(master: ModelNode): void {
    const { time, network } = this.group;
    const number = this.#linkNumber;
    const { applied: upTo, log } = master;
    time.after(network.delayMs(), () =>
      network.pass(master.name, this.name, () =>
        this.whenAwake(() => {
          if (number === this.#linkNumber && this.link === "up") this.#receive(log, upTo);
        }),
      ),
    );
  }

  #receive(log: readonly Entry[], upTo: number): void {
    const { time } = this.group;
    this.lastIoMs = time.nowMs;
    if (upTo <= this.received) return;
    for (let i = firstAfter(log, this.received); i < log.length; i++) {
      const entry = log[i]!;
      if (entry.end > upTo) break;
      this.#pending.push(entry);
    }
    this.received = upTo;
    const number = this.#linkNumber;
    time.after(time.between(0, this.group.applyMs), () =>
      this.whenAwake(() => {
        if (number === this.#linkNumber) this.#apply(upTo);
      }),
    );
  }

  #apply(upTo: number): void {
    if (upTo <= this.applied) return;
    while (this.#pending[0] !== undefined && this.#pending[0].end <= upTo)
      this.log.push(this.#pending.shift()!);
    this.applied = upTo;
    this.feed();
  }

  linkLost(): void {
    const { time, network } = this.group;
    const number = this.#linkNumber;
    if (this.link === "down") return;
    time.after(network.delayMs(), () =>
      this.whenAwake(() => {
        if (number !== this.#linkNumber) return;
        this.#dropLink();
        this.tryLinkSoon(time.between(1, 1_000));
      }),
    );
  }

  /** What was received and not applied yet is applied at once: the bytes are there. */
  /** CLIENT KILL TYPE master: the link is made anew at once, where the master can be reached. */
  relink(): void {
    if (this.master === null || this.link === "down") return;
    this.#dropLink();
    this.tryLinkSoon(1);
  }

  #dropLink(): void {
    if (this.link === "up") this.#apply(this.received);
    this.#linkNumber++;
    this.#pending = [];
    this.received = this.applied;
    this.link = "down";
  }

  tryLinkSoon(delayMs: number): void {
    const tries = ++this.#tries;
    this.group.time.after(delayMs, () => {
      if (tries !== this.#tries || !this.isRunning || this.master === null || this.link !== "down") return;
      if (this.isHung || this.isLoading || !this.#tryLink(this.master)) this.tryLinkSoon(1_000);
    });
  }

  #tryLink(name: string): boolean {
    const { network, nodes } = this.group;
    const master = nodes.get(name);
    if (master === undefined || !master.isWell || network.isCut(name, this.name)) return false;
    if (master.master !== null && master.link !== "up") return false;
    if (master.master === this.name || master === this) return false;
    this.#linkNumber++;
    const own = this.replid === master.replid && this.applied <= master.applied;
    const fork = this.replid === master.replid2 && this.applied < master.second;
    if (own || fork) this.#continueWith(master);
    else this.#copy(master);
    return true;
  }

  /** +CONTINUE: a partial resynchronisation. */
  #continueWith(master: ModelNode): void {
    if (this.replid !== master.replid) {
      this.replid2 = this.replid;
      this.second = this.applied + 1;
      this.replid = master.replid;
      this.#dropReplicas();
    }
    this.link = "up";
    this.lastIoMs = this.group.time.nowMs;
    this.streamFrom(master);
  }

  /** +FULLRESYNC: everything anew, which takes a while. */
  #copy(master: ModelNode): void {
    const { time, network } = this.group;
    const number = this.#linkNumber;
    this.link = "syncing";
    const { life } = master;
    time.after(time.between(20, 400), () => {
      if (number !== this.#linkNumber || !this.isRunning || this.master !== master.name) return;
      if (!master.isRunning || master.life !== life || network.isCut(master.name, this.name) || this.isHung) {
        this.#dropLink();
        return this.tryLinkSoon(1_000);
      }
      this.log = [...master.log];
      this.applied = master.applied;
      this.received = master.applied;
      this.replid = master.replid;
      this.replid2 = null;
      this.second = -1;
      this.link = "up";
      this.lastIoMs = time.nowMs;
      this.#dropReplicas();
      this.streamFrom(master);
    });
  }

  /** Once per second: the replica's word to its master, links that are silent, FAILOVER's own look. */
  #cron(): void {
    const { time, linkTimeoutMs } = this.group;
    this.#keepAlive();
    if (this.master !== null && this.link === "up") {
      this.acknowledge();
      if (time.nowMs - this.lastIoMs > linkTimeoutMs) {
        this.#dropLink();
        this.tryLinkSoon(1);
      }
    }
  }

  /** Tells its master what it has applied. */
  acknowledge(): void {
    const { time, network, nodes } = this.group;
    const master = this.master === null ? undefined : nodes.get(this.master);
    if (master === undefined || this.link !== "up") return;
    const { applied } = this;
    const number = this.#linkNumber;
    time.after(network.delayMs(), () =>
      network.pass(this.name, master.name, () =>
        master.whenAwake(() => {
          if (number !== this.#linkNumber || !master.isRunning) return;
          master.acks.set(this.name, applied);
          master.handOverIfEqual();
        }),
      ),
    );
  }

  // What can be asked of it

  isPaused(): boolean {
    return this.handover !== null || this.group.time.nowMs < this.pausedUntilMs;
  }

  write(write: number, answer: (reply: WriteReply) => void): void {
    if (this.isLoading) return answer("LOADING");
    if (this.isPaused()) {
      const { life } = this;
      this.#postponed.push(() => {
        if (this.life === life && this.isRunning) this.write(write, answer);
      });
      return;
    }
    if (this.master !== null) return answer("READONLY");
    this.#append(write, WRITE_BYTES);
    answer("ok");
  }

  #resume(): void {
    if (this.isPaused()) return;
    const postponed = this.#postponed;
    this.#postponed = [];
    for (const run of postponed) this.whenAwake(run);
  }

  has(write: number): boolean {
    for (let i = this.log.length - 1; i >= 0; i--) if (this.log[i]!.write === write) return true;
    return false;
  }

  pause(forMs: number): Reply {
    this.pausedUntilMs = Math.max(this.pausedUntilMs, this.group.time.nowMs + forMs);
    this.group.time.at(this.pausedUntilMs, () => this.#resume());
    return "ok";
  }

  unpause(): Reply {
    this.pausedUntilMs = 0;
    this.#resume();
    return "ok";
  }

  promote(): Reply {
    if (this.handover !== null) return { error: "ERR REPLICAOF not allowed while failing over." };
    if (this.master === null) return "ok";
    this.#becomeMaster();
    return "ok";
  }

  #becomeMaster(): void {
    this.#linkNumber++;
    this.#pending = [];
    this.received = this.applied;
    this.link = "down";
    this.master = null;
    this.replid2 = this.replid;
    this.second = this.applied + 1;
    this.replid = this.group.nextReplid();
    this.group.note(`${this.name} is a master now, ${this.replid2} up to ${this.applied}`);
    this.#dropReplicas();
  }

  follow(name: string): Reply {
    if (this.handover !== null) return { error: "ERR REPLICAOF not allowed while failing over." };
    if (this.master === name) return "ok";
    this.#dropLink();
    this.master = name;
    this.group.note(`${this.name} is told to follow ${name}`);
    this.tryLinkSoon(1);
    this.#resume();
    return "ok";
  }

  rewriteConfig(): Reply {
    this.configMaster = this.master;
    return "ok";
  }

  failover(to: string, timeoutMs: number): Reply {
    const { time, nodes } = this.group;
    if (this.master !== null) return { error: "ERR FAILOVER requires to be a master." };
    if (this.handover !== null) return { error: "ERR FAILOVER already in progress." };
    const target = nodes.get(to);
    if (target?.master !== this.name || target.link !== "up") {
      return { error: "ERR FAILOVER target HOST and PORT is not a replica." };
    }
    const handover: Handover = { to, state: "waiting-for-sync" };
    this.handover = handover;
    time.after(timeoutMs, () => {
      if (this.handover === handover) this.#endHandover("timed out");
    });
    time.after(0, () => this.handOverIfEqual());
    return "ok";
  }

  abortFailover(): Reply {
    if (this.handover?.state === "failover-in-progress") this.master = null;
    if (this.handover !== null) this.#endHandover("aborted");
    return "ok";
  }

  #endHandover(why: string): void {
    this.group.note(`FAILOVER on ${this.name}: ${why}`);
    this.handover = null;
    this.#resume();
  }

  /** Demotes itself first, then asks the replica to take over. */
  handOverIfEqual(): void {
    const { handover } = this;
    if (handover?.state !== "waiting-for-sync" || this.isHung) return;
    if (this.acks.get(handover.to) !== this.applied) return;
    const asked: Handover = { to: handover.to, state: "failover-in-progress" };
    this.handover = asked;
    this.master = handover.to;
    this.link = "down";
    this.#askToTakeOver(asked);
  }

  #askToTakeOver(asked: Handover): void {
    const { time, network, nodes } = this.group;
    const target = nodes.get(asked.to);
    const later = (run: () => void): void => {
      time.after(network.delayMs(), () => network.pass(this.name, asked.to, run));
    };
    const retry = (): void => {
      time.after(1_000, () => {
        if (this.handover === asked && this.isRunning) this.#askToTakeOver(asked);
      });
    };
    later(() => {
      if (target === undefined || !target.isRunning) return retry();
      target.whenAwake(() => {
        if (target.isLoading) return retry();
        const isTaken = target.replid === this.replid && target.master !== null && target.handover === null;
        if (isTaken) target.promote();
        later(() => this.whenAwake(() => this.#answered(asked, isTaken)));
      });
    });
  }

  #answered(asked: Handover, isTaken: boolean): void {
    if (this.handover !== asked || !this.isRunning) return;
    if (!isTaken) this.master = null;
    else this.tryLinkSoon(0);
    this.#endHandover(isTaken ? "done" : "refused by the replica");
  }

  // What it says of itself

  report(sentAtMs: number): NodeReport {
    const { time, version, nodes } = this.group;
    const isReplica = this.master !== null;
    const replicas = [...nodes.values()].filter((one) => one.master === this.name && one.link === "up");
    return {
      node: this.id,
      sentAtMs,
      receivedAtMs: sentAtMs,
      runId: `${this.name}-${this.life}`,
      version,
      aof: false,
      shutdownInMs: null,
      loading: this.isLoading,
      keys: this.log.length,
      role: isReplica ? "replica" : "master",
      replid: this.replid,
      replid2: this.replid2,
      secondReplOffset: this.replid2 === null ? null : this.second,
      masterReplOffset: this.applied,
      appliedOffset: this.applied,
      receivedOffset: isReplica ? this.received : this.applied,
      heardSecondsAgo: this.link === "up" ? Math.floor((time.nowMs - this.lastIoMs) / 1_000) : null,
      masterAddress: this.master === null ? null : { host: this.master, port: 6379 },
      linkUp: isReplica && this.link === "up",
      linkDownForMs: null,
      syncInProgress: this.link === "syncing",
      readOnly: true,
      priority: this.priority,
      failoverState: this.handover?.state ?? "no-failover",
      replicas: replicas.map(({ name, applied }) => {
        return { host: name, port: 6379, state: "online", offset: this.acks.get(name) ?? applied, lag: 0 };
      }),
    };
  }
}

/** The first entry that ends after `offset`. */
function firstAfter(log: readonly Entry[], offset: number): number {
  let low = 0;
  let high = log.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (log[middle]!.end <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
