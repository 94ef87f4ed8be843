/**
 * One client, from its first byte to its last.
 *
 * Requests are taken from the input in order and given to one upstream connection at a time: a session never
 * has requests out on two of them, so replies come back in request order by themselves. What must go another
 * way waits until everything before it is answered; that is also the order the client may rely on (a read
 * must not see a write that the client sent after it).
 *
 * What cannot go on stays in the input, unparsed: a held session queues behind itself.
 */
import type { Socket } from "node:net";
import { type Command, PREFER_MASTER, READ, SPECIAL, WRITE } from "../commands/command.ts";
import type { CommandTable } from "../commands/table.ts";
import type { CloseReason, HoldOutcome } from "../metrics.ts";
import type { StreamHandler } from "../net.ts";
import { splitInline } from "../resp/args.ts";
import { encodeError, encodeRequest, PONG, type Protocol } from "../resp/encode.ts";
import { BROKEN, EMPTY, FRAME, INCOMPLETE, INLINE, RequestFramer, type RequestLimits } from "../resp/request.ts";
import type { Holdable } from "../routing/hold.ts";
import { isOwnError, isRefusedTooOften, notRunCause, outcomeOfLoss, refusalCause } from "../routing/outcome.ts";
import type { Answer, ReadTarget, Router } from "../routing/router.ts";
import type { Wakeable } from "../turn.ts";
import { type Chunk, copyBytes } from "../upstream/chunk.ts";
import { type Lane, LARGE_BYTES, type LaneWaiter } from "../upstream/lane.ts";
import type { Identity, Profile } from "../upstream/profile.ts";
import { type PlainKind, Request, type RequestOwner } from "../upstream/request.ts";
import { Output, type OutputSettings, type OutputSlab } from "./output.ts";
import { Input } from "./input.ts";
import { special } from "./special.ts";
import type { Transaction } from "./transaction.ts";

/** What all sessions share. */
export interface SessionContext {
  readonly router: Router;
  readonly table: CommandTable;
  readonly slab: OutputSlab;
  readonly output: OutputSettings;
  readonly limits: RequestLimits;
  /** Requests of one client in flight at once. */
  readonly maxPipeline: number;
  /** Input kept while the session cannot go on, before reading pauses, bytes; and the same while it is held. */
  readonly maxWaitingBytes: number;
  readonly maxHeldBytes: number;
  /** Answers PROXY …: the admin's reply, encoded. */
  readonly admin: (args: readonly Buffer[], protocol: Protocol) => Buffer;
  readonly onClose: (session: Session) => void;
  readonly onFault: (error: unknown) => void;
}

/** Why a session does not go on at the moment. */
export type Blocked =
  | "no"
  | "drain" // what is on the way must be answered first: the next request goes another way
  | "pipeline" // maxPipeline requests are on the way
  | "lane" // the connection it feeds does not drain
  | "output" // the client does not take its replies
  | "hold" // there is no node for the next request
  | "answer"; // a server is asked something on the session's behalf

export class Session implements RequestOwner, StreamHandler, Holdable, LaneWaiter, Wakeable {
  readonly id: number;
  readonly context: SessionContext;
  readonly output: Output;
  profile: Profile;
  name = "";
  /** Takes plain requests another way than straight to a lane: a transaction, a private connection. */
  transaction: Transaction | null = null;
  privateLane: Lane | null = null;
  /** WATCH holds keys on the private connection. */
  watching = false;
  /** The watched keys' connection is gone: the next EXEC is answered with null, as if a key had changed. */
  watchLost = false;
  /** What came of a question that a special command waits for; the command takes it when it runs again. */
  answer: Answer | null = null;
  /** Credentials that HELLO … AUTH has proven, until the rest of that HELLO is done. */
  provenIdentity: Identity | null = null;

  wakeQueued = false;
  /** Monotonic ms; when the oldest waiting request began to wait. 0 = not held. */
  heldSinceMs = 0;
  /** When the client last sent something, monotonic ms. */
  activeMs: number;

