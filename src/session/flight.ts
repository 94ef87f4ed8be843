/**
 * What a session has on the way, and in which order it is answered.
 *
 * All of it is on one connection at a time, so replies come in order by themselves. Three things disturb
 * that order and are put right here: requests that have to be sent again wait in `again`; replies to requests
 * behind them are kept until their turn; what the proxy itself has to say is attached to the request before
 * it.
 */
import { type Command, MASTER_READ, READ, WRITE } from "../commands/command.ts";
import { MINUS, PLUS } from "../resp/bytes.ts";
import { encodeError, encodeNullArray, OK, type Protocol } from "../resp/encode.ts";
import type { Lack } from "../routing/hold.ts";
import { type Outcome, outcomeOf, type RequestEvent } from "../routing/outcome.ts";
import { isOwnError, isRefusal, isRefusedTooOften, notRunCause, refusalCause } from "../routing/refusal.ts";
import type { Router } from "../routing/router.ts";
import { Chunk, NO_CHUNK } from "../upstream/chunk.ts";
import { LARGE_BYTES, type Lane } from "../upstream/lane.ts";
import {
  type Bond,
  EVERYTHING,
  type NotRunCause,
  type PlainKind,
  Request,
  type RequestOwner,
  type Rewrite,
  type Slots,
  type UnitFacts,
} from "../upstream/request.ts";
import { isNoScript, isReadOnly } from "./calls/scripts.ts";
import type { Output } from "./output.ts";
import { Recent } from "./recent.ts";
import { classOf, isPausable } from "./request-class.ts";
import { canHaveTwin, Twin, type TwinHost } from "./twin.ts";

/** The session a flight belongs to. */
export interface FlightHost {
  readonly isClosed: boolean;
  readonly protocol: Protocol;
  /** A request was sent again: the session got on. */
  onSent(): void;
  /** Something was answered, or has to be sent again: the session may have something to do. */
  onProgress(): void;
  /** Where to send a request again, or what to answer it; null = it has to wait (the session is blocked). */
  wayFor(request: Request): Lane | Buffer | null;
  readonly lanes: {
    /** What a read shows. */
    slotsOf(request: Request): Slots;
  };
  /** Another connection that may answer the read that is on the way; null = there is none. */
  twinLane(): Lane | null;
  /** It has answered first. */
  onTwinAnswered(lane: Lane): void;
  /** A command with a handler of its own was answered; `failed`: with an error. */
  onSpecialDone(request: Request, failed: boolean): void;
  readonly privateConnection: PrivateEvents;
  /** A request was lost several times in a row: it is sent again after a pause. */
  onLostAgain(pauseMs: number): void;
  /** A call that waited to be sent again was answered instead: what is behind it may go on. */
  onGivenUp(): void;
}

/** What the session's private connection is told of it. */
export interface PrivateEvents {
  /** What to tell the client if a frame is a message and not a reply; null = it is a reply. */
  messageIn(buf: Buffer, start: number, end: number): Buffer | null;
  /** A connection takes nothing more, for whatever reason. */
  gone(lane: Lane): void;
  /** The node will not have the call or transaction: the connection is of no use any more. */
  refused(): void;
  /** WATCH lost its connection before it was answered. */
  loseWatch(): void;
}

/** What is sent, apart from its bytes. */
export interface Sending {
  readonly command: Command;
  readonly kind: PlainKind;
  /** Replies it gets; 1 if absent. */
  readonly replies?: number;
  readonly bond?: Bond;
  /** Takes it back when the server refuses it. */
  readonly undo?: () => void;
  readonly rewrite?: Rewrite;
  readonly repair?: () => Buffer | null;
  /** Of a transaction. */
  readonly unit?: UnitFacts;
  /** What it may change, or show; EVERYTHING if absent. */
  readonly slots?: Slots;
}

/** A frame in a buffer. */
export interface Piece {
  readonly buf: Buffer;
  readonly start: number;
  readonly end: number;
  /** Nobody else will change the buffer. */
  readonly owned: boolean;
}

