import { strict as assert } from "node:assert";
import type { Socket } from "node:net";
import { READ, WRITE } from "../commands/command.ts";
import type { Address } from "../config/address.ts";
import { dial, type StreamHandler } from "../net.ts";
import { GREATER, MINUS } from "../resp/bytes.ts";
import { REPLY_BROKEN, ReplyFramer } from "../resp/reply.ts";
import type { NodeId } from "../topology/epoch.ts";
import type { Flushable, Turn } from "../turn.ts";
import { Chunk, type ChunkPool, copyBytes } from "./chunk.ts";
import { Handshake } from "./handshake.ts";
import { NodeMeter } from "./meter.ts";
import { PartialReply } from "./partial.ts";
import type { Profile } from "./profile.ts";
import { NOBODY, Request, type RequestOwner } from "./request.ts";
import { killRequests, type Severed, type SeveredConnections } from "./severed.ts";

/**
 * One upstream connection: requests go out in order, replies come back in the same order. Shared by many
 * sessions, or private to one. It belongs to the epoch it was opened in and never changes its node.
 *
 * A lane takes requests from the moment it is made; they leave once the handshake is accepted.
 */

/** What a lane is for. Nothing is written through a "master" lane once the epoch has another master. */
export type LaneRole = "master" | "reader";

/** Why a lane ended without our doing. */
export type LaneLoss =
  | "connect-failed"
  | "connection-lost"
  | "not-master"
  | "loading"
  | "link-down"
  | "timeout";

/** Who looks after lanes. */
export interface LaneKeeper {
  /** It ended without our doing; called before its requests are given back to their owners. */
  laneLost(lane: Lane, why: LaneLoss): void;
  /** The server has let it in. */
  laneOpened(lane: Lane): void;
  /** Requests were handed to the socket, so many of them reads that a replica may serve. */
  laneSent(lane: Lane, requests: number, reads: number): void;
  /** It ended, for whatever reason. */
  laneClosed(lane: Lane): void;
  /** A handler threw: a bug. */
  laneFault(lane: Lane, error: unknown): void;
}

/** A session that waits for a congested lane. */
export interface LaneWaiter {
  laneDrained(): void;
}

export interface LaneSettings {
  readonly connectTimeoutMs: number;
  /** How long a request may stay unanswered; 0 = for ever. */
  readonly requestTimeoutMs: number;
  /** How long a read may stay unanswered before its owner is told; 0 = for ever. */
  readonly hedgeMs: number;
  readonly keepAliveMs: number;
  /** Bytes that may wait to be written before the feeding sessions are paused. */
  readonly maxUnsentBytes: number;
  /** Requests that may be unanswered before the feeding sessions are paused. */
  readonly maxInFlight: number;
  /** Largest reply kept for a client; a larger one is replaced by an error. */
  readonly maxReplyBytes: number;
}

export interface LaneContext {
  readonly settings: LaneSettings;
  readonly chunks: ChunkPool;
  readonly turn: Turn;
  readonly keeper: LaneKeeper;
  readonly severed: SeveredConnections;
  nowMs(): number;
  /** The one of this node that all shared connections to it keep. */
  meterOf(node: NodeId): NodeMeter;
}

export interface LaneTarget {
  readonly node: NodeId;
  readonly address: Address;
  readonly role: LaneRole;
  /** The epoch's number and, for the master, the replication id that was verified. */
  readonly epoch: number;
  readonly replid: string | null;
  readonly profile: Profile;
  /** One session at a time has it for itself. */
  readonly isPrivate: boolean;
}

type LaneState = "connecting" | "open" | "closed";

const NOTHING = Buffer.alloc(0);

/**
 * Size of a private connection's chunks, bytes: one session's requests lie there, few and small, and there
 * may be thousands of such connections.
 */
const PRIVATE_CHUNK_BYTES = 512;

/** From this size on a request is not copied again, its buffer is taken over. */
export const LARGE_BYTES = 16 * 1024;

/** Every so many requests of a reader, at most, one is timed; one at a time. */
const SAMPLE_EVERY = 8;

/** What private connections keep: nobody looks at it. */
const UNREAD = new NodeMeter();

