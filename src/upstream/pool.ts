import type { Address } from "../config/address.ts";
import type { Counters } from "../metrics.ts";
import type { Epoch, NodeId } from "../topology/epoch.ts";
import { ask } from "./ask.ts";
import { Convoy } from "./convoy.ts";
import { Lane, type LaneContext, type LaneRole, type LaneTarget } from "./lane.ts";
import { ANONYMOUS, Profile, type Profiles } from "./profile.ts";
import type { Request, RequestOwner } from "./request.ts";
import { killRequest, type Severed } from "./severed.ts";

export interface PoolSettings {
  readonly maxLanes: number;
  readonly maxPrivate: number;
  /** How long a private connection is kept for the next session that needs one, ms; 0 = not at all. */
  readonly privateIdleMs: number;
  /** How long a connection to a former master may still answer what is in flight, ms. */
  readonly retireTimeoutMs: number;
  /** After which an unanswered call that may wait is known to wait, ms. */
  readonly waitsAfterMs: number;
}

/** How often profiles that nobody uses are looked for, ms. */
const SWEEP_MS = 10_000;

/** Opens, finds and ends the upstream connections. */
export class LanePool {
  private readonly lanes = new Set<Lane>();
  /** All private connections. */
  private readonly privates = new Set<Lane>();
  /** Connections that carry messages; their owners know themselves when to leave a former master. */
  private readonly feeds = new Set<Lane>();
  /** Those of them that no session has, with the monotonic time in ms since when, the oldest first. */
  private readonly idle = new Map<Lane, number>();
  private idleTimer: NodeJS.Timeout | null = null;
  private readonly profiles: Profiles;
  private readonly context: LaneContext;
  private readonly settings: PoolSettings;
  private readonly counters: Counters;
  private readonly addressOf: (node: NodeId) => Address;
  private readonly unused = new Set<Profile>();
  private checker: Lane | null = null;
  private sweeper: NodeJS.Timeout | null = null;
  /** Calls that wait on the server, in the order in which they are to be written. */
  readonly convoy: Convoy;

  /** @param options.isReleasing held sessions are being let go, and may issue such calls again. */
  constructor(options: {
    profiles: Profiles;
    context: LaneContext;
    settings: PoolSettings;
    counters: Counters;
    addressOf: (node: NodeId) => Address;
    isReleasing: () => boolean;
  }) {
    this.profiles = options.profiles;
    this.context = options.context;
    this.settings = options.settings;
    this.counters = options.counters;
    this.addressOf = options.addressOf;
    this.convoy = new Convoy(options.context.turn, options.isReleasing);
  }

  start(): void {
    this.sweeper = setInterval(() => this.sweep(), SWEEP_MS);
    this.sweeper.unref();
  }

  /** The lane to the epoch's master; null when there may be no more lanes. */
  master(profile: Profile, epoch: Epoch, slot: "master" | "bulk"): Lane | null {
    const known = profile[slot];
    if (known !== null) return known;
    if (epoch.master === null || epoch.history === null) return null;
    const lane = this.open(this.masterTarget(profile, epoch, epoch.master, false));
    profile[slot] = lane;
    return lane;
  }

  /** A lane to read from a node; null when there may be no more lanes. */
  reader(profile: Profile, node: NodeId, epoch: number): Lane | null {
    const known = profile.readers.get(node);
    if (known !== undefined) return known;
    const lane = this.open(this.readerTarget(profile, node, epoch));
    if (lane !== null) profile.readers.set(node, lane);
    return lane;
  }

  /** The connection on which clients' credentials are checked: its own user does not matter. */
  credentialChecker(node: NodeId, epoch: number): Lane | null {
    const { checker } = this;
    if (checker !== null && !checker.isClosed && !checker.isRetiring && checker.target.node === node) {
      return checker;
    }
    this.checker = this.open(this.readerTarget(new Profile(ANONYMOUS, 0, 2), node, epoch));
    // Whoever loses something with the old one finds the new one.
    checker?.retire(this.settings.retireTimeoutMs);
    return this.checker;
  }

  /** Nothing more is asked through this credential checker. */
  forsakeChecker(lane: Lane): void {
    if (this.checker === lane) this.checker = null;
    lane.destroy();
  }

  /** A connection to the master for one session alone; null when there may be no more of them. */
  openPrivate(profile: Profile, epoch: Epoch, owner: RequestOwner): Lane | null {
    if (epoch.master === null || epoch.history === null) return null;
    const known = profile.idle.at(-1);
    if (known !== undefined) {
      this.leaveIdle(known);
      known.owner = owner;
      return known;
    }
    return this.openFor(owner, this.masterTarget(profile, epoch, epoch.master, true), this.privates);
  }