export class Flight implements RequestOwner, TwinHost {
  /** Requests on the way. */
  count = 0;
  /** When the last write was answered, monotonic ms. */
  lastWriteMs = Number.NEGATIVE_INFINITY;
  /** When the last read was answered, by whomever, monotonic ms. */
  lastReadMs = Number.NEGATIVE_INFINITY;
  /** The session reads from a replica: what the master shows it in between, that must have too. */
  readsReplica = false;
  /** What it has lately written, or seen at the master; null = nothing. */
  recent: Recent | null = null;
  /** The newest of those times at which a former master answered a write; NaN as long as none did. */
  lateWriteMs = Number.NaN;
  /** The connection they are on, if there are any. */
  lane: Lane | null = null;
  /** Those of them that may have an effect. */
  writes = 0;

  /**
   * The client wants no replies (CLIENT REPLY): they are dropped. What a server sends by itself is not a
   * reply. Changes only while nothing is on the way.
   */
  muted = false;

  /** A request that was moved away from a silent node is on the way: it is not moved again. */
  private moved = false;
  /** The only request on the way, once more; also when that has come to nothing. */
  private twin: Twin | null = null;
  private tail: Request | null = null;
  private again: Request[] = [];
  /** When the blocking call in `again` has waited for as long as it wanted. */
  private deadlineTimer: NodeJS.Timeout | null = null;
  private nextOrder = 0;
  private readonly host: FlightHost;
  private readonly output: Output;
  private readonly router: Router;

  constructor(host: FlightHost, output: Output, router: Router) {
    this.host = host;
    this.output = output;
    this.router = router;
  }

  /** Nothing is on the way and nothing waits to be sent again. */
  get isEmpty(): boolean {
    return this.count === 0 && this.again.length === 0;
  }

  get hasAgain(): boolean {
    return this.again.length > 0;
  }

  /** Something that it wrote was answered. */
  get hasWritten(): boolean {
    return this.lastWriteMs > Number.NEGATIVE_INFINITY;
  }

  /** Whether the last write may be lost: no switch since has proven that it survived. */
  get isWriteInDoubt(): boolean {
    const { lastWriteMs, lateWriteMs } = this;
    return this.hasWritten && (lastWriteMs === lateWriteMs || this.router.doubts.cover(lastWriteMs));
  }

  /** Whether the command waits to be sent again. */
  waitsFor(command: Command): boolean {
    return this.again.some((one) => one.command === command);
  }

  /** Bytes that wait to be sent again. */
  get againBytes(): number {
    let bytes = 0;
    for (const request of this.again) bytes += request.end - request.start;
    return bytes;
  }

  // Sending

  /** A request whose bytes lie, or will lie, in the lane's chunk. The hot path. */
  launch(command: Command, slots: Slots, lane: Lane, chunk: Chunk, start: number, end: number): void {
    const request = new Request(this, command, command.kind as PlainKind, chunk, start, end, 1);
    request.slots = slots;
    lane.push(request);
    this.sent(request, lane);
  }

  /** One frame from anywhere; a large one that is owned is not copied. */
  send(what: Sending, lane: Lane, frame: Piece): void {
    const request = new Request(this, what.command, what.kind, NO_CHUNK, 0, 0, what.replies ?? 1);
    request.bond = what.bond ?? "none";
    request.undo = what.undo ?? null;
    request.rewrite = what.rewrite ?? null;
    request.repair = what.repair ?? null;
    request.unit = what.unit ?? null;
    request.slots = what.slots ?? EVERYTHING;
    const { buf, start, end, owned } = frame;
    if (owned && end - start > LARGE_BYTES) lane.pushWhole(request, buf, start, end);
    else lane.pushCopy(request, buf, start, end);
    this.sent(request, lane);
    lane.checkCongestion();
  }