/** How often a request time-out is looked for, ms. */
const TIMEOUT_CHECK_MS = 100;

export class Lane implements Flushable, StreamHandler {
  readonly target: LaneTarget;
  flushQueued = false;
  /** Names of scripts that this connection's server was given through it. */
  readonly scripts = new Set<string>();
  /** Requests not yet answered. */
  inFlight = 0;
  /**
   * More waits to be written, or to be answered, than the settings allow; sessions must not feed it until
   * `laneDrained`.
   */
  congested = false;
  /**
   * A subscriber's, a monitor's or a tracking client's connection: its owner looks at each frame whether it
   * is a message.
   */
  carriesMessages = false;
  /** A master's connection's number at the server (CLIENT ID), once it is open. */
  serverId: number | null = null;
  /** When something last came from the server, monotonic ms; -Infinity = never. */
  lastHeardMs = Number.NEGATIVE_INFINITY;
  /** All that the server has sent has arrived: it has ended the connection itself, and in order. */
  isFinished = false;
  /** What is left of it at the server when it was lost with writes unanswered; null = nothing. */
  severed: Severed | null = null;
  /**
   * Its session changed it (its user, database or protocol, what it watches) in a way that another of the
   * same profile must not meet: it ends with its use.
   */
  spoilt = false;
  /** What it takes is not written yet: others must be written before (see `Convoy`). */
  lined = false;
  /** Whose private connection it is: told what belongs to no request, and when it ends. */
  owner: RequestOwner | null = null;

  private state: LaneState = "connecting";
  private retiring = false;
  /** Nobody cares any more for what arrives, nor that it ends. */
  private dropped = false;
  private readonly context: LaneContext;
  private readonly socket: Socket;
  private handshake: Handshake | null;
  /** Lost connections whose end the server was asked for, in that order. */
  private ending: Severed[] = [];
  private connected = false;
  private timer: NodeJS.Timeout | null;

  private first: Request | null = null;
  private last: Request | null = null;
  /** The first request of which no byte was handed to the socket. */
  private firstUnsent: Request | null = null;
  /** Chunks with bytes to be written, the last one being filled. */
  private readonly unwritten: Chunk[] = [];
  private chunk: Chunk;
  private waiters: LaneWaiter[] = [];
  private awaitingDrain = false;
  /** Requests taken since the last flush. */
  private taken = 0;
  /** Those of them that a replica may serve. */
  private takenReads = 0;

  private readonly isStamping: boolean;
  private readonly meter: NodeMeter;
  /** Requests until one is timed again; a lane that is not a reader never gets there. */
  private untilSample = 0;
  private sample: Request | null = null;
  private sampledMs = 0;

  private readonly framer = new ReplyFramer();
  private readonly partial: PartialReply;

  constructor(target: LaneTarget, context: LaneContext) {
    this.target = target;
    this.context = context;
    this.chunk = this.takeChunk(0);
    const { requestTimeoutMs, hedgeMs } = context.settings;
    this.isStamping = requestTimeoutMs > 0 || (hedgeMs > 0 && target.role === "reader");
    this.meter = target.isPrivate ? UNREAD : context.meterOf(target.node);
    if (target.role === "reader" && !target.isPrivate) this.untilSample = 1;
    this.partial = new PartialReply(this.framer, context.settings.maxReplyBytes);
    const replid = target.role === "master" ? target.replid : null;
    this.handshake = new Handshake(target.profile, replid, target.isPrivate || target.role === "master");
    const { connectTimeoutMs, keepAliveMs } = context.settings;
    this.timer = setTimeout(() => this.fail("connect-failed"), connectTimeoutMs);
    this.socket = dial({ address: target.address, keepAliveMs, onConnect: () => this.onConnect() }, this);
  }

  get isRetiring(): boolean {
    return this.retiring;
  }

  /** The server has let it in. */
  get wasOpen(): boolean {
    return this.handshake === null;
  }

  get isClosed(): boolean {
    return this.state === "closed";
  }

  get isOpen(): boolean {
    return this.state === "open";
  }

