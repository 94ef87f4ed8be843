/**
 * Where a request goes: the epoch, the lanes, the hold. The router is the data plane's end of the seam to
 * the control plane: epochs come down, evidence goes up.
 */
import { WRITE } from "../commands/command.ts";
import type { Address } from "../config/address.ts";
import type { Config } from "../config/schema.ts";
import type { Counters } from "../metrics.ts";
import { MINUS } from "../resp/bytes.ts";
import { encodeError, type Value } from "../resp/encode.ts";
import {
  type Epoch,
  type Evidence,
  type EvidenceKind,
  FIRST_EPOCH,
  isSameRouting,
  type NodeId,
} from "../topology/epoch.ts";
import type { Turn } from "../turn.ts";
import { ask } from "../upstream/ask.ts";
import { ChunkPool } from "../upstream/chunk.ts";
import type { Lane, LaneKeeper, LaneLoss, LaneRole, LaneTarget } from "../upstream/lane.ts";
import { type Login, Logins, losesWrongLogins } from "../upstream/logins.ts";
import type { NodeMeter } from "../upstream/meter.ts";
import { LanePool } from "../upstream/pool.ts";
import { type Profile, Profiles } from "../upstream/profile.ts";
import {
  EVERYTHING,
  NOBODY,
  type NotRunCause,
  type Request,
  type RequestOwner,
} from "../upstream/request.ts";
import { SeveredConnections } from "../upstream/severed.ts";
import { type Candidate, Choice, type Lot, spareOf } from "./balance.ts";
import { Doubts } from "./doubts.ts";
import { Freshness } from "./freshness.ts";
import { HedgeBudget } from "./hedging.ts";
import { Hold } from "./hold.ts";
import type { RequestEvent } from "./outcome.ts";
import { Proofs } from "./proofs.ts";
import { Standing, type Upstream } from "./standing.ts";

/** A node that may be read. One object a node, so that sessions can keep it and see its progress. */
export interface ReadTarget extends Candidate {
  readonly node: NodeId;
  /** Since when it may be read, without having fallen back, monotonic ms. */
  readonly sinceMs: number;
  isSlow: boolean;
  readonly load: NodeMeter;
  /** Writes answered before this moment are applied there. */
  provenAtMs: number;
  /** How long it took from the question to the proof, ms: what is asked for now will take about as long. */
  proofTookMs: number;
}

/** Who has something to do as soon as there is a master. */
export interface WaitsForMaster {
  onWritable(): void;
}

/** Who looks at the routing anew whenever it may have changed. */
export interface RoutingObserver {
  onRouting(): void;
}

/** What a server said of itself in HELLO. */
export interface ServerFacts {
  readonly server: string;
  readonly version: string;
  readonly modules: Value;
}

export interface RouterOptions {
  readonly config: Config;
  readonly counters: Counters;
  readonly turn: Turn;
  readonly nowMs: () => number;
  readonly addressOf: (node: NodeId) => Address;
  /** Tells the control plane; it may publish a new epoch before it returns. */
  readonly onEvidence: (evidence: Evidence) => void;
  /** Reads wait for a replica to prove more; said again and again while that is so. */
  readonly onProofWanted?: () => void;
  readonly onFault: (error: unknown) => void;
}

/** How a question to a server about a profile or about credentials ended. */
export type Answer =
  /** `reply`: what the server said, where that is of use. */
  | { readonly kind: "yes"; readonly reply?: Buffer }
  | { readonly kind: "no"; readonly error: Buffer }
  /** No node could be asked, or the connection was lost: try again. */
  | { readonly kind: "nobody" };

const LOSS_EVIDENCE: Readonly<Record<LaneLoss, EvidenceKind>> = {
  "connect-failed": "connect-failed",
  "connection-lost": "connection-lost",
  "not-master": "not-master",
  loading: "loading",
  "link-down": "link-down",
  timeout: "connection-lost",
};