  /** A call that may wait has no connection to be sent on yet: it waits for one with its own time-out. */
  defer(what: Sending, bytes: Buffer): void {
    const { command, kind, replies, bond, rewrite } = what;
    const chunk = new Chunk(bytes, false);
    const request = new Request(this, command, kind, chunk, 0, bytes.length, replies ?? 1);
    request.bond = bond ?? "none";
    request.rewrite = rewrite ?? null;
    request.slots = what.slots ?? EVERYTHING;
    request.order = this.nextOrder++;
    this.keep(request);
  }

  private sent(request: Request, lane: Lane): void {
    this.lane = lane;
    this.count++;
    if (request.kind === WRITE) {
      this.writes++;
      this.router.counters.requests.write++;
    } else this.router.counters.requests.read++;
    if (request.bond === "blocking") request.sinceMs = this.router.nowMs();
    if (request.order < 0) request.order = this.nextOrder++;
    this.tail = request;
  }

  /** @returns false when something has to wait. */
  sendAgain(): boolean {
    if (this.again.length === 0) return true;
    if (this.count > 0) return false;
    const waiting = this.again;
    let taken = 0;
    while (taken < waiting.length && this.sendOneAgain(waiting[taken]!)) taken++;
    this.again = waiting.slice(taken);
    return this.again.length === 0;
  }

  /** @returns false when it has to wait, and what is behind it with it. */
  private sendOneAgain(request: Request): boolean {
    const { router } = this;
    if (request.refusal !== null && router.writable && isOwnError(request, router.epoch.number)) {
      const { refusal, rewrite } = request;
      this.answerNext(
        request,
        rewrite !== null && refusal[0] !== MINUS ? rewrite.replyFor(refusal) : refusal,
      );
      return true;
    }
    const known = request.rewrite?.knownReply?.() ?? null;
    if (known !== null) {
      this.answerNext(request, known);
      return true;
    }
    const lane = this.host.wayFor(request);
    if (lane === null) return false;
    if (Buffer.isBuffer(lane)) {
      this.answerNext(request, lane);
      return true;
    }
    if (request.isInDoubt) {
      const event = router.doubtOf(request, lane);
      if (event === null) {
        this.host.onLostAgain(DOUBT_CHECK_MS);
        return false;
      }
      if (this.outcomeOf(request, event) !== "again") {
        this.answerNext(request, this.uncertain());
        return true;
      }
      request.isInDoubt = false;
      router.counters.resentUnknown++;
    }
    lane.pushAgain(request);
    this.moved ||= request.moved;
    this.sent(request, lane);
    this.host.onSent();
    return true;
  }

  /**
   * What waits to be sent again is answered instead: it did not run, as far as that is known.
   * @param lacks "replica": only the first and the reads right behind it; the rest has a way.
   */
  refuseAgain(error: () => Buffer, lacks: Lack): void {
    const isOther = (one: Request, at: number): boolean => at > 0 && one.kind !== READ;
    const rest = lacks === "replica" ? this.again.findIndex(isOther) : -1;
    const refused = rest < 0 ? this.again : this.again.slice(0, rest);
    this.again = rest < 0 ? [] : this.again.slice(rest);
    for (const request of [...refused].reverse()) request.undo?.();
    for (const request of refused) {
      const isKnown = this.outcomeOf(request, "given-up") === "error";
      this.answerWith(request, isKnown ? error() : this.uncertain());
    }
  }

  /** The request is done with: a server's reply, or what the proxy says in its place. */
  private answerWith(request: Request, reply: Buffer): void {
    this.deliver(request, reply);
    if (request.command.handler !== "none") this.host.onSpecialDone(request, reply[0] === MINUS);
  }

  /** The same for the next one that was to be sent again: all before it is on the way, or answered. */
  private answerNext(request: Request, reply: Buffer): void {
    this.sayNext(reply);
    if (request.trailer !== null) this.sayNext(request.trailer);
    if (request.command.handler !== "none") this.host.onSpecialDone(request, reply[0] === MINUS);
  }

  private outcomeOf(request: Request, event: RequestEvent): Outcome {
    const { config, nowMs } = this.router;
    const policy = config.inFlight.onUnknown;
    const what = classOf(request, policy, nowMs() - request.sinceMs, config.probe.interval);
    return outcomeOf(what, event, policy, request.mayHaveRun);
  }

