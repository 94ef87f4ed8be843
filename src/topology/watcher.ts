/**
 * Owns the probes and the belief: probes all nodes again and again, lets the rules decide, and publishes what
 * changed. It observes always; it never writes to a node, and it never draws conclusions from time that
 * passed while our own process stood still.
 *
 *   start()                  begin to probe
 *   current()                the epoch that routing uses
 *   evidence(e)              traffic noticed something: takes effect before this returns
 *   hint(nodes, denseMs)     somebody (Sentinel) names nodes: watch them, and look now; for so long every 10
 *                            to 20 ms, because a promotion is expected
 *   seekProof()              reads wait until replicas are known to have caught up: offsets, more often
 *   listen(word)             what the Sentinels say together, for the rules
 *   adopt(node)              an operator decides
 *   hold(), release()        a planned switch is under way: writes are held although the master is well
 *   renounce(node)           its promotion, which was begun here, was given up
 *   group()                  what is believed and what that rests on, for the failover machine
 *   nodes(), problems()      for people
 *   belief(), views()        what is believed and what it rests on
 *   close(), destroy()       stop probing; nothing is called back afterwards
 */

import { type Clock, type SetTimer, systemTimer } from "../clock.ts";
import { discover, mentioned } from "./discovery.ts";
import type { Epoch, Evidence, NodeId } from "./epoch.ts";
import { Pace } from "./pace.ts";
import type { NodeFacts, NodeProbe, ProbeFactory, ProbeFailureKind, ProbeOutcome } from "./probing.ts";
import { changesOf, distinct, nodeProblems, type ProblemChange } from "./problems.ts";
import { ProofSeeker } from "./proof-seeker.ts";
import { Quarrel } from "./quarrel.ts";
import { type Aftermath, aftermathOf, followAftermath } from "./rules/aftermath.ts";
import { type Aliases, findAliases } from "./rules/aliases.ts";
import { isBehind } from "./rules/fitness.ts";
import {
  type AcceptReason,
  type Belief,
  type Contact,
  FIRST_BELIEF,
  type MasterBelief,
  type NodeView,
  type Problem,
  type SeenBy,
} from "./rules/model.ts";
import { NO_SENTINELS, type SentinelWord } from "./rules/sentinel.ts";
import { type AdoptRefusal, adopt, type Decision, decide, isSameEpoch, renounce, suspect } from "./rules.ts";
import { describeNodes, type NodeStatus } from "./status.ts";

export interface WatcherOptions {
  /** Where to start looking; may be empty when hint() brings nodes. */
  readonly seeds: readonly NodeId[];
  /**
   * What was believed before a restart, held until a probe verifies it: whoever is the master now is judged
   * by the history that is known, and not taken like a first one.
   */
  readonly belief?: Belief | undefined;
  /** Between two probes of a node, in ms. */
  readonly intervalMs: number;
  /** A probe that takes longer is given up, in ms; the probes themselves keep it. */
  readonly timeoutMs: number;
  /** A replica further behind is not fit, in ms. */
  readonly maxLagMs: number;
  /** Neither is one that lacks more bytes of the history; default 0 = no bound. */
  readonly maxLagBytes?: number;
  /** Between two looks at the offsets while proof is sought, in ms; default and at most `intervalMs`. */
  readonly proofIntervalMs?: number;
  /** How far back the master's offsets are remembered at least, in ms; default twice that. */
  readonly rememberMs?: number;
  /** Addresses watched at most, aliases included; default 64. */
  readonly maxNodes?: number;
  /** A discovered node that nobody mentions and that does not answer is forgotten after so long, in ms. */
  readonly forgetAfterMs?: number;
  /** A timer that fires so late, in ms, means that our process stood still; default 100. */
  readonly stallMs?: number;
}

export interface SwitchFacts {
  /** Wall-clock ms. */
  readonly atMs: number;
  readonly epochNumber: number;
  readonly from: NodeId | null;
  readonly to: NodeId;
  readonly reason: AcceptReason;
  readonly seenBy: SeenBy;
  readonly detail: string;
  /** Bytes of the former history that did not survive; null = unknown. */
  readonly lostBytes: number | null;
  /**
   * Monotonic ms: every write answered before it is in the new history; -Infinity = nothing is proven,
   * Infinity = all of them are.
   */
  readonly keptUntilMs: number;
  /** Since when there was no master that could be written, wall-clock ms; null when there was one. */
  readonly masterGoneAtMs: number | null;
}