export class Router implements LaneKeeper {
  readonly config: Config;
  readonly counters: Counters;
  readonly turn: Turn;
  readonly hold: Hold;
  readonly doubts = new Doubts();
  readonly freshness = new Freshness();
  readonly proofs: Proofs;
  readonly profiles = new Profiles();
  readonly nowMs: () => number;
  readonly pool: LanePool;
  epoch: Epoch = FIRST_EPOCH;
  /** The epoch's master is verified and nothing speaks against it. */
  writable = false;
  /** No replica is fit, and reads must not go to the master for that (`reads.whenNoneFit`). */
  lacksReplica = false;
  /** When there last was a master that could be written no more, monotonic ms. */
  masterLostMs = Number.NEGATIVE_INFINITY;
  /** Changes whenever sessions must choose anew where they read. */
  version = 0;
  /** The time, at most a tick old: for what happens at every read and need not be exact. */
  coarseMs: number;
  /** What the server met last said of itself; null until one was seen. */
  facts: ServerFacts | null = null;
  /** One that was met gives no reply to some wrong logins; so may one that was not met. */
  mayLoseLogins = true;

  readonly observers = new Set<RoutingObserver>();

  private readonly targets = new Map<NodeId, ReadTarget>();
  private readable: ReadTarget[] = [];
  private choice = new Choice<ReadTarget>([]);
  private readonly standing: Standing;
  private readonly upstream: Upstream = {
    readable: () => this.readable.map(({ node }) => node),
    sampledSinceMs: (node) => this.pool.sampledSinceMs(node),
    isConnected: (node) => this.pool.isConnected(node),
  };
  private readonly logins = new Logins<Lane>({
    lane: () => this.loginLane(),
    ask,
    forsake: (lane) => this.pool.forsakeChecker(lane),
    isOneByOne: () => this.mayLoseLogins,
  });
  private readonly hedgeBudget = new HedgeBudget();
  private hedger: NodeJS.Timeout | null = null;
  private readonly waiting = new Set<WaitsForMaster>();
  /** What is known of a master that has stopped writing in order to end; also once there is another. */
  private stopped: (Pick<LaneTarget, "node" | "replid"> & { readonly atMs: number }) | null = null;
  /** Since it was last known to be well the master has not answered for a while, whatever came after that. */
  private hasBeenSilent = false;
  private readonly severed = new SeveredConnections(() => this.freshness.wrote(EVERYTHING, this.nowMs()));
  /** When a new master's replicas must have found it, monotonic ms. */
  private settledAtMs = Number.NEGATIVE_INFINITY;
  private soughtProofMs = Number.NEGATIVE_INFINITY;
  private questions = 0;
  private ticker: NodeJS.Timeout | null = null;
  private readonly options: RouterOptions;

  constructor(options: RouterOptions) {
    const { config, counters, turn, nowMs, addressOf } = options;
    this.options = options;
    this.config = config;
    this.counters = counters;
    this.turn = turn;
    this.nowMs = nowMs;
    this.coarseMs = nowMs();
    this.proofs = new Proofs(config.reads.proofWait, nowMs);
    this.hold = new Hold(
      { maxTimeMs: config.hold.maxTime, maxBytes: config.hold.maxBytes },
      counters,
      nowMs,
      { master: () => this.writable, replica: () => !this.lacksReplica },
    );
    this.standing = new Standing(config.reads);
    this.pool = new LanePool({
      profiles: this.profiles,
      counters,
      addressOf,
      isReleasing: () => this.hold.releasing,
      settings: {
        maxLanes: config.upstream.maxLanes,
        maxPrivate: config.upstream.maxPrivate,
        privateIdleMs: config.upstream.privateIdle,
        retireTimeoutMs: config.upstream.retireTimeout,
        waitsAfterMs: config.probe.interval,
      },
      context: {
        settings: {
          connectTimeoutMs: config.upstream.connectTimeout,
          requestTimeoutMs: config.upstream.requestTimeout,
          hedgeMs: config.reads.hedge,
          keepAliveMs: config.upstream.keepAlive,
          maxUnsentBytes: config.limits.maxUnsentBytes,
          maxInFlight: config.upstream.maxInFlight,
          maxReplyBytes: config.limits.outputBufferBytes,
        },
        chunks: new ChunkPool(),
        turn,
        keeper: this,
        severed: this.severed,
        nowMs,
        meterOf: (node) => this.standing.meterOf(node),
      },
    });
  }