  /** Whether a private connection is as good as a new one for the next session of its profile. */
  get isClean(): boolean {
    if (this.spoilt || this.carriesMessages || this.retiring || this.dropped) return false;
    return this.state === "open" && this.inFlight === 0;
  }

  /** The chunk being filled, with room for `bytes` more behind `used`. */
  room(bytes: number): Chunk {
    const chunk = this.chunk;
    // All that was in it is answered, hence written: it can be filled from its start.
    if (chunk.refs === 1 && chunk.used === chunk.flushed && !this.awaitingDrain) {
      chunk.used = 0;
      chunk.flushed = 0;
    }
    if (chunk.used + bytes <= chunk.buffer.length) return chunk;
    return this.replaceChunk(bytes);
  }

  /** A chunk with bytes to be written is let go by `flush`, any other at once. */
  private replaceChunk(bytes: number): Chunk {
    if (this.chunk.used === this.chunk.flushed) this.context.chunks.release(this.chunk);
    this.chunk = this.takeChunk(bytes);
    return this.chunk;
  }

  private takeChunk(bytes: number): Chunk {
    if (!this.target.isPrivate) return this.context.chunks.take(bytes);
    return new Chunk(Buffer.allocUnsafeSlow(Math.max(bytes, PRIVATE_CHUNK_BYTES)), false);
  }

  /** Takes a request whose bytes lie (or will lie before the turn ends) in a chunk that `room` gave. */
  push(request: Request): void {
    assert(this.state !== "closed", "a request was given to a closed lane");
    request.chunk.refs++;
    this.append(request.chunk, request.end);
    request.next = null;
    if (this.isStamping) request.sinceMs = this.context.nowMs();
    if (this.last === null) this.first = request;
    else this.last.next = request;
    this.last = request;
    if (this.firstUnsent === null) this.firstUnsent = request;
    this.inFlight++;
    this.taken++;
    if (request.kind === READ) this.takenReads++;
    this.meter.outstanding++;
    if (this.untilSample > 0 && --this.untilSample === 0) this.takeSample(request);
  }

  /** Times this request if it tells something: others may take long by themselves. */
  private takeSample(request: Request): void {
    if (request.kind !== READ || this.state !== "open") {
      this.untilSample = 1;
      return;
    }
    this.sample = request;
    this.sampledMs = this.context.nowMs();
  }

  private endSample(): void {
    this.meter.add(this.lastHeardMs - this.sampledMs);
    this.sample = null;
    this.untilSample = SAMPLE_EVERY;
  }

  /** Since when the request that is timed is unanswered, monotonic ms; null = none is. */
  get sampledSinceMs(): number | null {
    return this.sample === null ? null : this.sampledMs;
  }

  /** Bytes up to `end` of a chunk are to be written. */
  private append(chunk: Chunk, end: number): void {
    if (chunk.used < end) chunk.used = end;
    const unwritten = this.unwritten;
    if (unwritten.length === 0 || unwritten[unwritten.length - 1] !== chunk) unwritten.push(chunk);
    if (!this.flushQueued) this.context.turn.flushLater(this);
  }

  /**
   * Takes a request whose bytes lie in a buffer that nobody will change, without copying it. For large ones,
   * and for those that were sent elsewhere before.
   */
  pushWhole(request: Request, buffer: Buffer, start: number, end: number): void {
    // What comes later must not be written before it: the chunk being filled ends here.
    if (this.chunk.used > this.chunk.flushed) this.replaceChunk(0);
    const chunk = new Chunk(buffer, false);
    chunk.flushed = start;
    request.chunk = chunk;
    request.start = start;
    request.end = end;
    this.push(request);
  }

  /** Copies a request that lies elsewhere into the log and takes it. */
  pushCopy(request: Request, source: Buffer, start: number, end: number): void {
    const chunk = this.room(end - start);
    const at = chunk.used;
    copyBytes(source, start, end, chunk.buffer, at);
    request.chunk = chunk;
    request.start = at;
    request.end = at + end - start;
    this.push(request);
  }