  /** A connection that is to carry messages; null when there may be no more private connections. */
  openFeed(options: {
    profile: Profile;
    node: NodeId;
    role: LaneRole;
    epoch: Epoch;
    owner: RequestOwner;
  }): Lane | null {
    const { profile, node, role, epoch, owner } = options;
    const replid = epoch.history?.replid ?? null;
    const target = { node, address: this.addressOf(node), role, epoch: epoch.number, replid, profile };
    return this.openFor(owner, { ...target, isPrivate: true }, this.feeds);
  }

  /** A new private connection among its like; null when there may be no more. */
  private openFor(owner: RequestOwner, target: LaneTarget, among: Set<Lane>): Lane | null {
    if (!this.makeRoom()) return null;
    const lane = new Lane(target, this.context);
    lane.owner = owner;
    among.add(lane);
    this.counters.upstreamOpened.private++;
    this.counters.upstreamNow.private++;
    return lane;
  }

  /** There may be no more private connections, and each of them is in use. */
  get isPrivateFull(): boolean {
    return this.idle.size === 0 && this.privates.size + this.feeds.size >= this.settings.maxPrivate;
  }

  /** One that nobody needs makes room for one that is needed. @returns whether there is room. */
  private makeRoom(): boolean {
    const { maxPrivate } = this.settings;
    if (this.privates.size + this.feeds.size >= maxPrivate) this.oldestIdle()?.destroy();
    return this.privates.size + this.feeds.size < maxPrivate;
  }

  /** A session has no more use for its private connection: another may have it, if it is as good as new. */
  givePrivate(lane: Lane): void {
    if (!lane.isClean || this.settings.privateIdleMs === 0) return lane.drop();
    lane.owner = null;
    lane.target.profile.idle.push(lane);
    this.idle.set(lane, this.context.nowMs());
    this.counters.upstreamNow.private--;
    this.counters.upstreamNow.idle++;
    this.idleTimer ??= setTimeout(() => this.endIdle(), this.settings.privateIdleMs);
  }

  private leaveIdle(lane: Lane): void {
    if (!this.idle.delete(lane)) return;
    const { idle } = lane.target.profile;
    const at = idle.indexOf(lane);
    if (at >= 0) idle.splice(at, 1);
    this.counters.upstreamNow.idle--;
    this.counters.upstreamNow.private++;
  }

  private oldestIdle(): Lane | undefined {
    return this.idle.keys().next().value;
  }

  /** Ends what nobody has needed for long enough. */
  private endIdle(): void {
    this.idleTimer = null;
    const nowMs = this.context.nowMs();
    for (const [lane, sinceMs] of this.idle) {
      const leftMs = sinceMs + this.settings.privateIdleMs - nowMs;
      if (leftMs > 0) {
        this.idleTimer = setTimeout(() => this.endIdle(), Math.ceil(leftMs));
        return;
      }
      lane.destroy();
    }
  }

  /** There may be no more lanes. */
  get isFull(): boolean {
    return this.lanes.size >= this.settings.maxLanes;
  }

  private masterTarget(profile: Profile, epoch: Epoch, node: NodeId, isPrivate: boolean): LaneTarget {
    const address = this.addressOf(node);
    const replid = epoch.history?.replid ?? null;
    return { node, address, role: "master", epoch: epoch.number, replid, profile, isPrivate };
  }

  private readerTarget(profile: Profile, node: NodeId, epoch: number): LaneTarget {
    const address = this.addressOf(node);
    return { node, address, role: "reader", epoch, replid: null, profile, isPrivate: false };
  }

  private open(target: LaneTarget): Lane | null {
    if (this.isFull) return null;
    const lane = new Lane(target, this.context);
    this.lanes.add(lane);
    this.counters.upstreamOpened.lane++;
    this.counters.upstreamNow.lane++;
    return lane;
  }

  /** A lane has ended: nobody may find it any more. */
  forget(lane: Lane): void {
    this.leaveIdle(lane);
    if (this.privates.delete(lane) || this.feeds.delete(lane)) this.counters.upstreamNow.private--;
    if (this.lanes.delete(lane)) this.counters.upstreamNow.lane--;
    const { profile, node } = lane.target;
    if (profile.master === lane) profile.master = null;
    if (profile.bulk === lane) profile.bulk = null;
    if (profile.readers.get(node) === lane) profile.readers.delete(node);
  }

  /**
   * A connection was lost with writes unanswered. Connections that its sessions may find open already
   * have the server end what is left of it before they carry anything more; new ones do so by themselves.
   */
  lostWrites(profile: Profile, severed: Severed): void {
    for (const lane of [...profile.idle]) lane.destroy();
    if (severed.state !== "open") return;
    for (const lane of [profile.master, profile.bulk]) {
      if (lane?.isOpen === true && lane.target.replid === severed.replid) this.endSevered(lane, severed);
    }
  }