  private uncertain(): Buffer {
    this.router.counters.uncertain++;
    this.router.counters.proxyErrors++;
    return UNCERTAIN;
  }

  clear(): void {
    this.again = [];
    this.twin?.cancel();
    if (this.deadlineTimer !== null) clearTimeout(this.deadlineTimer);
  }

  /** What is said in the place of a request that is not sent again, behind those that were before it. */
  private sayNext(bytes: Buffer): void {
    if (this.muted) return;
    if (this.count > 0) attach(this.tail!, bytes);
    else this.output.own(bytes);
  }

  // Replies

  /** What the proxy itself says, in its place behind everything the client has asked before. */
  say(bytes: Buffer): void {
    if (this.muted) return;
    if (this.isEmpty) this.output.own(bytes);
    else attach(this.count > 0 ? this.tail! : this.again[this.again.length - 1]!, bytes);
  }

  /** A request's reply and what the proxy says behind it, now or behind what is sent again before it. */
  private deliver(request: Request, reply: Buffer): void {
    this.pass(request, reply);
    if (request.trailer !== null) this.pass(request, request.trailer);
  }

  private pass(request: Request, bytes: Buffer): void {
    if (this.muted) return;
    let before: Request | null = null;
    for (const one of this.again) if (one.order < request.order) before = one;
    if (before === null) this.output.own(bytes);
    else attach(before, bytes);
  }

  emit(buf: Buffer, start: number, end: number): void {
    if (!this.muted && !this.host.isClosed) this.output.copy(buf, start, end);
  }

  emitOwned(bytes: Buffer): void {
    if (!this.muted && !this.host.isClosed) this.output.own(bytes);
  }

  get exceptional(): boolean {
    return this.again.length > 0;
  }

  get movable(): boolean {
    return this.writes === 0 && !this.moved && !this.host.isClosed;
  }

  settled(request: Request, nowMs: number): void {
    this.left(request);
    this.answered(request, nowMs);
    if (request.command.handler !== "none") this.host.onSpecialDone(request, false);
    this.host.onProgress();
  }

  private answered(request: Request, nowMs: number): void {
    const { lane } = this;
    if (request.kind === WRITE) {
      this.lastWriteMs = nowMs;
      if (lane?.isRetiring === true) this.lateWriteMs = nowMs;
      this.rememberWrite(request.slots, nowMs);
      return;
    }
    this.lastReadMs = nowMs;
    if (!this.readsReplica || lane?.target.role !== "master") return;
    const slots = this.host.lanes.slotsOf(request);
    // Which keys it has shown is not known: no other session need wait for that. SCAN and DBSIZE name keys,
    // and show none: what is read of them may be on a replica later.
    if (slots !== EVERYTHING) this.router.freshness.saw(slots, nowMs);
    else if (request.command.plainKind === MASTER_READ) return;
    this.remember(slots, nowMs);
  }

  /** It has run, or may have: reads must show it from now on. */
  private rememberWrite(slots: Slots, nowMs: number): void {
    this.router.freshness.wrote(slots, nowMs);
    this.remember(slots, nowMs);
  }

  private remember(slots: Slots, nowMs: number): void {
    this.recent ??= new Recent();
    this.recent.add(slots, nowMs);
  }

  /** A request is not on the way any more. */
  private left(request: Request): void {
    this.count--;
    if (request.kind === WRITE) this.writes--;
    if (this.twin !== null && this.twin.original === request) {
      this.twin.cancel();
      this.twin = null;
    }
    if (this.count > 0) return;
    this.tail = null;
    this.moved = false;
  }

  overdue(request: Request): boolean {
    if (this.twin !== null || this.count !== 1 || this.exceptional || this.muted) return false;
    if (this.host.isClosed || !canHaveTwin(request)) return false;
    const lane = this.host.twinLane();
    if (lane === null) return false;
    this.twin = new Twin(request, lane, this);
    return true;
  }