  /** Takes a request that was in another lane before; its bytes move here. */
  pushAgain(request: Request): void {
    const { chunk, start, end } = request;
    request.queueRefusal = null;
    if (request.rewrite !== null) {
      const bytes = request.rewrite.requestFor(this.target.replid ?? "");
      request.replyCount = request.rewrite.replies;
      request.replies = request.replyCount;
      this.pushCopy(request, bytes, 0, bytes.length);
      this.context.chunks.release(chunk);
      return;
    }
    request.replies = request.replyCount;
    if (end - start > LARGE_BYTES) return this.pushWhole(request, chunk.buffer, start, end);
    this.pushCopy(request, chunk.buffer, start, end);
    this.context.chunks.release(chunk);
  }

  flush(): void {
    if (this.state !== "open" || this.awaitingDrain || this.lined || this.dropped) return;
    for (const chunk of this.unwritten) {
      if (chunk.flushed < chunk.used) this.socket.write(chunk.buffer.subarray(chunk.flushed, chunk.used));
      chunk.flushed = chunk.used;
      if (chunk !== this.chunk) this.context.chunks.release(chunk);
    }
    this.unwritten.length = 0;
    this.firstUnsent = null;
    this.context.keeper.laneSent(this, this.taken, this.takenReads);
    this.taken = 0;
    this.takenReads = 0;
    // Written to the kernel at once is the common case; else what follows waits here, where it counts as
    // unsent.
    if (this.socket.writableLength > 0) this.waitForDrain();
    else this.relieve();
  }

  private waitForDrain(): void {
    this.awaitingDrain = true;
    this.socket.write(NOTHING, () => {
      this.awaitingDrain = false;
      this.flush();
      this.relieve();
    });
  }

  /** The sessions that wait for it may feed it again, or look elsewhere if it is closed. */
  private drained(): void {
    this.congested = false;
    const waiters = this.waiters;
    this.waiters = [];
    for (const waiter of waiters) waiter.laneDrained();
  }

  /** Call after pushing: sets `congested` when too much waits. */
  checkCongestion(): void {
    const { maxInFlight, maxUnsentBytes } = this.context.settings;
    if (this.inFlight >= maxInFlight) this.congested = true;
    else if (this.isBehind && this.unsentBytes() > maxUnsentBytes) this.congested = true;
  }

  /** What it takes cannot be written in this turn. */
  private get isBehind(): boolean {
    return this.awaitingDrain || this.lined || this.state !== "open";
  }

  /** Ends the congestion when half of what is allowed is left. */
  private relieve(): void {
    const { maxInFlight, maxUnsentBytes } = this.context.settings;
    if (!this.congested || this.inFlight * 2 > maxInFlight) return;
    if (!this.isBehind || this.unsentBytes() * 2 < maxUnsentBytes) this.drained();
  }

  waitUntilDrained(waiter: LaneWaiter): void {
    this.waiters.push(waiter);
  }

  private unsentBytes(): number {
    let bytes = this.socket.writableLength;
    for (const chunk of this.unwritten) bytes += chunk.used - chunk.flushed;
    return bytes;
  }

  // Receiving

  onData(buf: Buffer, end: number): void {
    if (this.state === "closed" || this.dropped) return;
    this.lastHeardMs = this.context.nowMs();
    let pos = 0;
    while (this.partial.active && pos < end) {
      pos = this.partial.append(buf, pos, end);
      const complete = this.partial.complete();
      if (complete === REPLY_BROKEN) return this.fail("connection-lost");
      if (complete === null) continue;
      pos -= this.partial.surplus;
      this.largeReply(complete);
      if (this.isClosed) return;
    }
    if (pos < end) this.replies(buf, pos, end);
  }