  private readonly socket: Socket;
  readonly router: Router;
  private readonly framer: RequestFramer;
  private readonly input = new Input();
  private blocked: Blocked = "no";
  private paused = false;
  private closed = false;
  /** The client will send nothing more. */
  private ended = false;
  /** Nothing more is taken; the session ends when all that was taken is answered. */
  private closeReason: CloseReason | null = null;
  /** The proxy is shutting down: the session ends when it has nothing more to do. */
  private draining = false;
  private lingerTimer: NodeJS.Timeout | null = null;

  /** Where the requests on the way are, if there are any. */
  private lane: Lane | null = null;
  private outstanding = 0;
  private writesOut = 0;
  private movedOut = false;
  private tail: Request | null = null;
  /** To be sent again, in order, before anything from the input. */
  private again: Request[] = [];
  /** When the last write was answered, monotonic ms; a replica must have proven to be newer. */
  private lastWriteMs = Number.NEGATIVE_INFINITY;
  private target: ReadTarget | null = null;
  private targetVersion = -1;
  /** Requests that begin before this position of the input waited too long already. */
  private expiredBefore = 0;

  constructor(id: number, socket: Socket, context: SessionContext) {
    this.id = id;
    this.socket = socket;
    this.context = context;
    this.router = context.router;
    this.framer = new RequestFramer(context.limits);
    const { turn, counters } = context.router;
    this.output = new Output({ socket, slab: context.slab, turn, settings: context.output, owner: this, counters });
    this.profile = this.router.profiles.get(this.router.identityOfNobody, 0, 2);
    this.profile.users++;
    this.activeMs = this.router.nowMs();
  }

  get protocol(): Protocol {
    return this.profile.protocol;
  }

  // Input

  onData(buf: Buffer, end: number): void {
    if (this.closed || this.closeReason !== null) return;
    this.router.counters.bytesIn += end;
    this.activeMs = this.router.nowMs();
    if (this.input.isEmpty && this.blocked === "no" && this.again.length === 0) {
      const used = this.consume(buf, 0, end, false);
      if (used < end && !this.closed) this.keep(buf, used, end);
      return;
    }
    this.keep(buf, 0, end);
    if (this.blocked === "no") this.pump();
  }

  /** Keeps input for later, and stops reading when that is more than the session may have waiting. */
  private keep(buf: Buffer, start: number, end: number): void {
    if (this.closeReason !== null) return;
    let room = true;
    if (this.heldSinceMs !== 0) {
      this.input.mark(this.activeMs, this.router.config.hold.maxTime);
      room = this.router.hold.grow(this, end - start);
    }
    this.input.append(buf, start, end, this.framer.needed);
    if (this.blocked === "no") return;
    const most = this.blocked === "hold" ? this.context.maxHeldBytes : this.context.maxWaitingBytes;
    if (!room || this.input.length >= most) this.pause();
  }

  private pause(): void {
    if (this.paused) return;
    this.paused = true;
    this.router.counters.clientsPausedNow++;
    this.socket.pause();
  }