  /**
   * What was sent behind the read in the meantime is answered by the first node, which may know less than
   * this one: then its own answer is waited for.
   */
  answeredBy(twin: Twin, buf: Buffer, start: number, end: number, nowMs: number): void {
    const { original } = twin;
    if (this.count !== 1 || this.exceptional || this.lane?.disown(original) !== true) return;
    this.left(original);
    this.lastReadMs = nowMs;
    this.router.counters.hedgesWon++;
    this.host.onTwinAnswered(twin.lane);
    this.emit(buf, start, end);
    if (original.trailer !== null) this.emitOwned(original.trailer);
    this.host.onProgress();
  }

  takesMessage(buf: Buffer, start: number, end: number): boolean {
    const message = this.host.privateConnection.messageIn(buf, start, end);
    if (message === null) return false;
    // A monitor's line counts as a reply, a message does not (networking.c, prepareClientToWrite).
    if (message[0] === PLUS) this.emitOwned(message);
    else if (!this.host.isClosed) this.output.own(message);
    return true;
  }

  intermediate(request: Request, buf: Buffer, start: number, end: number): void {
    if (buf[start] !== MINUS) return;
    request.queueRefusal ??= notRunCause(buf, start, end);
    request.rewrite?.firstRefused?.();
  }

  exception(request: Request, buf: Buffer, start: number, end: number, nowMs: number): boolean {
    const { lane } = this;
    this.left(request);
    if (this.host.isClosed) return false;
    const cause = this.causeIn(request, buf, start, end);
    if (request.command.script) {
      const repaired = isNoScript(buf, start, end) ? withScript(request) : null;
      if (repaired !== null) {
        this.keep(repaired);
        return false;
      }
      // A replica lacks the script, and cannot be given it: the user may not, or it is forgotten. Or it
      // refuses a function that may write, where the master has an error of its own. The master is asked.
      if (request.kind === READ && (isNoScript(buf, start, end) || isReadOnly(buf, start, end))) {
        request.kind = MASTER_READ;
        return this.keep(request);
      }
    }
    if (cause === null || isRefusedTooOften(request)) {
      // A reply to a read behind a request that is sent again would show the state before that one.
      const first = this.again[0];
      if (first !== undefined && first.order < request.order && request.kind !== WRITE)
        return this.keep(request);
      if (buf[start] === MINUS) request.undo?.();
      // What is refused now may have run the first time.
      const isRefused = cause !== null || (request.mayHaveRun && isRefusal(buf, start, end));
      const isUnknown = isRefused && this.outcomeOf(request, "refused-too-often") === "uncertain";
      const reply = isUnknown ? this.uncertain() : Buffer.from(buf.subarray(start, end));
      this.answered(request, nowMs);
      if (request.kind === WRITE && !isRefusal(buf, start, end)) this.passOver(request.order);
      this.answerWith(request, request.rewrite === null ? reply : request.rewrite.replyFor(reply));
      this.host.onProgress();
      return false;
    }
    request.refusal = Buffer.from(buf.subarray(start, end));
    if (cause === "no-replicas") return this.waitForReplicas(request);
    request.refusals++;
    // A former master's refusal may come late: it says nothing of the master of now.
    request.refusedInEpoch = lane?.target.epoch ?? -1;
    // A node that refuses a "read" as a write knows better.
    if (cause === "not-master" && request.kind === READ) {
      request.kind = WRITE;
      request.slots = EVERYTHING;
    }
    if (lane !== null) this.router.refusedBy(lane, cause);
    if (request.bond === "blocking" || request.bond === "change") this.host.privateConnection.refused();
    return this.settle(request, cause, request.refusal);
  }

  /** Why the server did not run the request, where that is about the node; null = it is the answer. */
  private causeIn(request: Request, buf: Buffer, start: number, end: number): NotRunCause | null {
    const cause =
      buf[start] === MINUS
        ? refusalCause(request, buf, start, end)
        : (request.rewrite?.refusalIn?.(buf.subarray(start, end)) ?? null);
    return cause === "no-replicas" && !this.router.isSettling ? null : cause;
  }