export interface WatcherCallbacks {
  /**
   * A new epoch object; also for changes of the hold cause or of what may be read.
   * @param keptUntilMs for another master, or the same with a new history: monotonic ms before which every
   *   answered write is in its history, -Infinity = nothing is proven, Infinity = all of them are.
   *   Null: it has the history of before.
   */
  onEpoch(epoch: Epoch, keptUntilMs: number | null): void;
  /** Another master. Called after onEpoch. */
  onSwitch(facts: SwitchFacts): void;
  /** More of the history that was left at that switch turns out to be lost: so many bytes in all. */
  onLoss?(epochNumber: number, lostBytes: number): void;
  /** The same node is the master again with a new history (restart, adoption): same epoch number. */
  onReturn(facts: SwitchFacts): void;
  /** Once per change, not once per round. */
  onProblem(problem: Problem, change: ProblemChange): void;
  /** A running instance was met for the first time. */
  onFacts(facts: NodeFacts): void;
  /** The nodes were looked at, and all of the above was told. */
  onLooked?(): void;
  /** Proof is sought: what was answered before `atMs`, monotonic ms, replicas will soon have proven. */
  onProofAsked?(atMs: number): void;
}

/** What is believed of the group, and what that rests on. */
export interface GroupSight {
  /** As the rules have it: holds of our own are not in it. */
  readonly epoch: Epoch;
  readonly master: MasterBelief | null;
  /** All watched addresses but second ones of known nodes. */
  readonly nodes: readonly NodeView[];
  readonly aliases: Aliases;
  readonly instances: ReadonlySet<string>;
  /** Monotonic ms: our own process has run without standing still since then. */
  readonly awakeSinceMs: number;
}

export interface WatcherParts {
  readonly clock: Clock;
  readonly createProbe: ProbeFactory;
  /** In [0, 1). */
  readonly random?: () => number;
  readonly setTimer?: SetTimer;
}

export type AdoptAnswer = { readonly ok: true } | { readonly ok: false; readonly reason: AdoptRefusal };

/**
 * Answers that arrive within so many ms are judged together, so that two nodes promoted at the same time are
 * seen as that, whichever answer comes first.
 */
const BATCH_MS = 3;
/** Second addresses of known nodes are looked at every so many ms. */
const ALIAS_EVERY_MS = 1_000;
const DEFAULT_MAX_NODES = 64;
const DEFAULT_FORGET_AFTER_MS = 60_000;
const DEFAULT_STALL_MS = 100;

interface Entry {
  view: NodeView;
  readonly probe: NodeProbe;
  inFlight: boolean;
  /** Something happened while a probe was in flight: its answer may be older than that. */
  again: boolean;
  /** The master's offset came in while a probe was in flight: only the next answer can prove that offset. */
  chase: boolean;
  /** The next probe must look at everything. */
  full: boolean;
  /** Monotonic ms of the start of the last probe. */
  startedAtMs: number;
  /** Probes that failed since the last one that brought a report. */
  failures: number;
  /** Monotonic ms: it answered, or another node mentioned it. */
  wantedAtMs: number;
  lastProblem: NodeStatus["lastProblem"];
  readonly quarrel: Quarrel;
}

export class Watcher {
  readonly #options: WatcherOptions;
  readonly #callbacks: WatcherCallbacks;
  readonly #clock: Clock;
  readonly #createProbe: ProbeFactory;
  readonly #setTimer: SetTimer;
  readonly #stallMs: number;
  readonly #proofs: ProofSeeker;
  readonly #pace: Pace;
  /** In the order in which the addresses became known. */
  readonly #entries = new Map<NodeId, Entry>();
  #belief: Belief;
  /** What was published last: the belief's epoch, or that with a hold of our own. */
  #published: Epoch;
  /** The last switch, as long as the former master may add to what is lost. */
  #aftermath: Aftermath | null = null;
  /** Since when writes are held on request, monotonic ms; null = they are not. */
  #heldSinceMs: number | null = null;
  #problems: readonly Problem[] = [];
  #cancelFlush: (() => void) | null = null;
  #sentinels: SentinelWord = NO_SENTINELS;
  #overflow: NodeId | null = null;
  #state: "new" | "running" | "closed" = "new";