  start(): void {
    this.pool.start();
    this.ticker = setInterval(() => {
      this.coarseMs = this.nowMs();
      this.lookForSlow();
    }, TICK_MS);
    this.ticker.unref();
    const { hedge } = this.config.reads;
    if (hedge === 0) return;
    this.hedger = setInterval(() => this.sendTwins(), Math.max(1, hedge / HEDGE_LOOKS));
    this.hedger.unref();
  }

  destroy(): void {
    if (this.ticker !== null) clearInterval(this.ticker);
    if (this.hedger !== null) clearInterval(this.hedger);
    this.hold.destroy();
    this.proofs.destroy();
    this.pool.destroy();
  }

  // The epoch

  /**
   * Takes over a new epoch object: the one place where routing changes.
   * @param keptUntilMs see `Doubts`; null when the epoch's history is the one of before.
   */
  setEpoch(epoch: Epoch, keptUntilMs: number | null): void {
    const before = this.epoch;
    const isProgress = keptUntilMs === null && this.writable && isSameRouting(before, epoch);
    if (isProgress && !this.hasFallenBack(epoch)) return this.noteProgress(epoch);
    if (keptUntilMs !== null) this.doubts.add(keptUntilMs, this.nowMs());
    this.epoch = epoch;
    const isOther = epoch.master !== before.master || epoch.history?.replid !== before.history?.replid;
    if (isOther) {
      this.severed.clear();
      const { failover, hold } = this.config;
      this.settledAtMs = this.nowMs() + Math.min(failover.settleTime, hold.maxTime);
    }
    const isWritable = epoch.holdCause === null && epoch.master !== null;
    if (this.writable && !isWritable) this.masterLostMs = this.nowMs();
    this.writable = isWritable;
    this.noteStop(before, epoch);
    const gone = this.updateTargets(before, epoch);
    // Also the same node with another history: a connection is known by the history that it was opened for.
    if (isOther || epoch.number !== before.number) this.leaveMaster(before);
    else if (epoch.holdCause !== before.holdCause && epoch.master !== null && isStuck(epoch)) {
      gone.push(epoch.master);
    }
    this.hasBeenSilent = epoch.holdCause === "silent" || (this.hasBeenSilent && epoch.holdCause !== null);
    for (const node of gone) this.pool.giveBack(node, isMovable);
    for (const observer of this.observers) observer.onRouting();
    this.proofs.came();
    this.hold.retryAll();
    if (!this.writable || this.waiting.size === 0) return;
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const one of waiting) one.onWritable();
  }

  /** Replicas have proven more, and nothing else is new: this comes many times a second. */
  private noteProgress(epoch: Epoch): void {
    this.epoch = epoch;
    for (const { id, provenAtMs } of epoch.readable) this.target(id, provenAtMs);
    for (const observer of this.observers) observer.onRouting();
    this.proofs.came();
  }

  /** The master is new: its replicas may not have found it yet. */
  get isSettling(): boolean {
    return this.nowMs() < this.settledAtMs;
  }

  private noteStop(before: Epoch, epoch: Epoch): void {
    const { number, master, history, stoppedAtMs } = epoch;
    if (stoppedAtMs === null && number !== before.number) return;
    const isStopped = stoppedAtMs !== null && master !== null && history !== null;
    this.stopped = isStopped ? { node: master, replid: history.replid, atMs: stoppedAtMs } : null;
  }

  /**
   * Whether a write that was sent through a connection, and was unanswered when that ended, did not run.
   *
   * Told to end, Redis 7 with replicas that lag pauses all commands that write or may replicate (server.c,
   * prepareForShutdown: pauseClients; processCommand postpones them, before they run), waits for the
   * replicas in serverCron, and exits there; what is postponed ends with it. Let R be a report, asked for at
   * time r, that shows the pause. The proof:
   *
   * 1. What had not run when R was answered never ran: it is paused until the end. (Only SHUTDOWN ABORT, or
   *    data that cannot be saved, lifts the pause; the next report shows that, and ends this. That the
   *    server dies before that report, and before it has written the answer to what it ran meanwhile, is the
   *    one thing that is not excluded here.)
   * 2. What had run, ran before the pause. Replies are written before the server sleeps (beforeSleep,
   *    handleClientsWithPendingWrites), and so is R, which was asked for during the pause. So at r or later
   *    the server wrote to every connection that it owed something, unless the kernel's buffer of that was
   *    full; what it wrote, or what stood in that buffer, arrived here after r. Nothing arrived through this
   *    one after r: nothing was owed to it any more. What was written before has arrived ahead of the end
   *    of the connection (FIN, not RST). (Threads for output, off by default, write a moment later.)
   * 3. So what was not answered had not run, by 2, and never did, by 1.
   *
   * A former master need not end the connection: what it runs now is not in the history that goes on.
   */
  hasStoppedBefore(lane: Lane): boolean {
    const { stopped } = this;
    if (stopped === null || (!lane.isFinished && !lane.isRetiring)) return false;
    const { node, replid } = lane.target;
    return stopped.node === node && stopped.replid === replid && lane.lastHeardMs < stopped.atMs;
  }

  /** Tells somebody once when there is a master (again); not at once. */
  whenWritable(one: WaitsForMaster): void {
    this.waiting.add(one);
  }

  /**
   * Tells once when no request that was sent to the master of now is unanswered, over shared and private
   * connections; never before this returns. Calls that wait there, and streams of messages, do not count.
   * Of use while nothing new is sent (the epoch's hold cause): what is sent meanwhile is waited for too.
   * @returns takes it back.
   */
  whenMasterDrained(done: () => void): () => void {
    const { number } = this.epoch;
    let timer: NodeJS.Timeout | null = null;
    const look = (): void => {
      if (this.pool.isMasterOwing(number)) timer = setTimeout(look, DRAIN_CHECK_MS);
      else done();
    };
    timer = setTimeout(look, 0);
    return () => {
      if (timer !== null) clearTimeout(timer);
    };
  }

  /** Lanes of the former master take nothing new; reads that wait there go elsewhere at once. */
  private leaveMaster(before: Epoch): void {
    if (before.master === null) return;
    this.pool.giveBack(before.master, isMovable);
    this.pool.retireMasters(this.hasBeenSilent);
  }

  /** @returns the nodes that are no longer fit to be read. */
  private updateTargets(before: Epoch, epoch: Epoch): NodeId[] {
    const targets: ReadTarget[] = [];
    for (const { id, provenAtMs } of epoch.readable) targets.push(this.target(id, provenAtMs));
    const { from, whenNoneFit } = this.config.reads;
    // Before the first master is known no replica can be: then reads wait for that.
    const isMeant = from === "replica" && whenNoneFit !== "master" && epoch.number > 0;
    this.lacksReplica = isMeant && targets.length === 0;
    if (from === "any" && this.writable && epoch.master !== null) {
      targets.push(this.target(epoch.master, Number.POSITIVE_INFINITY));
    }
    const same =
      targets.length === this.readable.length && targets.every((one, i) => one === this.readable[i]);
    if (same && before.number === epoch.number) return [];
    const left = this.readable.filter((one) => !targets.includes(one));
    for (const [node, one] of this.targets) if (!targets.includes(one)) this.targets.delete(node);
    const gone = left.map(({ node }) => node).filter((node) => !targets.some((one) => one.node === node));
    this.readable = from === "master" ? [] : targets;
    this.choose();
    return gone;
  }

  /** Sessions choose anew among the nodes that may be read, and what each of them counts for. */
  private choose(): void {
    for (const target of this.readable) target.isSlow = this.standing.isSlow(target.node);
    this.choice = new Choice(this.readable);
    this.version++;
  }

  /** Whether a node that may be read answers clearly later than the others. */
  isSlow(node: string): boolean {
    return this.readable.some((one) => one.node === node && one.isSlow);
  }

  private lookForSlow(): void {
    if (this.standing.look(this.coarseMs, this.upstream)) this.choose();
  }

  /** What has proven less than before is not what it was: who has read there has to look anew. */
  private hasFallenBack({ readable }: Epoch): boolean {
    return readable.some(
      ({ id, provenAtMs }) => provenAtMs < (this.targets.get(id)?.provenAtMs ?? provenAtMs),
    );
  }

  private target(node: NodeId, provenAtMs: number): ReadTarget {
    let target = this.targets.get(node);
    if (target === undefined || provenAtMs < target.provenAtMs) {
      const unproven = { provenAtMs: Number.NEGATIVE_INFINITY, proofTookMs: 0 };
      target = { node, ...unproven, sinceMs: this.nowMs(), isSlow: false, ...this.standing.of(node) };
      this.targets.set(node, target);
    }
    if (provenAtMs > target.provenAtMs) {
      target.proofTookMs = this.proofs.took(provenAtMs) ?? target.proofTookMs;
    }
    target.provenAtMs = provenAtMs;
    return target;
  }

  // Ways

  /** The lane to the master; null when there is no master now or no room for a lane. */
  masterLane(profile: Profile): Lane | null {
    if (profile.master !== null) return profile.master;
    return this.pool.master(profile, this.epoch, "master");
  }

  /** Another connection to the master, for a request that would make others wait behind it. */
  bulkLane(profile: Profile): Lane | null {
    return this.pool.master(profile, this.epoch, "bulk");
  }

  /** Reads have to go to the master because no replica has proven enough: it is worth to look sooner. */
  seekProof(): void {
    const nowMs = this.nowMs();
    if (nowMs - this.soughtProofMs < SEEK_PROOF_EVERY_MS) return;
    this.soughtProofMs = nowMs;
    this.options.onProofWanted?.();
  }

  /** For a session's first read; it keeps it. */
  readLot(sessionId: number): Lot {
    return this.choice.lotFor(sessionId);
  }

  /** The node a session reads from as long as it stays fit; null when there is none. */
  readTarget(sessionId: number, lot: Lot): ReadTarget | null {
    return this.choice.homeOf(sessionId, lot);
  }

  /** A node for one read, whatever was read where before; null when there is none. */
  anyTarget(): ReadTarget | null {
    return this.choice.pick(Math.random());
  }

  /** Another node than this one that may be read, as far as it will do; null when there is none. */
  spareTarget(beside: NodeId, mayServe: (target: ReadTarget) => boolean): ReadTarget | null {
    return spareOf(this.readable, (one) => one.node !== beside && mayServe(one));
  }

  /** What may be read, by its name. */
  readableTarget(node: NodeId): ReadTarget | null {
    return this.readable.find((one) => one.node === node) ?? null;
  }

  /** Reads that have waited for long enough go to another node, too. */
  private sendTwins(): void {
    const { hedgeBudget, counters } = this;
    hedgeBudget.earn(counters.requests.read);
    if (hedgeBudget.isSpent) return;
    this.pool.tellOverdue(this.nowMs() - this.config.reads.hedge, (wasSentElsewhere) => {
      if (wasSentElsewhere) {
        counters.hedges++;
        hedgeBudget.spend();
      }
      return hedgeBudget.isSpent;
    });
  }

  isReadable(target: ReadTarget): boolean {
    return this.readable.includes(target);
  }

  /** There is a node that sessions may read by `reads.from`. */
  get hasReadable(): boolean {
    return this.readable.length > 0;
  }

  readLane(profile: Profile, target: ReadTarget): Lane | null {
    return profile.readers.get(target.node) ?? this.pool.reader(profile, target.node, this.epoch.number);
  }

  /** A connection that is to carry messages; null when there may be no more private connections. */
  openFeed(profile: Profile, node: NodeId, role: LaneRole, owner: RequestOwner): Lane | null {
    return this.pool.openFeed({ profile, node, role, epoch: this.epoch, owner });
  }

  /** Why there can be no more private connections, as an error reply; null = there can. */
  noPrivateRoom(): Buffer | null {
    return this.pool.isPrivateFull ? encodeError(this.noPrivateRoomText) : null;
  }

  get noPrivateRoomText(): string {
    const most = this.config.upstream.maxPrivate;
    return `ERR proxy: no more private upstream connections, upstream.maxPrivate (${most})`;
  }

  openPrivate(profile: Profile, owner: RequestOwner): Lane | null {
    return this.pool.openPrivate(profile, this.epoch, owner);
  }

  // Questions

  /** Whether a server accepts connections of this profile: its user, its database, its protocol. */
  accepts(profile: Profile, question: readonly string[], answer: (answer: Answer) => void): void {
    const lane = this.laneForQuestion(profile);
    if (lane === null) return answer({ kind: "nobody" });
    ask(lane, question, (reply) => {
      if (reply === null) return answer({ kind: "nobody" });
      const accepted = reply[0] !== MINUS || isBeyondLogin(reply, question);
      profile.accepted ||= accepted;
      answer(accepted ? { kind: "yes" } : { kind: "no", error: reply });
    });
  }

  /** Whether a server knows these credentials; it is asked each time, as with Redis itself. */
  checkCredentials(
    credentials: Login["credentials"],
    isWanted: Login["isWanted"],
    answer: (answer: Answer) => void,
  ): void {
    this.logins.check({ credentials, isWanted, answer: (reply) => answer(answerOf(reply)) });
  }

  /** A server has said what it is. */
  met(facts: ServerFacts): void {
    this.mayLoseLogins = losesWrongLogins(facts) || (this.facts !== null && this.mayLoseLogins);
    this.facts = facts;
  }

  private loginLane(): Lane | null {
    const node = this.nodeForQuestion();
    return node === null ? null : this.pool.credentialChecker(node, this.epoch.number);
  }

  /**
   * Asks the master several things. @param answer gets the replies in order; null = it could not be asked.
   */
  askMaster(
    profile: Profile,
    questions: readonly (readonly (string | Buffer)[])[],
    answer: (replies: Buffer[] | null) => void,
  ): void {
    const lane = this.writable ? this.masterLane(profile) : null;
    if (lane === null) return answer(null);
    const replies: Buffer[] = [];
    let lost = false;
    for (const question of questions) {
      ask(lane, question, (reply) => {
        if (lost) return;
        if (reply !== null) replies.push(reply);
        lost = reply === null;
        if (lost || replies.length === questions.length) answer(lost ? null : replies);
      });
    }
  }

  /**
   * Asks the master, or without one any node, in the name of a profile's user.
   * @param answer gets the reply's bytes, an error's too; null = nobody could be asked.
   */
  askAsUser(
    profile: Profile,
    question: readonly (string | Buffer)[],
    answer: (reply: Buffer | null) => void,
  ): void {
    const lane = this.laneForQuestion(profile);
    if (lane === null) return answer(null);
    ask(lane, question, answer);
  }

  /**
   * What the master says to a command that would do harm if it ran: it is queued in a transaction, for which
   * the server checks the user's rights, on a connection of its own that ends before EXEC.
   * @param answer gets null when there is no master or the connection was lost.
   * @returns false when there may be no more private connections (`upstream.maxPrivate`).
   */
  askQueued(profile: Profile, question: readonly string[], answer: (reply: Buffer | null) => void): boolean {
    if (!this.writable) {
      answer(null);
      return true;
    }
    const lane = this.pool.openPrivate(profile, this.epoch, NOBODY);
    if (lane === null) return false;
    const tell = (reply: Buffer | null): void => {
      lane.drop();
      answer(reply);
    };
    ask(lane, ["MULTI"], (reply) => {
      // Outside a transaction it would run.
      if (reply === null || reply[0] === MINUS) tell(reply);
      else if (lane.isClosed || lane.isRetiring) tell(null);
      else ask(lane, question, tell);
    });
    return true;
  }

  private laneForQuestion(profile: Profile): Lane | null {
    if (this.writable) return this.masterLane(profile);
    const node = this.nodeForQuestion();
    return node === null ? null : this.pool.reader(profile, node, this.epoch.number);
  }

  /** Whoever may know: also a master that is not to be written now; before there is one, any node. */
  private nodeForQuestion(): NodeId | null {
    if (this.writable) return this.epoch.master;
    const readable = this.readable[0];
    if (readable !== undefined) return readable.node;
    const { nodes } = this.config;
    return this.epoch.master ?? nodes[this.questions++ % nodes.length] ?? null;
  }

  // Doubts

  /**
   * What is known of a request that may have run, now that it could be sent again through this connection;
   * null = not known yet: in a moment.
   */
  doubtOf(request: Request, lane: Lane): RequestEvent | null {
    const { severed } = request;
    if (severed === null) return "another-master";
    const { node, replid } = lane.target;
    if (severed.node !== node || severed.replid !== replid) return "another-master";
    if (severed.state === "ended") return "same-master";
    if (severed.state === "spared") return "same-master-open";
    if (lane.isOpen && severed.state === "open" && severed.questions === 0)
      this.pool.endSevered(lane, severed);
    return null;
  }

  // What the lanes report

  laneLost(lane: Lane, why: LaneLoss): void {
    this.counters.upstreamLost[lane.target.isPrivate ? "private" : "lane"]++;
    const { severed } = lane;
    if (severed !== null && severed.replid === this.epoch.history?.replid) {
      this.pool.lostWrites(lane.target.profile, severed);
    }
    if (lane.isRetiring) return;
    this.pool.forget(lane);
    this.evidence(LOSS_EVIDENCE[why], lane.target.node, lane.target.epoch);
  }

  laneSent(lane: Lane, requests: number, reads: number): void {
    const { node, role, isPrivate } = lane.target;
    this.counters.addNodeRequests(node, requests, reads);
    if (reads === 0) return;
    // What went to the master over shared connections its session has counted: it knows why.
    if (role === "reader" && node !== this.epoch.master) this.counters.reads.replica += reads;
    else if (role === "reader" || isPrivate) this.counters.reads.policy += reads;
  }

  laneOpened(lane: Lane): void {
    this.pool.convoy.changed(lane);
  }

  laneClosed(lane: Lane): void {
    this.pool.forget(lane);
    this.pool.convoy.changed(lane);
  }

  laneFault(_lane: Lane, error: unknown): void {
    this.options.onFault(error);
  }

  /** A node answered that it is the wrong one. */
  refusedBy(lane: Lane, cause: Exclude<NotRunCause, "no-replicas">): void {
    this.evidence(cause, lane.target.node, lane.target.epoch);
  }

  private evidence(kind: EvidenceKind, node: NodeId, epoch: number): void {
    this.options.onEvidence({ kind, node, epoch });
  }
}