  /** A new master's replicas are finding it: in a moment it will have the request. */
  private waitForReplicas(request: Request): boolean {
    const isKept = this.settle(request, "no-replicas", request.refusal ?? MASTER_CHANGED);
    if (!isKept) return false;
    request.settlings++;
    this.host.onLostAgain(Math.min(MAX_SETTLE_PAUSE_MS, SETTLE_PAUSE_MS * request.settlings));
    return true;
  }

  /**
   * A write has run. What was refused before it for want of replicas must not run behind it: they
   * attached in between, and the refusals are the answers, as without the proxy.
   */
  private passOver(order: number): void {
    const passed = this.again.filter((one) => one.settlings > 0 && one.order < order);
    if (passed.length === 0) return;
    this.again = this.again.filter((one) => !passed.includes(one));
    for (const one of passed) {
      one.undo?.();
      this.answerWith(one, one.mayHaveRun ? this.uncertain() : (one.refusal ?? MASTER_CHANGED));
    }
  }

  lost(request: Request, sent: boolean): void {
    this.left(request);
    if (this.host.isClosed) return;
    if (!sent) {
      if (this.settle(request, "unsent", request.refusal ?? MASTER_CHANGED)) this.pauseAfterLosses(request);
      this.host.onProgress();
      return;
    }
    if (isPausable(request) && this.lane !== null && this.router.hasStoppedBefore(this.lane)) {
      this.settle(request, "shut-down", MASTER_CHANGED);
      this.host.onProgress();
      return;
    }
    const event = ++request.losses > MAX_LOSSES ? "lost-too-often" : "lost";
    if (request.bond === "blocking" && this.outcomeOf(request, event) === "again") {
      this.router.counters.blockingReissued++;
      // It may have got something at that very instant.
      request.mayHaveRun ||= request.kind === WRITE;
    }
    request.severed = this.lane?.severed ?? null;
    if (request.kind === WRITE) this.rememberWrite(request.slots, this.router.nowMs());
    if (this.settle(request, event, LOST_TOO_OFTEN)) this.pauseAfterLosses(request);
    this.host.onProgress();
  }

  private pauseAfterLosses(request: Request): void {
    if (request.losses <= QUICK_LOSSES) return;
    this.host.onLostAgain(Math.min(MAX_PAUSE_MS, 10 * 2 ** request.losses));
  }

  /**
   * Does with a request what the rules say.
   * @param error what it is answered if it did not run and is not sent again.
   * @returns whether it is kept, to be sent again.
   */
  private settle(request: Request, event: RequestEvent, error: Buffer): boolean {
    const { counters } = this.router;
    switch (this.outcomeOf(request, event)) {
      case "again":
        if (request.kind === WRITE) counters.resentWrites++;
        else counters.resentReads++;
        return this.keep(request);
      case "again-though-it-may-have-run":
        request.mayHaveRun = true;
        request.isInDoubt = true;
        return this.keep(request);
      case "unwatched":
        this.host.privateConnection.loseWatch();
        this.deliver(request, OK);
        break;
      case "null":
        this.deliver(request, encodeNullArray(this.host.protocol));
        this.host.onSpecialDone(request, true);
        break;
      case "error":
        request.undo?.();
        this.answerWith(request, error);
        break;
      case "uncertain":
        this.answerWith(request, this.uncertain());
        break;
    }
    this.host.onProgress();
    return false;
  }

  private keep(request: Request): true {
    const at = this.again.findIndex((one) => one.order > request.order);
    if (at < 0) this.again.push(request);
    else this.again.splice(at, 0, request);
    if (request.rewrite !== null && request.rewrite.deadlineMs !== null) {
      this.giveUpAt(request, request.rewrite.deadlineMs);
    }
    this.host.onProgress();
    return true;
  }