  constructor(options: WatcherOptions, callbacks: WatcherCallbacks, parts: WatcherParts) {
    this.#options = options;
    this.#belief = options.belief ?? FIRST_BELIEF;
    this.#published = this.#belief.epoch;
    this.#callbacks = callbacks;
    this.#clock = parts.clock;
    this.#createProbe = parts.createProbe;
    this.#setTimer = parts.setTimer ?? systemTimer;
    this.#stallMs = options.stallMs ?? DEFAULT_STALL_MS;
    const { intervalMs, proofIntervalMs = intervalMs } = options;
    this.#proofs = new ProofSeeker({
      ...{ clock: this.#clock, setTimer: this.#setTimer },
      intervalMs: Math.min(intervalMs, proofIntervalMs),
      epoch: () => this.#belief.epoch,
      askMaster: (nowMs) => this.#askMaster(nowMs),
    });
    this.#pace = new Pace({
      clock: parts.clock,
      setTimer: this.#setTimer,
      random: parts.random ?? Math.random,
      intervalMs: options.intervalMs,
      stallMs: this.#stallMs,
      round: () => this.#round(),
    });
  }

  start(): void {
    if (this.#state !== "new") return;
    this.#state = "running";
    for (const id of this.#options.seeds) this.#watch(id, true);
    const { epoch } = this.#belief;
    if (epoch.master !== null) {
      this.#watch(epoch.master, false);
      this.#callbacks.onEpoch(epoch, Number.NEGATIVE_INFINITY);
    }
    this.#round();
  }

  /** There is no accepted work to finish, so this is destroy() for those who await. */
  async close(): Promise<void> {
    this.destroy();
  }

  destroy(): void {
    this.#state = "closed";
    this.#pace.stop();
    this.#cancelFlush?.();
    this.#proofs.close();
    for (const entry of this.#entries.values()) entry.probe.close();
  }

  current(): Epoch {
    return this.#published;
  }

  /** From now on writes are held, also while the master is well. */
  hold(): void {
    this.#heldSinceMs ??= this.#clock.nowMs();
    this.#publish(null);
    this.#pace.soon();
  }

  /** Ends `hold`: whether writes go on depends on the nodes alone. */
  release(): void {
    this.#heldSinceMs = null;
    this.#publish(null);
  }

  /** `node` was told to become the master and has not been seen to: the master is written instead. */
  renounce(node: NodeId): void {
    this.#belief = renounce(this.#belief, this.#views(), node);
  }

  group(): GroupSight {
    const { epoch, master, instances } = this.#belief;
    const views = this.#views();
    const aliases = this.#aliases();
    const nodes = views.filter(({ id }) => !aliases.has(id));
    return { epoch, master, instances, nodes, aliases, awakeSinceMs: this.#pace.stalledUntilMs };
  }

  belief(): Belief {
    return this.#belief;
  }

  /** All watched addresses, in the order in which they became known. */
  views(): readonly NodeView[] {
    return this.#views();
  }

  problems(): readonly Problem[] {
    return this.#problems;
  }

  nodes(): NodeStatus[] {
    return describeNodes(this.#belief, [...this.#entries.values()], this.#aliases(), this.#clock.nowMs());
  }

  evidence(evidence: Evidence): void {
    const entry = this.#entries.get(evidence.node);
    if (this.#state !== "running" || entry === undefined) return;
    const nowMs = this.#clock.nowMs();
    this.#belief = suspect(this.#belief, evidence, nowMs, this.#quarrelMs(entry, evidence, nowMs));
    this.#lookSoon(entry);
    this.#publish(null);
    this.#pace.soon();
  }

  #quarrelMs({ quarrel }: Entry, { node, kind }: Evidence, nowMs: number): number {
    if (kind !== "connect-failed" && kind !== "connection-lost") return 0;
    const isOpen = this.#belief.suspicions.some((open) => open.node === node);
    return quarrel.contradict(isOpen, nowMs);
  }

  hint(nodes: readonly NodeId[], denseMs = 0): void {
    if (this.#state !== "running") return;
    this.#pace.expect(denseMs);
    for (const id of nodes) {
      const entry = this.#entries.get(id);
      if (entry !== undefined) this.#lookSoon(entry);
      // Room is kept for what the nodes themselves say.
      else if (this.#entries.size < this.#maxNodes * 0.75) this.#watch(id, false);
    }
    this.#pace.soon();
  }

  /** Writes were answered that no replica is known to have, and somebody would read there. */
  seekProof(): void {
    if (this.#state === "running") this.#proofs.seek();
  }

  listen(word: SentinelWord): void {
    if (this.#state !== "running") return;
    this.#sentinels = word;
    this.#flushSoon();
  }

  adopt(node: NodeId): AdoptAnswer {
    const result = adopt(this.#belief, this.#views(), node, this.#moment());
    if (!result.ok) return result;
    this.#apply(result.decision);
    return { ok: true };
  }

  #views(): NodeView[] {
    return [...this.#entries.values()].map(({ view }) => view);
  }

  #moment() {
    const { maxLagMs, maxLagBytes = 0, rememberMs = 0 } = this.#options;
    return { nowMs: this.#clock.nowMs(), maxLagMs, maxLagBytes, rememberMs, sentinels: this.#sentinels };
  }

  get #maxNodes(): number {
    return this.#options.maxNodes ?? DEFAULT_MAX_NODES;
  }

  /** Begins to watch an address, if there is room. */
  #watch(id: NodeId, seed: boolean): void {
    if (this.#entries.has(id)) return;
    if (this.#entries.size >= this.#maxNodes) {
      this.#overflow = id;
      return;
    }
    const probe = this.#createProbe(id, {
      onFacts: (facts) => {
        if (this.#state === "running") this.#callbacks.onFacts(facts);
      },
      // A crash closes the probe's connection at once. Whether it was one, dialling tells.
      onClosed: () => this.#onClosed(id),
    });
    this.#entries.set(id, {
      view: { id, seed, contact: "never", detail: "", report: null },
      probe,
      inFlight: false,
      again: false,
      chase: false,
      full: true,
      startedAtMs: Number.NEGATIVE_INFINITY,
      failures: 0,
      wantedAtMs: this.#clock.nowMs(),
      lastProblem: null,
      quarrel: new Quarrel(),
    });
  }

  #onClosed(id: NodeId): void {
    const entry = this.#entries.get(id);
    if (this.#state !== "running" || entry === undefined) return;
    this.#lookSoon(entry);
    // What comes back may be another process with older data, so nothing is read there until it has answered.
    if (id !== this.#belief.epoch.master) {
      entry.view = { ...entry.view, contact: "closed", detail: "its connection ended" };
      this.#flush();
    }
    this.#pace.soon();
  }

  #aliases(): Aliases {
    return findAliases(this.#views(), this.#belief.epoch.master, this.#sentinels.runIds);
  }

  #lookSoon(entry: Entry): void {
    entry.full = true;
    entry.again = entry.inFlight;
  }

  #round(): void {
    if (this.#state !== "running") return;
    const nowMs = this.#clock.nowMs();
    this.#pace.began(nowMs);
    const aliases = this.#aliases();
    for (const entry of this.#entries.values()) {
      if (this.#isDue(entry, aliases.has(entry.view.id), nowMs)) this.#probe(entry, nowMs);
    }
    this.#pace.within(this.#pauseMs(nowMs));
  }

  #isDue(entry: Entry, isAlias: boolean, nowMs: number): boolean {
    if (entry.inFlight) return false;
    const sinceMs = nowMs - entry.startedAtMs;
    // Whatever does not answer is dialled at most once per interval; but a connection that was cut is dialled
    // anew at once, because only that tells whether its node is gone.
    const isFailing = entry.failures > 1 || (entry.failures === 1 && entry.view.contact !== "closed");
    if (isFailing) return sinceMs >= this.#redialMs(entry);
    return !isAlias || sinceMs >= ALIAS_EVERY_MS;
  }

  /** A refused connection costs nothing, and every write waits for the master to be back. */
  #redialMs({ view }: Entry): number {
    const isAwaited = view.id === this.#belief.epoch.master && view.contact === "unreachable";
    return (isAwaited ? this.#pace.densePauseMs : this.#options.intervalMs) * 0.8;
  }

  #pauseMs(nowMs: number): number {
    const isOdd = this.#published.holdCause !== null || this.#belief.suspicions.length > 0;
    return this.#pace.pauseMs(nowMs, isOdd);
  }

  #askMaster(nowMs: number): void {
    const { master, holdCause } = this.#belief.epoch;
    const entry = master === null ? undefined : this.#entries.get(master);
    if (holdCause !== null || entry === undefined || entry.inFlight) return;
    this.#probe(entry, nowMs);
    this.#callbacks.onProofAsked?.(nowMs);
  }

  /**
   * The master has just told its offset: a replica that is asked now proves that one, where one that was
   * asked at the same time as the master proves the offset of the round before.
   */
  #chaseMaster(): void {
    const nowMs = this.#clock.nowMs();
    if (!this.#proofs.isSeeking(nowMs)) return;
    for (const entry of this.#entries.values()) {
      const verdict = this.#belief.fitness.get(entry.view.id)?.verdict;
      if (verdict === undefined || !(verdict === "fit" || isBehind(verdict))) continue;
      if (entry.inFlight) entry.chase = true;
      else this.#probe(entry, nowMs);
    }
  }

  #probe(entry: Entry, nowMs: number): void {
    const { full } = entry;
    entry.inFlight = true;
    entry.full = false;
    entry.again = false;
    entry.chase = false;
    entry.startedAtMs = nowMs;
    entry.probe.probe(full, (outcome) => {
      if (this.#state === "running" && this.#entries.get(entry.view.id) === entry) {
        this.#onOutcome(entry, outcome);
      }
    });
  }

  #onOutcome(entry: Entry, outcome: ProbeOutcome): void {
    this.#pace.noticeStall();
    entry.inFlight = false;
    if (outcome.ok) {
      entry.view = { ...entry.view, contact: "answering", detail: "", report: outcome.report };
      entry.failures = 0;
      entry.wantedAtMs = outcome.report.receivedAtMs;
    } else {
      entry.failures++;
      entry.full = true;
      const contact = this.#contactOf(entry.view.contact, outcome.kind, outcome.startedAtMs);
      entry.view = { ...entry.view, contact, detail: outcome.detail };
      entry.lastProblem = { detail: outcome.detail, atWallMs: this.#clock.wallMs() };
    }
    if (entry.again || entry.view.contact === "closed") this.#pace.next();
    else if (outcome.ok && entry.view.id === this.#belief.epoch.master) this.#chaseMaster();
    else if (outcome.ok && entry.chase) this.#probe(entry, this.#clock.nowMs());
    this.#flushSoon();
  }

  #contactOf(before: Contact, kind: ProbeFailureKind, startedAtMs: number): Contact {
    switch (kind) {
      case "timeout": {
        const tookMs = this.#clock.nowMs() - startedAtMs;
        const stalled =
          startedAtMs < this.#pace.stalledUntilMs || tookMs > this.#options.timeoutMs + this.#stallMs;
        return stalled ? before : "silent";
      }
      // It lives and runs a script: that is no news of its role.
      case "busy":
        return before === "never" ? "silent" : before;
      case "unreachable":
      case "closed":
      case "loading":
      case "no-access":
      case "nonsense":
        return kind;
    }
  }

  #flushSoon(): void {
    if (![...this.#entries.values()].some((entry) => entry.inFlight)) {
      this.#flush();
      return;
    }
    if (this.#cancelFlush !== null) return;
    this.#cancelFlush = this.#setTimer(() => this.#flush(), BATCH_MS);
  }

  #flush(): void {
    this.#cancelFlush?.();
    this.#cancelFlush = null;
    this.#updateNodes();
    this.#apply(decide(this.#belief, this.#views(), this.#moment()));
  }

  #updateNodes(): void {
    const nowMs = this.#clock.nowMs();
    const views = this.#views();
    const found = discover(views, this.#belief.master?.replid ?? null);
    this.#overflow = null;
    for (const id of found) this.#watch(id, false);
    if (found.length > 0) this.#pace.next();
    const wanted = mentioned(views);
    for (const [id, entry] of this.#entries) {
      if (wanted.has(id)) entry.wantedAtMs = nowMs;
      const isKept = entry.view.seed || id === this.#belief.epoch.master || entry.failures === 0;
      if (isKept || nowMs - entry.wantedAtMs < (this.#options.forgetAfterMs ?? DEFAULT_FORGET_AFTER_MS)) {
        continue;
      }
      entry.probe.close();
      this.#entries.delete(id);
    }
  }

  #apply(decision: Decision): void {
    const former = this.#belief;
    const before = former.epoch;
    const { change } = decision;
    this.#belief = decision.belief;
    const { epoch } = this.#belief;
    const nowMs = this.#clock.nowMs();
    if (change !== null || (before.holdCause !== null && epoch.holdCause === null)) {
      this.#pace.settle(nowMs);
    }
    this.#pace.within(this.#pauseMs(nowMs));
    this.#publish(change?.keptUntilMs ?? null);
    if (change !== null && this.#state !== "closed") {
      const atMs = this.#clock.wallMs();
      const { kind, ...facts } = change;
      const goneSinceMs = this.#heldSinceMs ?? change.goneSinceMs;
      const masterGoneAtMs = goneSinceMs === null ? null : atMs - (nowMs - goneSinceMs);
      const told: SwitchFacts = { ...facts, atMs, epochNumber: epoch.number, masterGoneAtMs };
      if (kind === "switch") this.#callbacks.onSwitch(told);
      else this.#callbacks.onReturn(told);
      this.#aftermath = aftermathOf(former, this.#belief, change, this.#views());
    }
    this.#tellLoss();
    this.#tellProblems(decision.problems);
    if (this.#state !== "closed") this.#callbacks.onLooked?.();
  }

  #tellLoss(): void {
    const before = this.#aftermath;
    if (before === null || this.#state === "closed") return;
    this.#aftermath = followAftermath(before, this.#views());
    const { epochNumber, lostBytes } = this.#aftermath ?? before;
    if (lostBytes > before.lostBytes) this.#callbacks.onLoss?.(epochNumber, lostBytes);
  }

  /**
   * Up to when it is known what the last switch has lost, monotonic ms: the former master was asked then.
   * Infinity: it cannot add anything to it.
   */
  lossKnownAtMs(): number {
    if (this.#aftermath === null) return Number.POSITIVE_INFINITY;
    const report = this.#entries.get(this.#aftermath.node)?.view.report;
    return report?.sentAtMs ?? Number.POSITIVE_INFINITY;
  }

  /** Tells the epoch that routing is to use, when it is another one. */
  #publish(keptUntilMs: number | null): void {
    const { epoch } = this.#belief;
    const isHeld = this.#heldSinceMs !== null && epoch.holdCause === null && epoch.master !== null;
    if (!isHeld) return this.#tellEpoch(epoch, keptUntilMs);
    const last = this.#published;
    const isSame = last.holdCause === "switchover" && isSameEpoch({ ...last, holdCause: null }, epoch);
    this.#tellEpoch(isSame ? last : { ...epoch, holdCause: "switchover" }, keptUntilMs);
  }

  #tellEpoch(epoch: Epoch, keptUntilMs: number | null): void {
    if (epoch === this.#published && keptUntilMs === null) return;
    this.#published = epoch;
    if (this.#state !== "closed") this.#callbacks.onEpoch(epoch, keptUntilMs);
  }

  #tellProblems(decided: readonly Problem[]): void {
    const before = this.#problems;
    const ofNodes = nodeProblems(this.#views(), this.#aliases());
    this.#problems = distinct([...decided, ...ofNodes, ...this.#ownProblems(), ...this.#sentinels.problems]);
    for (const [problem, change] of changesOf(before, this.#problems)) {
      if (this.#state !== "closed") this.#callbacks.onProblem(problem, change);
    }
  }

  #ownProblems(): Problem[] {
    const problems: Problem[] = [];
    if (this.#overflow !== null) {
      const detail = `not watched: more than maxNodes (${this.#maxNodes})`;
      problems.push({ kind: "too-many-nodes", node: this.#overflow, detail });
    }
    if (this.#clock.nowMs() - this.#pace.stalledUntilMs < this.#options.intervalMs) {
      const detail = `the event loop stood still for ${Math.round(this.#pace.stalledForMs)} ms`;
      problems.push({ kind: "stalled", node: null, detail });
    }
    return problems;
  }
}