  /** Replies that lie whole in the read buffer; runs for the same session are emitted in one piece. */
  private replies(buf: Buffer, from: number, end: number): void {
    const nowMs = this.lastHeardMs;
    let pos = from;
    let runOwner: RequestOwner | null = null;
    let runStart = from;
    while (pos < end) {
      const replyEnd = this.framer.next(buf, pos, end);
      if (replyEnd < 0) {
        if (runOwner !== null) runOwner.emit(buf, runStart, pos);
        if (replyEnd === REPLY_BROKEN) return this.fail("connection-lost");
        this.partial.start(buf, pos, end);
        return;
      }
      const request = this.first;
      const type = buf[pos];
      if (request === null || type === MINUS || type === GREATER || this.exceptional(request)) {
        if (runOwner !== null) runOwner.emit(buf, runStart, pos);
        runOwner = null;
        this.unusualReply(buf, pos, replyEnd, nowMs);
        if (this.isClosed) return;
      } else {
        const owner = request.owner;
        if (owner !== runOwner) {
          if (runOwner !== null) runOwner.emit(buf, runStart, pos);
          runOwner = owner;
          runStart = pos;
        }
        this.shift(request);
        if (request.trailer !== null) {
          owner.emit(buf, runStart, replyEnd);
          runOwner = null;
          owner.emitOwned(request.trailer);
        }
        owner.settled(request, nowMs);
        this.context.chunks.release(request.chunk);
      }
      pos = replyEnd;
    }
    if (runOwner !== null) runOwner.emit(buf, runStart, pos);
    if (this.congested) this.relieve();
    if (this.retiring && this.inFlight === 0) this.destroy();
  }

  private exceptional(request: Request): boolean {
    return (
      request.replies > 1 ||
      request.rewrite !== null ||
      request.owner.exceptional ||
      this.handshake !== null ||
      this.carriesMessages
    );
  }

  private unusualReply(buf: Buffer, start: number, end: number, nowMs: number): void {
    if (this.handshake !== null) return this.onHandshakeReply(buf.subarray(start, end));
    const { owner } = this;
    const isPush = buf[start] === GREATER;
    if ((isPush || this.carriesMessages) && owner?.takesMessage(buf, start, end) === true) return;
    // A push is never a reply, not even to DEBUG PROTOCOL PUSH, which has one besides (debug.c): what nobody
    // takes is dropped. Only to a subscriber the server confirms with pushes.
    if (isPush && !this.carriesMessages) return;
    const request = this.first;
    if (request === null) return this.fail("connection-lost");
    // Refused as a whole, a command that is confirmed name by name gets one reply.
    if (request.confirmsEach && buf[start] === MINUS) request.replies = 1;
    if (request.replies > 1) {
      request.owner.intermediate(request, buf, start, end);
      request.replies--;
      return;
    }
    this.shift(request);
    const kept = request.owner.exception(request, buf, start, end, nowMs);
    if (!kept) this.context.chunks.release(request.chunk);
    if (this.retiring && this.inFlight === 0) this.destroy();
  }

  /** A reply that came in several reads; it is kept in a buffer of its own, which the owner may take over. */
  private largeReply(reply: Buffer): void {
    const nowMs = this.lastHeardMs;
    const request = this.first;
    if (request === null || reply[0] === MINUS || reply[0] === GREATER || this.exceptional(request)) {
      return this.unusualReply(reply, 0, reply.length, nowMs);
    }
    this.shift(request);
    request.owner.emitOwned(reply);
    if (request.trailer !== null) request.owner.emitOwned(request.trailer);
    request.owner.settled(request, nowMs);
    this.context.chunks.release(request.chunk);
    if (this.retiring && this.inFlight === 0) this.destroy();
  }

  private shift(request: Request): void {
    this.first = request.next;
    if (this.first === null) this.last = null;
    request.next = null;
    this.inFlight--;
    this.meter.outstanding--;
    if (request === this.sample) this.endSample();
  }

  // Life

  private onConnect(): void {
    this.connected = true;
    if (this.handshake !== null) this.socket.write(this.handshake.bytes);
  }

  private onHandshakeReply(reply: Buffer): void {
    const asked = this.ending.shift();
    if (asked !== undefined) {
      this.context.severed.settle(asked, Buffer.from(reply));
      if (this.ending.length === 0) this.endSevered(false);
      return;
    }
    const result = this.handshake?.onReply(reply) ?? null;
    if (result === null) return;
    switch (result.kind) {
      case "accepted":
        return this.endSevered(true);
      case "refused":
        return this.refuse(result.error);
      case "not-ready":
        return this.fail(result.loading ? "loading" : "link-down");
      case "not-master":
        return this.fail("not-master");
    }
  }