/** What a server's reply to a question says: an error is a no. @param reply null = nobody gave one. */
export function answerOf(reply: Buffer | null): Answer {
  if (reply === null) return { kind: "nobody" };
  return reply[0] === MINUS ? { kind: "no", error: reply } : { kind: "yes" };
}

/**
 * An error that only a client gets whom the server has let in: without the right to PING it is a user all the
 * same, a script that keeps the server busy does not last, and servers before 6 know no HELLO.
 */
function isBeyondLogin(error: Buffer, question: readonly string[]): boolean {
  const text = error.toString("latin1", 0, 24);
  if (text.startsWith("-NOPERM") || text.startsWith("-BUSY ")) return true;
  return question[0] === "HELLO" && text.startsWith("-ERR unknown command");
}

/** How often a master that owes answers is looked at while somebody waits for that, ms. */
const DRAIN_CHECK_MS = 1;

/** How often at most it is said that reads wait for proof, ms. */
const SEEK_PROOF_EVERY_MS = 5;

/** Looks for late reads in the time after which one is late. */
const HEDGE_LOOKS = 4;

/** How old `coarseMs` may be, ms. */
const TICK_MS = 20;

/** What the master was sent it may not answer soon. */
function isStuck(epoch: Epoch): boolean {
  return epoch.holdCause === "silent" || epoch.holdCause === "shutting-down";
}

/** A read of a session that has nothing else on the way there, and that was not moved before. */
function isMovable(request: Request): boolean {
  return request.kind !== WRITE && !request.moved && request.owner.movable;
}