  /** Has the server end what is left of a lost connection, through another one that is open. */
  endSevered(lane: Lane, severed: Severed): void {
    severed.questions++;
    ask(lane, killRequest(severed), (reply) => this.context.severed.answered(severed, reply));
  }

  /**
   * The master is another one now: its lanes answer what they owe and take nothing new.
   * @param wasSilent it had stopped answering: what it runs when it wakes up, it runs beside the new master,
   *   and an answer to that would acknowledge a write that is lost.
   */
  retireMasters(wasSilent: boolean): void {
    const answersMs = wasSilent ? 0 : this.settings.retireTimeoutMs;
    const left: Lane[] = [];
    for (const profile of this.profiles) {
      for (const lane of [profile.master, profile.bulk]) if (lane !== null) left.push(lane);
      profile.master = null;
      profile.bulk = null;
      // All of them end below.
      profile.idle.length = 0;
    }
    for (const lane of left) lane.retire(answersMs);
    // A copy: whoever loses a stream of messages opens another connection at once.
    const waitingMs = this.untilAllWait();
    for (const lane of [...this.privates]) lane.retire(answersMs, waitingMs);
    if (waitingMs > 0) this.convoy.stopFor(waitingMs);
  }

  /**
   * How long until all calls that are unanswered are known to wait, ms: together they move to the next
   * master, so that they keep their order, and those that come now queue behind them. A living master answers
   * until then, or says that it did not run them.
   */
  private untilAllWait(): number {
    let newestMs = Number.NEGATIVE_INFINITY;
    for (const lane of this.privates) newestMs = Math.max(newestMs, lane.callSinceMs);
    // A timer may come a little early.
    return newestMs + this.settings.waitsAfterMs + 2 - this.context.nowMs();
  }

  /** Lanes of the former master that still wait for replies. */
  get retiring(): number {
    let count = 0;
    for (const lane of this.lanes) if (lane.isRetiring) count++;
    return count;
  }

  /** Requests given to each node over shared connections and not answered. */
  outstanding(): Map<NodeId, number> {
    const counts = new Map<NodeId, number>();
    for (const { target, inFlight } of this.lanes) {
      counts.set(target.node, (counts.get(target.node) ?? 0) + inFlight);
    }
    return counts;
  }

  /** Whether something that was sent to the master of this epoch, or will be, is not answered. */
  isMasterOwing(epoch: number): boolean {
    for (const lane of this.lanes) if (isOwedByMaster(lane, epoch)) return true;
    for (const lane of this.privates) if (isOwedByMaster(lane, epoch)) return true;
    return false;
  }

  /** Whether there are shared connections to a node. */
  isConnected(node: NodeId): boolean {
    for (const lane of this.lanes) if (lane.target.node === node) return true;
    return false;
  }

  /** When the oldest read of a node that is timed and not answered was sent, monotonic ms; null = none is. */
  sampledSinceMs(node: NodeId): number | null {
    let oldest: number | null = null;
    for (const lane of this.lanes) {
      const sinceMs = lane.target.node === node ? lane.sampledSinceMs : null;
      if (sinceMs !== null && (oldest === null || sinceMs < oldest)) oldest = sinceMs;
    }
    return oldest;
  }

  /** See `Lane`; of reads that are not with a master that is written, too. */
  tellOverdue(beforeMs: number, isEnough: (wasSentElsewhere: boolean) => boolean): void {
    for (const lane of this.lanes) if (lane.target.role === "reader") lane.tellOverdue(beforeMs, isEnough);
  }

  /** Gives back what may be sent elsewhere of all that waits for a silent node. */
  giveBack(node: NodeId, movable: (request: Request) => boolean): void {
    for (const lane of this.lanes) if (lane.target.node === node) lane.giveBack(movable);
  }

  /** A profile unused at two looks in a row loses its lanes and its credentials. */
  private sweep(): void {
    for (const profile of this.profiles) {
      if (profile.users > 0) this.unused.delete(profile);
      else if (this.unused.delete(profile)) this.drop(profile);
      else this.unused.add(profile);
    }
  }

  private drop(profile: Profile): void {
    profile.master?.retire(this.settings.retireTimeoutMs);
    profile.bulk?.retire(this.settings.retireTimeoutMs);
    for (const lane of profile.readers.values()) lane.retire(this.settings.retireTimeoutMs);
    for (const lane of [...profile.idle]) lane.destroy();
    this.profiles.forget(profile);
  }

  destroy(): void {
    if (this.sweeper !== null) clearInterval(this.sweeper);
    if (this.idleTimer !== null) clearTimeout(this.idleTimer);
    for (const lane of [...this.lanes, ...this.privates, ...this.feeds]) lane.destroy();
  }
}

function isOwedByMaster(lane: Lane, epoch: number): boolean {
  return lane.target.role === "master" && lane.target.epoch === epoch && lane.isOwed;
}