  /**
   * Has the server end what is left of lost connections to it, or waits while another connection does,
   * before it carries anything of a client. The server is known to be the process that they were
   * connected to: its numbers are no other clients'.
   */
  private endSevered(isFirst: boolean): void {
    if (this.state !== "connecting") return;
    const { role, node, replid } = this.target;
    if (role !== "master" || replid === null) return this.opened();
    const { severed } = this.context;
    this.ending = severed.take(node, replid, isFirst);
    if (this.ending.length > 0) this.socket.write(killRequests(this.ending));
    else if (severed.isAsking(node, replid)) severed.whenSettled(() => this.endSevered(false));
    else this.opened();
  }

  private opened(): void {
    this.serverId = this.handshake?.serverId ?? null;
    this.handshake = null;
    this.state = "open";
    this.stopTimer();
    this.context.keeper.laneOpened(this);
    if (this.context.settings.requestTimeoutMs > 0) {
      this.timer = setInterval(() => this.checkTimeout(), TIMEOUT_CHECK_MS);
    }
    this.flush();
  }

  private checkTimeout(): void {
    const oldest = this.first;
    if (oldest === null || oldest.bond === "blocking") return;
    if (this.context.nowMs() - oldest.sinceMs > this.context.settings.requestTimeoutMs) this.fail("timeout");
  }

  /** The server's own error is the answer to every request that waits for this connection. */
  private refuse(error: Buffer): void {
    // Its user may be gone: whoever has this profile has to prove again that it is let in.
    this.target.profile.accepted = false;
    const request = this.end();
    this.context.keeper.laneClosed(this);
    for (let one = request; one !== null; ) {
      const next: Request | null = one.next;
      one.owner.refused(one, error);
      one = next;
    }
    this.drained();
  }

  onEnd(): void {
    this.isFinished = true;
    this.fail(this.connected && this.handshake === null ? "connection-lost" : "connect-failed");
  }

  onClose(): void {
    this.fail(this.connected && this.handshake === null ? "connection-lost" : "connect-failed");
  }

  onFault(error: unknown): void {
    this.context.keeper.laneFault(this, error);
    this.fail("connection-lost");
  }

  /** The connection is of no use any more: every request goes back to its owner, in order. */
  fail(why: LaneLoss): void {
    if (this.dropped) return this.destroy();
    if (this.state === "closed") return;
    const unsent = this.firstUnsent;
    if (this.hasSentWrites) this.severed = this.context.severed.add(this.target, this.serverId);
    const request = this.end();
    this.context.keeper.laneLost(this, why);
    this.context.keeper.laneClosed(this);
    let sent = true;
    for (let one = request; one !== null; ) {
      const next: Request | null = one.next;
      if (one === unsent) sent = false;
      one.owner.lost(one, sent);
      one = next;
    }
    this.drained();
  }

  /** Whether something that may have an effect was sent to the master and is unanswered. */
  private get hasSentWrites(): boolean {
    if (this.target.role !== "master") return false;
    for (let one = this.first; one !== null && one !== this.firstUnsent; one = one.next) {
      if (one.kind === WRITE) return true;
    }
    return false;
  }

  /** Closes the socket; returns the requests that were unanswered. */
  private end(): Request | null {
    const request = this.first;
    this.state = "closed";
    this.first = null;
    this.last = null;
    this.firstUnsent = null;
    this.meter.outstanding -= this.inFlight;
    this.inFlight = 0;
    this.sample = null;
    this.stopTimer();
    this.socket.destroy();
    for (const one of this.ending.splice(0)) this.context.severed.settle(one, null);
    this.owner?.connectionGone(this);
    return request;
  }

  /**
   * Takes no more requests, writes nothing more, waits for what is in flight, then closes.
   * @param timeoutMs after which what is still unanswered counts as lost.
   * @param waitingMs the same for a call that waits there for what comes elsewhere now.
   */
  retire(timeoutMs: number, waitingMs = 0): void {
    if (this.state === "closed" || this.retiring) return;
    this.retiring = true;
    // Nothing more may be written to it: its session must not find it any more.
    this.owner?.connectionGone(this);
    this.giveBackUnsent();
    if (this.inFlight === 0) return this.destroy();
    const isWaiting = this.first?.bond === "blocking";
    const answersMs = isWaiting ? waitingMs : timeoutMs;
    if (answersMs <= 0) return this.fail("timeout");
    this.stopTimer();
    this.timer = setTimeout(() => this.fail("timeout"), answersMs);
  }