  /** A session has one such call at a time: it takes nothing more until that is answered. */
  private giveUpAt(request: Request, deadlineMs: number): void {
    if (this.deadlineTimer !== null) clearTimeout(this.deadlineTimer);
    // A timer may come a little early, and cannot be set as far ahead as a client may want.
    const leftMs = deadlineMs - this.router.nowMs();
    if (leftMs <= 0) this.deadlineTimer = setTimeout(() => this.giveUpWaiting(request), 0);
    else {
      const again = (): void => this.giveUpAt(request, deadlineMs);
      this.deadlineTimer = setTimeout(again, Math.min(MAX_TIMER_MS, Math.ceil(leftMs)));
    }
  }

  /**
   * The time-out of a blocking call that waits for a master is over: its answer is what a server would say.
   */
  private giveUpWaiting(request: Request): void {
    if (this.host.isClosed || !this.again.includes(request)) return;
    this.giveUp(request, this.nullReplyTo(request));
  }

  private nullReplyTo(request: Request): Buffer {
    return request.rewrite?.nullReply(this.host.protocol) ?? TIMED_OUT;
  }

  /** A call that waits to be sent again is answered instead. */
  private giveUp(request: Request, reply: Buffer): void {
    this.again.splice(this.again.indexOf(request), 1);
    this.answerWith(request, reply);
    this.host.onProgress();
    this.host.onGivenUp();
  }

  /**
   * CLIENT UNBLOCK of a call that no server has at the moment: it waits to be sent again.
   * @returns whether there is such a call.
   */
  unblock(how: "TIMEOUT" | "ERROR"): boolean {
    const request = this.again.find((one) => one.bond === "blocking");
    if (request === undefined) return false;
    this.giveUp(request, how === "ERROR" ? UNBLOCKED : this.nullReplyTo(request));
    return true;
  }

  refused(request: Request, error: Buffer): void {
    this.left(request);
    if (this.host.isClosed) return;
    this.settle(request, "login", error);
  }

  connectionGone(lane: Lane): void {
    this.host.privateConnection.gone(lane);
  }
}

/** Connections on which a read may be lost without a pause before the next, and at all. */
const QUICK_LOSSES = 2;
const MAX_LOSSES = 10;
const MAX_PAUSE_MS = 1_000;

/** Pause before a request that was refused for want of replicas is sent again: grows by the first, ms. */
const SETTLE_PAUSE_MS = 10;
const MAX_SETTLE_PAUSE_MS = 50;

/** How often it is looked whether a connection that was lost has ended at the server, ms. */
const DOUBT_CHECK_MS = 2;

/** Longest time a timer of Node's can wait, ms; a call that waits for longer outlives any hold. */
const MAX_TIMER_MS = 2 ** 31 - 1;

const TIMED_OUT = Buffer.from("*-1\r\n");

/** blocked.c, CLIENT UNBLOCK … ERROR. */
const UNBLOCKED = encodeError("UNBLOCKED client unblocked via CLIENT UNBLOCK");

const LOST_TOO_OFTEN = encodeError(
  `ERR proxy: ${MAX_LOSSES + 1} connections were lost over this command, no node answers it`,
);

const MASTER_CHANGED = encodeError(
  "ERR proxy: not run: the connection to the master it was meant for was lost before it was sent",
);

const UNCERTAIN = encodeError(
  "UNCERTAIN proxy: the connection to the master was lost before it answered: the command may or may not have run",
);

/** The same request with the script before it; null when the script is not known. */
function withScript(request: Request): Request | null {
  const bytes = request.repair?.() ?? null;
  if (bytes === null) return null;
  const { owner, command, kind, bond, order, trailer, mayHaveRun, slots } = request;
  const replies = request.rewrite?.replies ?? 2;
  const repaired = new Request(owner, command, kind, new Chunk(bytes, false), 0, bytes.length, replies);
  repaired.bond = bond;
  repaired.slots = slots;
  repaired.order = order;
  repaired.trailer = trailer;
  repaired.mayHaveRun = mayHaveRun;
  return repaired;
}

function attach(request: Request, bytes: Buffer): void {
  request.trailer = request.trailer === null ? bytes : Buffer.concat([request.trailer, bytes]);
}