  private resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.router.counters.clientsPausedNow--;
    if (!this.closed) this.socket.resume();
  }

  /** Goes on: what has to be sent again first, then the input. */
  private pump(): void {
    if (!this.sendAgain()) return;
    const { input } = this;
    if (!input.isEmpty && this.closeReason === null) {
      const used = this.consume(input.buffer, input.start, input.end, true);
      if (this.closed) return;
      if (this.closeReason === null) input.consume(used - input.start);
      else input.clear();
    }
    if (this.blocked !== "no") return;
    this.resume();
    if (this.outstanding === 0 && this.isOver()) this.hangUp();
  }

  private isOver(): boolean {
    return this.ended || this.closeReason !== null || (this.draining && this.input.isEmpty);
  }

  wake(): void {
    if (this.closed) return;
    switch (this.blocked) {
      case "hold":
        // What came back from a lost connection stands before the request that waits, and may have a way.
        if (this.again.length > 0 && this.outstanding === 0) this.retry();
        return;
      case "output":
      case "lane":
        return;
      case "drain":
        if (this.outstanding > 0) return;
        break;
      case "answer":
        if (this.answer === null) return;
        break;
      case "no":
      case "pipeline":
        break;
    }
    this.blocked = "no";
    this.pump();
  }

  laneDrained(): void {
    if (this.blocked === "lane") this.goOn();
  }

  outputDrained(): void {
    if (this.blocked === "output") this.goOn();
  }

  private goOn(): void {
    this.blocked = "no";
    this.router.turn.wakeLater(this);
  }

  /**
   * Takes requests from buf[from, end) until it is used up or the session is blocked.
   * @param owned nobody else will change the buffer, so that large frames need not be copied.
   * @returns the position behind the last request taken.
   */
  private consume(buf: Buffer, from: number, end: number, owned: boolean): number {
    const { framer, context } = this;
    let pos = from;
    let runStart = from;
    let run: Lane | null = null;
    let chunk: Chunk | null = null;
    let base = 0;
    if (this.output.congested) this.block("output");
    while (pos < end && this.blocked === "no" && this.closeReason === null) {
      const status = framer.next(buf, pos, end);
      if (status !== FRAME) {
        if (run !== null) this.copyRun(buf, runStart, pos, chunk!, base);
        run = null;
        if (status === INCOMPLETE) break;
        if (!this.unusualFrame(status, buf, pos)) break;
        pos = framer.end;
        continue;
      }
      const frameEnd = framer.end;
      const command = context.table.lookup(buf, framer.nameStart, framer.nameEnd);
      const kind = command.kind;
      const plain = kind !== SPECIAL && this.transaction === null && this.privateLane === null;
      const lane = plain ? this.route(kind) : null;
      if (lane === null || frameEnd - pos > LARGE_BYTES) {
        if (run !== null) this.copyRun(buf, runStart, pos, chunk!, base);
        run = null;
        if (!this.takeFrame(command, lane, buf, pos, frameEnd, owned)) break;
      } else {
        if (lane !== run || base + frameEnd - runStart > chunk!.buffer.length) {
          if (run !== null) this.copyRun(buf, runStart, pos, chunk!, base);
          run = lane;
          runStart = pos;
          chunk = lane.room(frameEnd - pos);
          base = chunk.used;
        }
        const at = base - runStart;
        const request = new Request(this, command, kind as PlainKind, chunk!, at + pos, at + frameEnd, 1);
        lane.push(request);
        this.sent(request, lane);
      }
      pos = frameEnd;
    }
    if (run !== null) {
      this.copyRun(buf, runStart, pos, chunk!, base);
      run.checkCongestion();
    }
    return pos;
  }

  private copyRun(buf: Buffer, start: number, end: number, chunk: Chunk, at: number): void {
    copyBytes(buf, start, end, chunk.buffer, at);
  }

  /** A whole frame that is large, special, or has no way. @returns false when it must wait. */
  private takeFrame(
    command: Command,
    lane: Lane | null,
    buf: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): boolean {
    if (lane !== null) {
      this.send(command, command.kind as PlainKind, lane, buf, start, end, owned);
      return true;
    }
    if (command.kind === SPECIAL || this.transaction !== null || this.privateLane !== null) {
      return special(this, command, buf, start, end, owned);
    }
    return this.noWay(command, buf, start);
  }

  /** Sends one frame that is not part of a run. */
  send(
    command: Command,
    kind: PlainKind,
    lane: Lane,
    buf: Buffer,
    start: number,
    end: number,
    owned: boolean,
    replies = 1,
  ): void {
    const request = new Request(this, command, kind, lane.room(0), 0, 0, replies);
    if (end - start > LARGE_BYTES && owned) {
      if (buf === this.input.buffer) this.input.lent = true;
      lane.pushWhole(request, buf, start, end);
    } else lane.pushCopy(request, buf, start, end);
    this.sent(request, lane);
    lane.checkCongestion();
  }

  private sent(request: Request, lane: Lane): void {
    this.lane = lane;
    this.outstanding++;
    if (request.kind === WRITE) {
      this.writesOut++;
      this.router.counters.requests.write++;
    } else this.router.counters.requests.read++;
    this.tail = request;
    if (this.heldSinceMs !== 0) this.endHold("released");
  }

  /** Anything but an array of bulk strings. @returns false when the frame must wait or the stream ended. */
  private unusualFrame(status: typeof INLINE | typeof EMPTY | typeof BROKEN, buf: Buffer, pos: number): boolean {
    if (status === EMPTY) return true;
    if (status === BROKEN) {
      this.refuseStream(this.framer.problem);
      return false;
    }
    const { end, lineEnd } = this.framer;
    const args = splitInline(buf.subarray(pos, lineEnd));
    if (args === null) {
      this.refuseStream("ERR Protocol error: unbalanced quotes in request");
      return false;
    }
    if (args.length === 0) return true;
    const frame = encodeRequest(args);
    const framer = new RequestFramer(this.context.limits);
    if (framer.next(frame, 0, frame.length) !== FRAME) {
      this.refuseStream(framer.problem);
      return false;
    }
    const command = this.context.table.lookup(frame, framer.nameStart, framer.nameEnd);
    const plain = command.kind !== SPECIAL && this.transaction === null && this.privateLane === null;
    const taken = this.takeFrame(command, plain ? this.route(command.kind) : null, frame, 0, frame.length, true);
    this.framer.end = end;
    return taken;
  }

  /** The stream cannot be read any further: the error, then the end, as Redis does it. */
  private refuseStream(problem: string): void {
    this.reply(encodeError(problem));
    const limit = problem.startsWith("ERR proxy:");
    this.finish(limit ? "request-limit" : "protocol-error");
  }

  // Ways

  /** The lane for a plain request; null when it has to wait (`blocked` says for what) or there is none. */
  route(kind: Command["kind"]): Lane | null {
    let lane: Lane | null = null;
    if (kind === READ) {
      if (this.writesOut === 0) lane = this.readLane();
    } else if (kind === PREFER_MASTER && !this.router.writable) lane = this.readLane();
    if (lane === null) {
      // Others wait for the same master: nobody overtakes them while they are let go one by one.
      if (!this.router.writable || (this.router.hold.releasing && this.heldSinceMs === 0)) return null;
      lane = this.router.masterLane(this.profile);
      if (lane === null) return null;
    }
    return this.mayUse(lane) ? lane : null;
  }

  /** Whether the session may give this lane a request now; if not, `blocked` says why. */
  mayUse(lane: Lane): boolean {
    if (this.outstanding > 0) {
      if (lane !== this.lane) return this.block("drain");
      if (this.outstanding >= this.context.maxPipeline) return this.block("pipeline");
    }
    if (lane.congested) {
      lane.waitUntilDrained(this);
      return this.block("lane");
    }
    if (this.output.congested) return this.block("output");
    return true;
  }

  private readLane(): Lane | null {
    const { router } = this;
    if (this.targetVersion !== router.version) this.chooseTarget();
    const { target } = this;
    if (target === null || router.config.reads.consistency === "strong") return null;
    if (this.lastWriteMs > target.provenAtMs && router.config.reads.consistency === "session") {
      router.counters.freshnessReads++;
      return null;
    }
    return router.readLane(this.profile, target);
  }

  /**
   * A session stays on its replica as long as that is fit, so that what it reads does not go back in time.
   * On another one it must see what it has seen: everything up to now counts as its own write.
   */
  private chooseTarget(): void {
    const { router, target: before } = this;
    const home = router.readTarget(this.id);
    const isFit = before !== null && router.isReadable(before);
    // One that is new here is moved to when it has caught up and while the master can serve in between.
    if (isFit && home !== before && (home === null || home.provenAtMs < 0 || !router.writable)) return;
    this.targetVersion = router.version;
    this.target = home;
    if (before !== null && home !== before && router.writable) this.lastWriteMs = router.nowMs();
  }

  /** @returns false, for the caller to pass on. */
  block(why: Exclude<Blocked, "no">): false {
    this.blocked = why;
    return false;
  }

  get isBlocked(): boolean {
    return this.blocked !== "no";
  }

  /** Whether nothing is on the way; if something is, the session waits for it. */
  isDrained(): boolean {
    return (this.outstanding === 0 && this.again.length === 0) || this.block("drain");
  }

  /** `route` found no lane. @returns true when the request was answered all the same. */
  noWay(command: Command, buf: Buffer, start: number): boolean {
    if (this.blocked !== "no") return false;
    // Health checks are answered while nobody can be asked.
    if (command.name === "ping" && isBare(buf, start)) {
      this.local(PONG);
      return true;
    }
    return this.wait(start);
  }

  /**
   * The next request, at `start` of the input, has no node to go to: the session is held, unless the request
   * waited too long already or there is no room. @returns true when it was answered.
   */
  wait(start: number): boolean {
    const position = this.input.positionOf(start);
    if (this.draining || position < this.expiredBefore) {
      this.local(this.waitedInVain());
      return true;
    }
    if (this.router.writable && this.router.pool.isFull) {
      this.refuse(`ERR proxy: no more upstream connections, upstream.maxLanes (${this.router.config.upstream.maxLanes})`);
      return true;
    }
    if (this.hold(this.input.arrivalOf(position) ?? this.router.nowMs())) return false;
    this.local(this.masterDown(`no room to wait for a master, hold.maxBytes (${this.router.config.hold.maxBytes} bytes)`));
    return true;
  }

  private waitedInVain(): Buffer {
    if (this.draining) return this.masterDown("no master, and the proxy is shutting down");
    return this.masterDown(`no master within hold.maxTime (${this.router.config.hold.maxTime} ms)`);
  }

  private masterDown(why: string): Buffer {
    this.router.counters.proxyErrors++;
    return encodeError(`MASTERDOWN proxy: not run: ${why}`);
  }

  // Hold

  /** @returns false when there is no room. */
  private hold(sinceMs: number): boolean {
    this.blocked = "hold";
    // A client that will send nothing more and waits is as good as gone.
    if (this.ended) this.destroy("client");
    if (this.heldSinceMs !== 0 || this.closed) return true;
    this.heldSinceMs = sinceMs;
    if (this.router.hold.add(this)) return true;
    this.heldSinceMs = 0;
    this.blocked = "no";
    return false;
  }

  /** The proxy is shutting down: what is on the way is answered, what waits for a master is refused. */
  drain(): void {
    if (this.closed || this.draining) return;
    this.draining = true;
    if (this.heldSinceMs !== 0) this.expire(Number.POSITIVE_INFINITY);
    this.router.turn.wakeLater(this);
  }

  private endHold(outcome: HoldOutcome): void {
    if (this.heldSinceMs === 0) return;
    this.heldSinceMs = 0;
    if (outcome !== "expired") this.input.forgetMarks();
    this.router.hold.remove(this, outcome);
  }

  heldBytes(): number {
    let bytes = this.input.length;
    for (const request of this.again) bytes += request.end - request.start;
    return bytes;
  }

  retry(): void {
    if (this.closed || this.blocked !== "hold") return;
    this.blocked = "no";
    this.pump();
    if (this.blocked === "no") this.endHold("released");
  }

  /** Requests that have waited since before `cutoffMs` are answered; later ones go on waiting. */
  expire(cutoffMs: number): void {
    if (this.closed) return;
    const position = this.input.firstAfter(cutoffMs);
    this.endHold("expired");
    this.expiredBefore = position;
    const expired = this.again;
    this.again = [];
    for (const request of expired) {
      this.local(this.waitedInVain());
      if (request.trailer !== null) this.local(request.trailer);
    }
    if (this.blocked !== "hold") return;
    this.blocked = "no";
    this.pump();
  }

  // Replies

  /** A reply of the proxy itself, in its place behind what is on the way. */
  local(bytes: Buffer): void {
    this.router.counters.requests.local++;
    this.reply(bytes);
  }

  /** An error of the proxy itself to a request that was not run. */
  refuse(text: string): void {
    this.router.counters.requests.refused++;
    this.router.counters.proxyErrors++;
    this.reply(encodeError(text));
  }

  private reply(bytes: Buffer): void {
    const last = this.again.length > 0 && this.outstanding === 0 ? this.again[this.again.length - 1]! : this.tail;
    if (last === null || (this.outstanding === 0 && this.again.length === 0)) this.output.own(bytes);
    else last.trailer = last.trailer === null ? bytes : Buffer.concat([last.trailer, bytes]);
  }

  emit(buf: Buffer, start: number, end: number): void {
    if (!this.closed) this.output.copy(buf, start, end);
  }

  emitOwned(bytes: Buffer): void {
    if (!this.closed) this.output.own(bytes);
  }

  get exceptional(): boolean {
    return this.again.length > 0;
  }

  get movable(): boolean {
    return this.writesOut === 0 && !this.movedOut && !this.closed;
  }

  settled(request: Request, nowMs: number): void {
    this.left(request);
    if (request.kind === WRITE) this.lastWriteMs = nowMs;
    if (request.command.handler !== "none") this.specialDone(request);
    if (this.blocked !== "no" || this.ended || this.draining || this.closeReason !== null) this.mayGoOn();
  }

  /** The answer to a question of a special command. */
  answered(answer: Answer): void {
    this.answer = answer;
    this.router.turn.wakeLater(this);
  }

  /** A request is not on the way any more. */
  private left(request: Request): void {
    this.outstanding--;
    if (request.kind === WRITE) this.writesOut--;
    if (this.outstanding === 0) {
      this.tail = null;
      this.movedOut = false;
    }
  }

  private mayGoOn(): void {
    if (this.outstanding === 0 || (this.blocked === "pipeline" && this.outstanding * 2 < this.context.maxPipeline)) {
      this.router.turn.wakeLater(this);
    }
  }

  intermediate(request: Request, buf: Buffer, start: number, end: number): void {
    if (buf[start] === 45) request.queueRefusal ??= notRunCause(buf, start, end);
  }

  exception(request: Request, buf: Buffer, start: number, end: number, nowMs: number): boolean {
    if (this.closed) {
      this.left(request);
      return false;
    }
    const cause = buf[start] === 45 ? refusalCause(request, buf, start, end) : null;
    const lane = this.lane;
    this.left(request);
    if (cause === null || isRefusedTooOften(request)) {
      // It follows a request that is sent again: a reply to a read would show the state before that one.
      if (this.again.length > 0 && request.kind !== WRITE) return this.keepForAgain(request);
      this.answerInOrder(request, buf, start, end, nowMs);
      return false;
    }
    request.refusals++;
    request.refusal = Buffer.from(buf.subarray(start, end));
    request.refusedInEpoch = this.router.epoch.number;
    // A node that refuses a "read" as a write knows better.
    if (cause === "not-master" && request.kind === READ) request.kind = WRITE;
    if (request.kind === WRITE) this.router.counters.resentWrites++;
    if (lane !== null) this.router.refusedBy(lane, cause);
    return this.keepForAgain(request);
  }

  private answerInOrder(request: Request, buf: Buffer, start: number, end: number, nowMs: number): void {
    if (this.again.length === 0) {
      this.output.copy(buf, start, end);
      if (request.trailer !== null) this.output.own(request.trailer);
    } else {
      this.behindAgain(Buffer.from(buf.subarray(start, end)));
      if (request.trailer !== null) this.behindAgain(request.trailer);
    }
    if (request.kind === WRITE) this.lastWriteMs = nowMs;
    if (request.command.handler !== "none") this.specialDone(request);
    this.mayGoOn();
  }

  private behindAgain(bytes: Buffer): void {
    const last = this.again[this.again.length - 1]!;
    last.trailer = last.trailer === null ? bytes : Buffer.concat([last.trailer, bytes]);
  }

  private keepForAgain(request: Request): true {
    this.again.push(request);
    this.router.turn.wakeLater(this);
    if (this.blocked === "no") this.blocked = "drain";
    return true;
  }

  lost(request: Request, sent: boolean): void {
    this.left(request);
    if (this.closed) return;
    if (outcomeOfLoss(request.kind, sent) === "send-again") {
      if (sent) this.router.counters.resentReads++;
      this.keepForAgain(request);
      return;
    }
    this.router.counters.uncertain++;
    this.router.counters.proxyErrors++;
    const error = encodeError(
      "UNCERTAIN proxy: the connection to the master was lost before it answered: the command may or may not have run",
    );
    if (this.again.length === 0) this.output.own(error);
    else this.behindAgain(error);
    if (request.trailer !== null) {
      if (this.again.length === 0) this.output.own(request.trailer);
      else this.behindAgain(request.trailer);
    }
    this.router.turn.wakeLater(this);
  }

  refused(request: Request, error: Buffer): void {
    this.left(request);
    if (this.closed) return;
    if (this.again.length === 0) {
      this.output.own(error);
      if (request.trailer !== null) this.output.own(request.trailer);
    } else {
      this.behindAgain(error);
      if (request.trailer !== null) this.behindAgain(request.trailer);
    }
    this.router.turn.wakeLater(this);
  }

  /** @returns false when something has to wait. */
  private sendAgain(): boolean {
    if (this.again.length === 0) return true;
    if (this.outstanding > 0) return this.block("drain");
    const waiting = this.again;
    let taken = 0;
    for (const request of waiting) {
      if (!this.sendOneAgain(request)) break;
      taken++;
    }
    this.again = waiting.slice(taken);
    return this.again.length === 0;
  }

  /** @returns false when it has to wait. */
  private sendOneAgain(request: Request): boolean {
    if (isOwnError(request, this.router.epoch.number) && this.router.writable && request.refusal !== null) {
      this.output.own(request.refusal);
      if (request.trailer !== null) this.output.own(request.trailer);
      return true;
    }
    const lane = this.route(request.kind);
    if (lane === null) {
      if (this.blocked === "no") this.hold(this.heldSinceMs === 0 ? this.router.nowMs() : this.heldSinceMs);
      if (this.blocked === "no") this.blocked = "drain";
      return false;
    }
    lane.pushAgain(request);
    this.movedOut ||= request.moved;
    this.sent(request, lane);
    return true;
  }

  /** A private connection's call is over. */
  private specialDone(request: Request): void {
    const { handler } = request.command;
    if (handler === "blocking" || handler === "xread") {
      if (!this.watching) this.dropPrivate();
    } else if (handler === "exec" || handler === "unwatch") this.dropPrivate();
  }

  /** Ends the private connection on our side. */
  dropPrivate(): void {
    const lane = this.privateLane;
    this.privateLane = null;
    this.watching = false;
    // The lane may be in the middle of handing out replies.
    if (lane !== null) setImmediate(() => lane.destroy());
  }

  connectionGone(): void {
    const lane = this.privateLane;
    if (lane === null || this.closed) return;
    this.privateLane = null;
    if (this.watching) this.watchLost = true;
    this.watching = false;
    if (lane.streaming) this.finish("upstream-lost");
  }

  // Settings

  /** From now on requests go through connections of this profile. */
  useProfile(profile: Profile): void {
    profile.users++;
    this.profile.users--;
    this.profile = profile;
  }

  // Life

  onEnd(): void {
    this.ended = true;
    // A client that left while it waits is not waited for: its requests are dropped.
    if (this.blocked === "hold" || this.privateLane !== null) return this.destroy("client");
    this.router.turn.wakeLater(this);
  }

  onClose(): void {
    if (this.lingerTimer !== null) clearTimeout(this.lingerTimer);
    this.destroy("client");
  }

  onFault(error: unknown): void {
    this.context.onFault(error);
  }

  /** Nothing on the way, nothing waiting, no stream of messages, and not a byte since `beforeMs`. */
  isIdleSince(beforeMs: number): boolean {
    const waiting = this.outstanding > 0 || this.blocked !== "no" || this.privateLane !== null;
    return !waiting && this.activeMs < beforeMs;
  }

  outputOverflow(): void {
    this.destroy("output-limit");
  }

  /** Takes nothing more; closes when everything on the way is answered. */
  finish(reason: CloseReason): void {
    if (this.closed || this.closeReason !== null) return;
    this.closeReason = reason;
    this.router.turn.wakeLater(this);
  }

  /** Everything is answered: the rest of the output, then the end. */
  private hangUp(): void {
    this.output.flush();
    this.socket.end();
    this.gone(this.closeReason ?? "client");
    // A client that does not read its last replies does not keep its connection for ever.
    this.lingerTimer = setTimeout(() => this.socket.destroy(), LINGER_MS);
  }

  /** Ends at once; what is on the way is answered to nobody. */
  destroy(reason: CloseReason): void {
    if (this.closed) return;
    this.socket.destroy();
    this.gone(reason);
  }

  private gone(reason: CloseReason): void {
    this.closed = true;
    this.endHold(reason === "client" ? "left" : "failed");
    this.resume();
    this.router.counters.closed[reason]++;
    this.profile.users--;
    this.input.clear();
    this.again = [];
    this.transaction = null;
    this.privateLane?.destroy();
    this.privateLane = null;
    this.context.onClose(this);
  }
}

/** How long a client may take to read its last replies after the proxy has nothing more to say, ms. */
const LINGER_MS = 10_000;

/** "PING" without an argument: the frame begins with one element. */
function isBare(buf: Buffer, start: number): boolean {
  return buf[start + 1] === 49 && buf[start + 2] === 13;
}