  /** Whether the node owes it an answer; a call that may wait is answered whenever that is. */
  get isOwed(): boolean {
    for (let one = this.first; one !== null; one = one.next) if (one.bond !== "blocking") return true;
    return false;
  }

  /** When the call it carries, which may wait, was sent, monotonic ms; -Infinity = there is none. */
  get callSinceMs(): number {
    return this.first?.bond === "blocking" ? this.first.sinceMs : Number.NEGATIVE_INFINITY;
  }

  /** What was not written goes back to its owners. */
  private giveBackUnsent(): void {
    const unsent = this.firstUnsent;
    if (unsent === null) return;
    this.unwritten.length = 0;
    this.firstUnsent = null;
    this.taken = 0;
    this.takenReads = 0;
    if (this.first === unsent) {
      this.first = null;
      this.last = null;
    }
    for (let one = this.first; one !== null; one = one.next) {
      if (one.next !== unsent) continue;
      one.next = null;
      this.last = one;
    }
    for (let one: Request | null = unsent; one !== null; ) {
      const next: Request | null = one.next;
      this.inFlight--;
      this.meter.outstanding--;
      if (one === this.sample) this.sample = null;
      one.owner.lost(one, false);
      one = next;
    }
  }

  /** Closes at once; unanswered requests are dropped without a word (their owners are gone or know). */
  destroy(): void {
    if (this.state === "closed") return;
    this.end();
    this.context.keeper.laneClosed(this);
    this.drained();
  }

  /** Its owner has no more use for it: it ends without telling, once it is not in the middle of something. */
  drop(): void {
    this.owner = null;
    this.dropped = true;
    setImmediate(() => this.destroy());
  }

  /**
   * Gives back the requests for which `movable` holds, to be sent elsewhere; their replies, should they
   * still come, are dropped. For a node that has gone silent, whose connection may yet be alive.
   */
  giveBack(movable: (request: Request) => boolean): void {
    let before: Request | null = null;
    for (let one = this.first; one !== null; ) {
      const next: Request | null = one.next;
      if (one.owner !== NOBODY && movable(one)) {
        before = this.substitute(one, before);
        one.moved = true;
        one.owner.lost(one, true);
      } else before = one;
      one = next;
    }
  }

  /** Tells the owners of requests that were given to it before `beforeMs`, until `isEnough` holds. */
  tellOverdue(beforeMs: number, isEnough: (wasSentElsewhere: boolean) => boolean): void {
    for (let one = this.first; one !== null && one.sinceMs < beforeMs; one = one.next) {
      if (isEnough(one.owner.overdue?.(one) === true)) return;
    }
  }

  /** The reply to a request is not wanted any more. @returns whether it is on the way here. */
  disown(request: Request): boolean {
    let before: Request | null = null;
    for (let one = this.first; one !== null; one = one.next) {
      if (one === request) {
        this.substitute(request, before);
        this.context.chunks.release(request.chunk);
        return true;
      }
      before = one;
    }
    return false;
  }

  /** Puts a request of nobody's in the place of one whose reply is not waited for here any more. */
  private substitute(one: Request, before: Request | null): Request {
    const { command, kind, chunk, start, end, replyCount } = one;
    const ghost = new Request(NOBODY, command, kind, chunk, start, end, replyCount);
    ghost.replies = one.replies;
    ghost.sinceMs = one.sinceMs;
    ghost.next = one.next;
    chunk.refs++;
    one.next = null;
    if (before === null) this.first = ghost;
    else before.next = ghost;
    if (this.last === one) this.last = ghost;
    if (this.firstUnsent === one) this.firstUnsent = ghost;
    if (this.sample === one) this.sample = ghost;
    return ghost;
  }

  private stopTimer(): void {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.timer = null;
  }
}
