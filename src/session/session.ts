/**
 * One client, from its first byte to its last.
 *
 * Requests are taken from the input in order and given to one upstream connection at a time: a session never
 * has requests out on two of them. What must go another way waits until everything before it is answered;
 * that is also the order the client may rely on (a read must not see a write that was sent after it).
 *
 * What cannot go on stays in the input, unparsed: a held session queues behind itself.
 */
import type { Socket } from "node:net";
import { type Command, MASTER_READ, OWN_REQUEST, PREFER_MASTER, READ, SPECIAL } from "../commands/command.ts";
import type { CommandTable } from "../commands/table.ts";
import type { CloseReason, HoldOutcome } from "../metrics.ts";
import type { StreamHandler } from "../net.ts";
import { requestArgs, splitInline } from "../resp/args.ts";
import { GREATER } from "../resp/bytes.ts";
import { encodeError, encodeRequest, PONG, type Protocol } from "../resp/encode.ts";
import {
  BROKEN,
  EMPTY,
  FRAME,
  INCOMPLETE,
  type INLINE,
  RequestFramer,
  type RequestLimits,
} from "../resp/request.ts";
import type { Holdable, Lack } from "../routing/hold.ts";
import type { Answer, Router } from "../routing/router.ts";
import type { Wakeable } from "../turn.ts";
import { type Chunk, copyBytes, NO_CHUNK } from "../upstream/chunk.ts";
import { LARGE_BYTES, type Lane, type LaneWaiter } from "../upstream/lane.ts";
import { ANONYMOUS, type Identity, type Profile } from "../upstream/profile.ts";
import { EVERYTHING, NOBODY, NOTHING, type PlainKind, Request, type Slots } from "../upstream/request.ts";
import { Attempts } from "./attempts.ts";
import type { Scripts } from "./calls/scripts.ts";
import { type ClientPause, isStopped, NOT_PAUSED, type Pausable } from "./client/pause.ts";
import { Flight, type FlightHost, type Sending } from "./flight.ts";
import { Input } from "./input.ts";
import { Output, type OutputOwner, type OutputSettings, type OutputSlab } from "./output.ts";
import type { Subscriber } from "./pubsub/fanout.ts";
import type { Hubs } from "./pubsub/hubs.ts";
import { isMonitorLine, type Subscriptions } from "./pubsub/subscriptions.ts";
import { Reading } from "./reading.ts";
import { slotsOf } from "./slots.ts";
import { special } from "./special.ts";
import { Invalidations, type InvalidationTarget } from "./tracking/invalidations.ts";
import type { Tracking } from "./tracking/tracking.ts";
import type { Transaction } from "./transaction/transaction.ts";
import { Preceded } from "./ways.ts";

/** What all sessions share. */
export interface SessionContext {
  readonly router: Router;
  readonly table: CommandTable;
  readonly scripts: Scripts;
  readonly hubs: Hubs;
  /** All of them, oldest first. */
  readonly sessions: ReadonlyMap<number, Session>;
  readonly pause: ClientPause;
  readonly slab: OutputSlab;
  readonly output: OutputSettings;
  readonly limits: RequestLimits & { readonly subscriptionBytes: number };
  /** Requests of one client in flight at once. */
  readonly maxPipeline: number;
  /**
   * Input kept while the session cannot go on, before reading pauses, bytes; and the same while it is held.
   */
  readonly maxWaitingBytes: number;
  readonly maxHeldBytes: number;
  /**
   * Answers PROXY …: the admin's reply, encoded; a promise of it where it takes time, which must not fail.
   */
  readonly admin: (args: readonly Buffer[], protocol: Protocol) => Buffer | Promise<Buffer>;
  /** The section that the proxy adds to INFO: lines that end with CRLF, its title first. */
  readonly infoSection: () => string;
  readonly onClose: (session: Session) => void;
  readonly onFault: (error: unknown) => void;
}

/**
 * What a special command may have to ask a server before it can go on; a profile stands for whether the
 * server lets it in.
 */
export type Question = Profile | "credentials" | "last-ids" | "subscription" | "redirect" | "permission";

/** Why a session does not go on at the moment. */
export type Blocked =
  | "no"
  | "drain" // what is on the way must be answered first: the next request goes another way
  | "pipeline" // maxPipeline requests are on the way
  | "lane" // the connection it feeds does not drain
  | "output" // the client does not take its replies
  | "hold" // there is no node for the next request
  | "proof" // its replica is being asked whether it has what the next request must see
  | "pause" // what it asks was lost, or its login refused, again and again: not at once once more
  | "answer" // a server is asked something on the session's behalf, or PROXY … takes its time
  | "client-pause"; // CLIENT PAUSE stops the next request

/** What CLIENT REPLY SKIP is about to do: the next command, or the one that was taken, gets no reply. */
export type Skip = "no" | "next" | "taken";

/** What a session's socket and buffers hold at one moment. */
export interface SessionReadings {
  readonly socket: Pick<Socket, "remoteAddress" | "remotePort" | "localAddress" | "localPort">;
  /** Monotonic ms. */
  readonly createdMs: number;
  readonly activeMs: number;
  readonly blocked: Blocked;
  readonly inputBytes: number;
  /** Room behind it. */
  readonly inputRoom: number;
  /** What the client has not taken. */
  readonly outputBytes: number;
}

/** From this size on a request goes through a lane of its own kind: nobody waits behind it. */
const BULK_BYTES = 1024 * 1024;

/** A connection that is lost so soon after a request was given to it was no way for it, ms. */
const NO_WAY_MS = 1_000;

/** How long after a question that nobody answered it is asked again, ms. */
const ASK_AGAIN_MS = 50;

/** Longest pause before a stream of messages is asked for again that was refused, ms. */
const MAX_RESTORE_PAUSE_MS = 1_000;

/** How long a client may take to read its last replies after the proxy has nothing more to say, ms. */
const LINGER_MS = 10_000;

export class Session
  implements
    FlightHost,
    StreamHandler,
    OutputOwner,
    Holdable,
    LaneWaiter,
    Wakeable,
    Pausable,
    Subscriber,
    InvalidationTarget
{
  readonly id: number;
  readonly context: SessionContext;
  readonly router: Router;
  readonly flight: Flight;
  readonly reading: Reading;
  profile: Profile;
  name = "";
  /** What CLIENT SETINFO told; null = nothing. */
  library: { readonly name: string; readonly version: string } | null = null;
  /** CLIENT NO-EVICT: shown, the proxy evicts nobody. */
  noEvict = false;
  skip: Skip = "no";
  /** Name of the command that was taken last, with the sub-command of CLIENT; "" = none yet. */
  lastCommand = "";
  transaction: Transaction | null = null;
  privateLane: Lane | null = null;
  /** WATCH holds keys on the private connection. */
  watching = false;
  /** The watched keys' connection is gone: the next EXEC is answered with null, as if a key had changed. */
  watchLost = false;
  /** Null while the client is subscribed to nothing. */
  subscriptions: Subscriptions | null = null;
  monitor: Command | null = null;
  /** Null unless the server tracks what the client reads. */
  tracking: Tracking | null = null;
  /** Gets invalidation messages of other clients; null unless some redirect theirs to this one. */
  private invalidations: Invalidations | null = null;
  /** A call waits on the private connection for as long as it likes. */
  inBlockingCall = false;
  /** Its place among all such calls of all clients. */
  callPlace = 0;
  /** What came of a question that a special command waits for; the command takes it when it runs again. */
  private answer: { readonly question: Question; readonly answer: Answer } | null = null;
  /**
   * What `$` stands for in the XREAD that waits to be issued, in its order; null where the server must say.
   */
  lastIds: (string | null)[] | null = null;
  /**
   * The SUBSCRIBE that is next in the input is confirmed: it is done with, whatever stops it now (CLIENT
   * PAUSE, output that the client does not take).
   */
  isConfirmed = false;
  /** Failed logins in a row; null while there are none. */
  attempts: Attempts | null = null;
  /** Credentials that HELLO … AUTH has proven, until the rest of that HELLO is done. */
  provenIdentity: Identity | null = null;
  /** While something of its own is answered inside of EXEC's reply: what it says. */
  private overheard: Buffer[] | null = null;
  wakeQueued = false;
  /** Pause before the stream is restored, after a connection that was not let in, ms. */
  private restorePauseMs = 0;
  private restoreTimer: NodeJS.Timeout | null = null;
  /** Since when the oldest waiting request has waited, monotonic ms; 0 = not held. */
  heldSinceMs = 0;
  /** What the request that has no way needs. */
  lacks: Lack = "master";

  private readonly socket: Socket;
  private readonly framer: RequestFramer;
  private readonly input = new Input();
  private readonly output: Output;
  private blocked: Blocked = "no";
  private paused = false;
  private closed = false;
  /** The client will send nothing more. */
  private ended = false;
  /** Nothing more is taken; the session ends when all that was taken is answered. */
  private closeReason: CloseReason | null = null;
  /** The proxy is shutting down: the session ends when it has nothing more to do. */
  private draining = false;
  /** It is its turn among those who wait for the master: nobody is before it. */
  private isNext = false;
  /** Requests that begin before this position of the input waited too long already. */
  private expiredBefore = 0;
  private readonly createdMs: number;
  /** When the client last sent something, monotonic ms, coarse. */
  private activeMs: number;
  private lingerTimer: NodeJS.Timeout | null = null;

  constructor(id: number, socket: Socket, context: SessionContext) {
    const { router, slab } = context;
    const { turn, counters } = router;
    this.id = id;
    this.socket = socket;
    this.context = context;
    this.router = router;
    this.framer = new RequestFramer(context.limits);
    this.output = new Output({ socket, slab, turn, settings: context.output, owner: this, counters });
    this.flight = new Flight(this, this.output, router);
    this.reading = new Reading(router, this.flight, id);
    this.profile = router.profiles.get(ANONYMOUS, 0, 2);
    this.profile.users++;
    this.activeMs = router.coarseMs;
    this.createdMs = this.activeMs;
  }

  get protocol(): Protocol {
    return this.profile.protocol;
  }

  get isClosed(): boolean {
    return this.closed;
  }

  /** The client will send nothing more; it may still take replies. */
  get hasLeft(): boolean {
    return this.ended;
  }

  get hasWritten(): boolean {
    return this.flight.lastWriteMs > Number.NEGATIVE_INFINITY;
  }

  /** Whether the last write may be lost: no switch since has proven that it survived. */
  get isWriteInDoubt(): boolean {
    const { lastWriteMs, lateWriteMs } = this.flight;
    return this.hasWritten && (lastWriteMs === lateWriteMs || this.router.doubts.cover(lastWriteMs));
  }

  get isBlocked(): boolean {
    return this.blocked !== "no";
  }

  readings(): SessionReadings {
    const { socket, createdMs, activeMs, blocked, input, output } = this;
    return {
      ...{ socket, createdMs, activeMs, blocked, inputBytes: input.length },
      ...{ inputRoom: input.buffer.length - input.end, outputBytes: output.unsentBytes },
    };
  }

  // Input

  onData(buf: Buffer, end: number): void {
    if (this.closed || this.closeReason !== null) return;
    this.router.counters.bytesIn += end;
    this.activeMs = this.router.coarseMs;
    if (this.input.isEmpty && this.blocked === "no" && !this.flight.hasAgain) {
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
      // The coarse clock stands still while the process is busy, and a deadline must not come early.
      this.input.mark(this.router.nowMs(), this.router.config.hold.maxTime);
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
    if (!this.socket.destroyed) this.socket.resume();
  }

  /** Goes on: what has to be sent again first, then the input. */
  private pump(): void {
    while (!this.flight.sendAgain()) {
      if (this.blocked === "no" && this.flight.count > 0) this.block("drain");
      if (this.blocked !== "no") return;
      this.endHold("failed");
      this.flight.refuseAgain(() => (this.draining ? this.waitedInVain() : this.noRoom()), this.lacks);
    }
    const { input } = this;
    if (!input.isEmpty && this.closeReason === null) {
      const used = this.consume(input.buffer, input.start, input.end, true);
      if (this.closed) return;
      if (this.closeReason === null) input.consume(used - input.start);
      else input.clear();
    }
    if (this.blocked !== "no") return;
    this.endHold("released");
    this.resume();
    if (this.flight.isEmpty && this.isOver()) this.hangUp();
  }

  private isOver(): boolean {
    return this.ended || this.closeReason !== null || this.draining;
  }

  /**
   * Takes requests from buf[from, end) until it is used up or the session is blocked. Frames that follow each
   * other into the same lane are copied there in one piece, a run.
   *
   * @param owned nobody else will change the buffer, so that large frames need not be copied.
   * @returns the position behind the last request taken.
   */
  private consume(buf: Buffer, from: number, end: number, owned: boolean): number {
    const { framer, flight } = this;
    const { table } = this.context;
    let pos = from;
    let runStart = from;
    let run: Lane | null = null;
    let chunk: Chunk | null = null;
    let base = 0;
    let last: Command | null = null;
    if (this.output.congested) this.block("output");
    while (pos < end && this.blocked === "no" && this.closeReason === null) {
      const status = framer.next(buf, pos, end);
      if (status === INCOMPLETE) break;
      if (status === FRAME) {
        const frameEnd = framer.end;
        const command = table.lookup(buf, framer.nameStart, framer.nameEnd);
        const isPlain = this.isPlain(command);
        const slots = isPlain ? this.slotsIn(command, buf, pos) : EVERYTHING;
        const lane = isPlain ? this.route(command.kind, slots) : null;
        if (lane !== null && frameEnd - pos <= LARGE_BYTES) {
          if (lane !== run || base + frameEnd - runStart > chunk!.buffer.length) {
            if (chunk !== null) copyBytes(buf, runStart, pos, chunk.buffer, base);
            run = lane;
            runStart = pos;
            chunk = lane.room(frameEnd - pos);
            base = chunk.used;
          }
          const at = base - runStart;
          flight.launch(command, slots, lane, chunk!, at + pos, at + frameEnd);
          last = command;
          pos = frameEnd;
          continue;
        }
        if (chunk !== null) copyBytes(buf, runStart, pos, chunk.buffer, base);
        run = null;
        chunk = null;
        last = null;
        if (!this.takeFrame(command, lane, buf, pos, frameEnd, owned)) break;
        pos = frameEnd;
      } else {
        if (chunk !== null) copyBytes(buf, runStart, pos, chunk.buffer, base);
        run = null;
        chunk = null;
        last = null;
        if (!this.takeUnusual(status, buf, pos)) break;
        pos = framer.end;
      }
    }
    if (chunk !== null) copyBytes(buf, runStart, pos, chunk.buffer, base);
    if (last !== null) this.lastCommand = last.name;
    run?.checkCongestion();
    return pos;
  }

  /** What the plain request that the framer has found touches of the data. */
  private slotsIn(command: Command, buf: Buffer, start: number): Slots {
    const { framer, router } = this;
    if (command.kind === READ && !this.reading.isByKey) return EVERYTHING;
    if (!command.singleKey)
      return slotsOf(router, command, command.kind as PlainKind, requestArgs(buf, start));
    return framer.argc > 1 ? router.freshness.slotOf(buf, framer.keyStart, framer.keyEnd) : NOTHING;
  }

  /** Whether a command goes straight to a lane that is shared. */
  private isPlain(command: Command): boolean {
    if (command.kind === SPECIAL || !this.profile.accepted) return false;
    if (this.context.pause.level !== NOT_PAUSED || this.skip !== "no") return false;
    if (this.transaction !== null || this.privateLane !== null) return false;
    return this.subscriptions === null && !this.hasStream;
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
    this.lastCommand = command.name;
    if (lane !== null) {
      const isBulk = end - start >= BULK_BYTES && lane.target.role === "master";
      const wide = isBulk ? this.router.bulkLane(this.profile) : lane;
      if (wide === null || !this.mayUse(wide)) return wide === null && this.wait(start);
      this.send({ command, kind: command.kind as PlainKind }, wide, { buf, start, end, owned });
      return true;
    }
    if (this.isPlain(command)) return this.noWay(command, buf, start);
    return special(this, command, buf, start, end, owned);
  }

  /** Sends one frame that is not part of a run. */
  send(what: Sending, lane: Lane, frame: { buf: Buffer; start: number; end: number; owned: boolean }): void {
    // The lane may take the input's buffer over: it must not be moved or overwritten from now on.
    if (frame.owned && frame.end - frame.start > LARGE_BYTES) this.input.lend(frame.buf);
    const slots =
      what.slots ?? slotsOf(this.router, what.command, what.kind, requestArgs(frame.buf, frame.start));
    const sending = { ...what, slots };
    const caching = this.tracking === null ? null : this.tracking.caching;
    if (caching === null) this.flight.send(sending, lane, frame);
    else this.sendWith(caching, sending, lane, frame.buf.subarray(frame.start, frame.end));
  }

  /** Sends a request in one unit with the CLIENT CACHING that is about it. */
  private sendWith(caching: Buffer, what: Sending, lane: Lane, frame: Buffer): void {
    const buf = Buffer.concat([caching, frame]);
    const unit = { buf, start: 0, end: buf.length, owned: true };
    const replies = (what.rewrite?.replies ?? what.replies ?? 1) + 1;
    if (what.rewrite === undefined) return this.flight.send({ ...what, replies }, lane, unit);
    const rewrite = new Preceded(caching, what.rewrite);
    this.flight.send({ ...what, replies, rewrite }, lane, unit);
  }

  /** Anything but an array of bulk strings. @returns false when it must wait or the stream ended. */
  private takeUnusual(
    status: typeof INLINE | typeof EMPTY | typeof BROKEN,
    buf: Buffer,
    pos: number,
  ): boolean {
    if (status === EMPTY) return true;
    if (status === BROKEN) return this.isSkipOver() && this.refuseStream(this.framer.problem);
    const { end, lineEnd } = this.framer;
    const args = splitInline(buf.subarray(pos, lineEnd));
    if (args === null) return this.refuseStream("ERR Protocol error: unbalanced quotes in request");
    if (args.length === 0) return true;
    const frame = encodeRequest(args);
    const framer = new RequestFramer(this.context.limits);
    if (framer.next(frame, 0, frame.length) !== FRAME) return this.refuseStream(framer.problem);
    const command = this.context.table.lookup(frame, framer.nameStart, framer.nameEnd);
    const kind = command.kind as PlainKind;
    const lane = this.isPlain(command) ? this.route(kind, slotsOf(this.router, command, kind, args)) : null;
    const taken = this.takeFrame(command, lane, frame, 0, frame.length, true);
    this.framer.end = end;
    return taken;
  }

  /** The stream cannot be read any further: the error, then the end, as Redis does it. */
  private refuseStream(problem: string): false {
    this.flight.say(encodeError(problem));
    this.finish(problem.startsWith("ERR proxy:") ? "request-limit" : "protocol-error");
    return false;
  }

  // Ways

  /** The lane for a request; null when it has to wait (`blocked` says for what) or there is none. */
  route(kind: Command["kind"], slots: Slots): Lane | null {
    const { router } = this;
    let lane: Lane | null = null;
    if (kind === PREFER_MASTER && !router.writable) lane = this.reading.anywhere(this.profile);
    else if (kind === READ && this.flight.writes === 0) {
      lane = this.reading.lane(this.profile, slots);
      if (lane === null && this.reading.isSoonServed(slots)) {
        router.proofs.wait(this);
        this.block("proof");
        return null;
      }
      if (lane === null && this.reading.lacksReplica) {
        this.lacks = "replica";
        return null;
      }
    }
    const isMasters = lane === null;
    if (lane === null) {
      this.lacks = "master";
      // Others wait for the same master: nobody overtakes them while they are let go one by one.
      const isNewcomer = !this.isNext && this.flight.count === 0;
      if (!router.writable || (isNewcomer && router.hold.releasing)) return null;
      lane = router.masterLane(this.profile);
      if (lane === null) return null;
    }
    if (!this.mayUse(lane)) return null;
    if (isMasters && kind === READ) router.counters.addMasterRead(this.reading.whyMaster);
    return lane;
  }

  /** Whether the session may give this lane a request now; if not, `blocked` says why. */
  mayUse(lane: Lane): boolean {
    const { flight } = this;
    if (flight.count > 0) {
      if (lane !== flight.lane) return this.block("drain");
      if (flight.count >= this.context.maxPipeline) return this.block("pipeline");
    }
    if (lane.congested) {
      lane.waitUntilDrained(this);
      return this.block("lane");
    }
    return this.output.congested ? this.block("output") : true;
  }

  /** @returns false, for the caller to pass on. */
  block(why: Exclude<Blocked, "no">): false {
    this.blocked = why;
    return false;
  }

  /** Whether nothing is on the way; if something is, the session waits for it. */
  isDrained(): boolean {
    return this.flight.isEmpty || this.block("drain");
  }

  /** The session's private connection to the master, opened if need be. */
  openPrivate(): Lane | "blocked" | "no-master" | "no-room" {
    const { tracking } = this;
    this.lacks = "master";
    if (this.privateLane === null) {
      if (this.flight.count > 0) {
        this.block("drain");
        return "blocked";
      }
      if (!this.router.writable) return "no-master";
      if (this.hasStream) this.restoreStream();
      else this.privateLane = this.router.openPrivate(this.profile, this.flight);
      if (this.privateLane === null)
        return this.restoreTimer === null && tracking === null ? "no-room" : "no-master";
    }
    // Nor is a master that is not to be written, or that is to be drained, given more through this one.
    if (!this.router.writable) return "no-master";
    // What is read before the server tracks nobody would tell to forget.
    if (tracking !== null && tracking.lane !== this.privateLane) return "no-master";
    return this.mayUse(this.privateLane) ? this.privateLane : "blocked";
  }

  /** `route` found no lane. @returns true when the request was answered all the same. */
  noWay(command: Command, buf: Buffer, start: number): boolean {
    if (this.blocked !== "no") return false;
    // Health checks are answered while nobody can be asked.
    if (command.name === "ping" && isBare(buf, start)) {
      this.say(PONG);
      return true;
    }
    return this.wait(start, this.lacks);
  }

  /**
   * The next request, at `start` of the input, has no node to go to: the session is held, unless the request
   * must not wait, or waited too long already, or there is no room. @returns true when it was answered.
   */
  wait(start: number, lacks: Lack = "master"): boolean {
    const { config, pool, writable } = this.router;
    this.lacks = lacks;
    if (this.mustNotWait()) {
      this.refuse(NO_REPLICA);
      return true;
    }
    const position = this.input.positionOf(start);
    if (this.draining || position < this.expiredBefore) {
      this.say(this.waitedInVain());
      return true;
    }
    if (lacks === "master" && writable && pool.isFull) {
      this.refuse(`ERR proxy: no more upstream connections, upstream.maxLanes (${config.upstream.maxLanes})`);
      return true;
    }
    if (this.hold(this.input.arrivalOf(position) ?? this.router.nowMs())) return false;
    this.say(this.noRoom());
    return true;
  }

  /** The request lacks a replica, and reads do not wait for one. */
  private mustNotWait(): boolean {
    return this.lacks === "replica" && this.router.config.reads.whenNoneFit === "error";
  }

  private noRoom(): Buffer {
    const most = this.router.config.hold.maxBytes;
    if (this.lacks === "replica") {
      return this.noReplica(`, and there is no room to wait for one, hold.maxBytes (${most} bytes)`);
    }
    return this.masterDown(`no room to wait for a master, hold.maxBytes (${most} bytes)`);
  }

  /** A question for the request at `start` found nobody: it is asked again, also without news of a master. */
  waitToAsk(start: number): void {
    if (!this.wait(start)) setTimeout(() => this.retry(), ASK_AGAIN_MS);
  }

  private waitedInVain(): Buffer {
    if (this.lacks === "replica") {
      if (this.draining) return this.noReplica(", and the proxy is shutting down");
      return this.noReplica(` within hold.maxTime (${this.router.config.hold.maxTime} ms)`);
    }
    if (this.draining) return this.masterDown("no master, and the proxy is shutting down");
    return this.masterDown(`no master within hold.maxTime (${this.router.config.hold.maxTime} ms)`);
  }

  private noReplica(why: string): Buffer {
    this.router.counters.proxyErrors++;
    return encodeError(`ERR proxy: no replica is fit to be read${why}`);
  }

  private masterDown(why: string): Buffer {
    this.router.counters.proxyErrors++;
    return encodeError(`MASTERDOWN proxy: not run: ${why}`);
  }

  // CLIENT PAUSE and CLIENT REPLY

  /**
   * Whether CLIENT PAUSE lets the next command pass; if not, it waits for the end of the pause. A proxy that
   * shuts down does not wait: then the error was said.
   */
  isLetPass(command: Command, args: readonly Buffer[]): boolean {
    const { pause } = this.context;
    if (!isStopped(pause.level, command, args, this.transaction?.mayReplicate === true)) return true;
    if (this.draining) this.say(this.masterDown("clients are paused, and the proxy is shutting down"));
    else {
      this.endHold("released");
      pause.add(this);
      this.block("client-pause");
      // A client that will send nothing more and waits is as good as gone.
      if (this.ended) this.destroy("client");
    }
    return false;
  }

  pauseEnded(): void {
    if (this.blocked === "client-pause") this.goOn();
  }

  /** Whether the command that CLIENT REPLY SKIP was meant for is answered; else the session waits for it. */
  isSkipOver(): boolean {
    if (this.skip !== "taken") return true;
    if (!this.isDrained()) return false;
    this.skip = "no";
    this.flight.muted = false;
    return true;
  }

  // Going on

  wake(): void {
    if (this.closed) return;
    switch (this.blocked) {
      case "hold":
        // What came back from a lost connection stands before the request that waits, and may have a way.
        if (this.flight.hasAgain && this.flight.count === 0) this.retry();
        return;
      case "output":
      case "lane":
      case "pause":
        return;
      case "client-pause":
        // What came back from a lost connection was let pass before.
        if (!this.draining && (!this.flight.hasAgain || this.flight.count > 0)) return;
        this.context.pause.remove(this);
        break;
      case "drain":
        if (this.flight.count > 0) return;
        break;
      case "pipeline":
        if (this.flight.count * 2 >= this.context.maxPipeline && this.flight.count > 1) return;
        break;
      case "answer":
        if (this.answer === null) return;
        break;
      case "proof":
      case "no":
        break;
    }
    const { answer } = this;
    this.blocked = "no";
    this.pump();
    // Whoever asked had no need of it any more: nobody else may take it for an answer to another question.
    if (this.answer === answer) this.answer = null;
    // What it was held for may have been answered by the proxy itself, and nothing was sent.
    if (this.blocked === "no") this.endHold("released");
  }

  proofCame(): void {
    if (this.blocked === "proof") this.goOn();
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

  // What the flight reports

  onSent(): void {
    if (this.heldSinceMs !== 0) this.endHold("released");
  }

  onProgress(): void {
    const { flight } = this;
    if (this.tracking !== null && flight.count === 0 && this.privateLane === null) {
      this.flushCache();
      if (this.restoreTimer === null) setImmediate(() => this.restoreStream());
    }
    if (flight.hasAgain && this.blocked === "no") this.block("drain");
    const mayGoOn =
      flight.count === 0 || (this.blocked === "pipeline" && flight.count * 2 < this.context.maxPipeline);
    if (!mayGoOn) return;
    const waits = this.blocked !== "no" || this.ended || this.draining || this.closeReason !== null;
    if (waits) this.router.turn.wakeLater(this);
  }

  wayFor(request: Request): Lane | Buffer | null {
    const lane = this.laneAgain(request);
    if (lane === null && this.blocked === "no" && this.mustNotWait()) return this.refusal(NO_REPLICA);
    if (lane !== null) request.wayFoundAtMs = this.router.nowMs();
    const isBarrier = request.rewrite?.isBarrier === true;
    // What follows a call that waits, or that changes its connection, waits for it, as it did before.
    const isAlone = request.bond === "blocking" || request.bond === "change";
    if (lane !== null && (isBarrier || isAlone)) this.block("drain");
    return lane;
  }

  private laneAgain(request: Request): Lane | null {
    const isPrivate = request.bond === "blocking" || request.bond === "stream" || request.bond === "change";
    if (isPrivate || this.tracking !== null) {
      this.lacks = "master";
      // A node that refused it is asked again only once there is a master, also on the connection it has.
      const isReady = this.router.writable && request.rewrite?.isReady?.() !== false;
      const lane = isReady ? this.openPrivate() : "no-master";
      if (typeof lane !== "string") {
        lane.spoilt ||= request.bond === "change";
        if (request.bond === "stream") lane.carriesMessages = true;
        if (request.bond === "blocking") this.router.pool.convoy.join(lane, this.callPlace);
        return lane;
      }
    } else {
      const lane = this.route(request.kind, this.slotsOf(request));
      if (lane !== null) return lane;
    }
    if (this.blocked === "no" && !this.draining && !this.mustNotWait()) this.hold(this.waitsSince(request));
    return null;
  }

  /** What a request touches: of a read that was sent while that did not matter it is looked up now. */
  slotsOf(request: Request): Slots {
    const { command, kind, chunk, start, end, slots, rewrite } = request;
    if (kind !== READ || slots !== EVERYTHING || rewrite !== null) return slots;
    request.slots = slotsOf(this.router, command, kind, requestArgs(chunk.buffer.subarray(start, end), 0));
    return request.slots;
  }

  /** A way that was none does not begin the wait anew: else it would have no end. */
  private waitsSince(request: Request): number {
    const nowMs = this.router.nowMs();
    const isNew = request.waitsSinceMs === 0 || nowMs - request.wayFoundAtMs > NO_WAY_MS;
    if (this.heldSinceMs === 0 && isNew) request.waitsSinceMs = nowMs;
    return request.waitsSinceMs;
  }

  onSpecialDone(request: Request, failed: boolean): void {
    if (request.bond === "blocking") {
      this.inBlockingCall = false;
      // A paused server answers a call twice that CLIENT UNBLOCK … ERROR ends: nobody else may get the
      // second.
      if (failed && this.privateLane !== null) this.privateLane.spoilt = true;
    }
    // What a stream brings from now on is no part of the reply that was skipped.
    if (request.bond === "stream" && this.skip === "taken" && this.flight.isEmpty) this.isSkipOver();
    const { handler } = request.command;
    const endsWatch = handler === "exec" || handler === "unwatch";
    // It ends the watch also where it was lost with the connection: the next transaction is another one.
    if (endsWatch) {
      this.watching = false;
      this.watchLost = false;
    }
    if (this.privateLane === null) return;
    // Refused, it may have left the keys watched.
    if (endsWatch && failed) this.privateLane.spoilt = true;
    this.releasePrivate();
  }

  /** Whether the client is in a mode that needs a connection of its own for as long as it lasts. */
  get hasStream(): boolean {
    return this.monitor !== null || this.tracking !== null;
  }

  /** Gives the private connection back if nothing needs it any more. */
  releasePrivate(): void {
    const lane = this.privateLane;
    if (lane === null || this.watching || this.hasStream || this.flight.count > 0) return;
    this.privateLane = null;
    this.router.pool.givePrivate(lane);
  }

  messageFor(buf: Buffer, start: number, end: number): Buffer | null {
    const isMessage = buf[start] === GREATER || (this.monitor !== null && isMonitorLine(buf, start, end));
    if (!isMessage) return null;
    return this.tracking?.changedPush(buf, start, end) ?? Buffer.from(buf.subarray(start, end));
  }

  onLostAgain(pauseMs: number): void {
    // The answer that it waits for comes before anything else goes on.
    if (this.blocked !== "hold" && this.blocked !== "answer") this.pauseFor(pauseMs);
  }

  /** Takes nothing more for a while. */
  pauseFor(pauseMs: number): void {
    this.blocked = "pause";
    setTimeout(() => {
      if (this.blocked === "pause") this.goOn();
    }, pauseMs);
  }

  twinLane(): Lane | null {
    return this.reading.twinLane(this.profile);
  }

  onTwinAnswered(lane: Lane): void {
    this.reading.answeredBy(lane);
  }

  onConnectionGone(lane: Lane): void {
    if (lane !== this.privateLane || this.closed) return;
    this.privateLane = null;
    if (this.watching) this.watchLost = true;
    this.watching = false;
    const { tracking } = this;
    const wasOfUse = tracking === null ? lane.wasOpen : tracking.lane === lane;
    if (tracking !== null && wasOfUse) {
      tracking.lane = null;
      tracking.flushDue = true;
      this.flushCache();
    }
    // It was not let in, or nobody listens: not at once once more.
    if (this.hasStream) this.restoreLater(wasOfUse ? 0 : this.nextPauseMs());
  }

  private nextPauseMs(): number {
    this.restorePauseMs = Math.min(MAX_RESTORE_PAUSE_MS, Math.max(ASK_AGAIN_MS, 2 * this.restorePauseMs));
    return this.restorePauseMs;
  }

  /** Not before the loss of the connection is told: the same node would be tried at once. */
  private restoreLater(pauseMs: number): void {
    if (pauseMs === 0) this.restorePauseMs = 0;
    this.restoreTimer ??= setTimeout(() => {
      this.restoreTimer = null;
      this.restoreStream();
    }, pauseMs);
  }

  onWritable(): void {
    this.restoreStream();
  }

  /**
   * Monitors, or tracks, on another connection as soon as there is a master; the client sees nothing of it.
   */
  restoreStream(): void {
    if (this.closed || this.privateLane !== null || !this.hasStream || this.restoreTimer !== null) return;
    const { tracking } = this;
    // What is still on the way may change what is to be tracked.
    if (tracking !== null && (this.flight.count > 0 || !tracking.isReady)) return;
    if (!this.router.writable) return this.router.whenWritable(this);
    const lane = this.router.openPrivate(this.profile, this.flight);
    // There is no room; nobody tells when there is.
    if (lane === null) return this.restoreLater(this.nextPauseMs());
    this.privateLane = lane;
    lane.carriesMessages = true;
    // The server answers only the first MONITOR (replication.c): it must be the client's own, if that is due.
    if (this.monitor !== null && !this.flight.waitsFor(this.monitor)) quietly(lane, MONITOR, 1);
    tracking?.start(lane, (accepted) => this.onTracked(lane, accepted));
  }

  onGivenUp(): void {
    if (this.blocked === "hold") this.retry();
    else this.router.turn.wakeLater(this);
  }

  onBlockingRefused(): void {
    if (!this.hasStream) this.losePrivate();
  }

  /** Ends the private connection although keys may be watched on it. */
  losePrivate(): void {
    if (this.hasStream) return this.leaveTracked();
    if (this.watching) this.watchLost = true;
    this.dropPrivate();
  }

  onWatchLost(): void {
    this.forgetWatch();
    this.watchLost = true;
  }

  /** The keys are not watched any more, as far as the client is concerned; the server may not know it. */
  forgetWatch(): void {
    if (this.watching && this.privateLane !== null) {
      this.privateLane.spoilt = true;
      // It may have to stay for something else.
      if (this.hasStream) quietly(this.privateLane, UNWATCH, 1);
    }
    this.watching = false;
  }

  /** Ends the private connection on our side. */
  dropPrivate(): void {
    const lane = this.privateLane;
    this.privateLane = null;
    this.watching = false;
    lane?.drop();
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

  private endHold(outcome: HoldOutcome): void {
    if (this.heldSinceMs === 0) return;
    this.heldSinceMs = 0;
    if (outcome !== "expired") this.input.forgetMarks();
    this.router.hold.remove(this, outcome);
  }

  heldBytes(): number {
    return this.input.length + this.flight.againBytes;
  }

  retry(): void {
    if (this.closed || this.blocked !== "hold") return;
    this.blocked = "no";
    this.isNext = true;
    this.pump();
    this.isNext = false;
  }

  /** What has waited since before `cutoffMs` is answered; what came later goes on waiting. */
  expire(cutoffMs: number): void {
    // Replies to later requests are on the way: they tell first what becomes of those that wait.
    if (this.closed || (this.flight.hasAgain && this.flight.count > 0)) return;
    this.expiredBefore = this.input.firstAfter(cutoffMs);
    this.endHold(this.draining ? "failed" : "expired");
    this.flight.refuseAgain(() => this.waitedInVain(), this.lacks);
    if (this.blocked !== "hold") return;
    this.blocked = "no";
    this.pump();
  }

  /** The proxy is shutting down: what is on the way is answered, what waits for a master is refused. */
  drain(): void {
    if (this.closed || this.draining) return;
    this.draining = true;
    if (this.heldSinceMs !== 0) this.expire(Number.POSITIVE_INFINITY);
    this.router.turn.wakeLater(this);
  }

  // Tracking

  /** The server has answered whether it tracks this connection as the one before. */
  private onTracked(lane: Lane, accepted: boolean): void {
    const { tracking } = this;
    if (tracking === null || lane !== this.privateLane) return;
    if (accepted) {
      tracking.lane = lane;
      this.restorePauseMs = 0;
      tracking.flushAgainLater();
      this.retry();
      return;
    }
    // It is busy with a script, say: what is read there now nobody would tell to forget. Whoever has asked
    // something there (AUTH) is answered still.
    this.leaveTracked();
  }

  /** Tells the client to forget what it has cached, once no reply is on the way that it could still cache. */
  private flushCache(): void {
    const { tracking } = this;
    if (tracking === null || !tracking.flushDue || this.flight.count > 0) return;
    tracking.flushDue = false;
    tracking.flush();
  }

  /** Another connection has to be tracked: nothing more is asked through this one. */
  leaveTracked(): void {
    this.privateLane?.retire(this.router.config.upstream.retireTimeout);
  }

  endTracking(): void {
    this.tracking?.end();
    this.tracking = null;
  }

  /** The connection that other clients' invalidation messages for this one come through. */
  takeInvalidations(): Invalidations {
    this.invalidations ??= new Invalidations(this, this.router);
    return this.invalidations;
  }

  // Subscriptions

  get isSubscriber(): boolean {
    return this.subscriptions !== null;
  }

  /** Keeps what the client is subscribed to, if it is to anything. */
  keepSubscriptions(subscriptions: Subscriptions): void {
    const isSubscriber = subscriptions.size > 0;
    this.subscriptions = isSubscriber ? subscriptions : null;
    this.output.isSubscriber = isSubscriber;
  }

  endSubscriptions(): void {
    this.subscriptions?.clear();
    this.subscriptions = null;
    this.output.isSubscriber = false;
  }

  /** A confirmation counts as a message: CLIENT REPLY OFF does not silence it (pubsub.c). */
  confirm(bytes: Buffer): void {
    if (this.flight.muted) this.deliverShared(bytes);
    else this.say(bytes);
  }

  deliver(buf: Buffer, start: number, end: number): void {
    if (!this.closed) this.output.copy(buf, start, end);
  }

  deliverShared(bytes: Buffer): void {
    if (!this.closed) this.output.own(bytes);
  }

  accessRevoked(): void {
    this.destroy("access-revoked");
  }

  // Replies of the proxy itself

  say(bytes: Buffer): void {
    this.router.counters.requests.local++;
    this.utter(bytes);
  }

  /**
   * A reply of the proxy's own that takes time: nothing more is taken until it was said. A promise that fails
   * is a bug.
   */
  sayLater(reply: Promise<Buffer>): void {
    this.block("answer");
    const go = (bytes: Buffer): void => {
      if (this.closed) return;
      this.say(bytes);
      this.goOn();
    };
    reply.then(go, (error: unknown) => {
      this.context.onFault(error);
      go(this.refusal("ERR proxy: not answered: a bug, its log says more"));
    });
  }

  private utter(bytes: Buffer): void {
    if (this.overheard === null) this.flight.say(bytes);
    else this.overheard.push(bytes);
  }

  /** What the session says while `run` runs; the client does not get it. */
  overhear(run: () => void): Buffer {
    const said: Buffer[] = [];
    this.overheard = said;
    try {
      run();
    } finally {
      this.overheard = null;
    }
    return Buffer.concat(said);
  }

  /** An error of the proxy itself: the request was not run. */
  refuse(text: string): void {
    this.flight.say(this.refusal(text));
  }

  /** The same where it stands for a reply. */
  refusal(text: string): Buffer {
    this.router.counters.requests.refused++;
    this.router.counters.proxyErrors++;
    return encodeError(text);
  }

  /** The answer to a question of a special command. */
  answered(question: Question, answer: Answer): void {
    this.answer = { question, answer };
    this.router.turn.wakeLater(this);
  }

  /**
   * The answer to a question of the command that runs now, once; null = it is not there. One to another
   * question is thrown away: the command that asked had no need of it any more.
   */
  takeAnswer(question: Question): Answer | null {
    const { answer } = this;
    this.answer = null;
    return answer?.question === question ? answer.answer : null;
  }

  /** A server, or the proxy in its place, has refused the client's credentials. */
  loginFailed(): void {
    this.router.counters.authFailures++;
    this.attempts ??= new Attempts();
    this.attempts.fail(this.router.nowMs(), this.router.config.limits.authPause);
  }

  /** From now on requests go through connections of this profile. */
  useProfile(profile: Profile): void {
    profile.users++;
    this.profile.users--;
    this.profile = profile;
  }

  // Life

  /** Nothing on the way, nothing waiting, no stream of messages, and not a byte since `beforeMs`. */
  isIdleSince(beforeMs: number): boolean {
    const isQuiet = this.flight.isEmpty && this.blocked === "no" && this.privateLane === null;
    return isQuiet && this.subscriptions === null && this.activeMs < beforeMs;
  }

  onEnd(): void {
    this.ended = true;
    // A client that left while it waits is not waited for: its requests are dropped.
    const waits = this.blocked === "hold" || this.blocked === "client-pause" || this.inBlockingCall;
    if (!waits && this.monitor === null && this.subscriptions === null) {
      this.router.turn.wakeLater(this);
      return;
    }
    this.output.finish();
    this.destroy("client");
  }

  onClose(): void {
    if (this.lingerTimer !== null) clearTimeout(this.lingerTimer);
    this.destroy("client");
  }

  onFault(error: unknown): void {
    this.context.onFault(error);
  }

  outputOverflow(): void {
    const { outputBufferBytes, subscriberBufferBytes } = this.router.config.limits;
    const isSubscriber = this.subscriptions !== null && subscriberBufferBytes < outputBufferBytes;
    this.destroy(isSubscriber ? "subscriber-limit" : "output-limit");
  }

  /** Takes nothing more; closes when everything on the way is answered. */
  finish(reason: CloseReason): void {
    if (this.closed || this.closeReason !== null) return;
    this.closeReason = reason;
    this.router.turn.wakeLater(this);
  }

  /** Everything is answered: the rest of the output, then the end. */
  private hangUp(): void {
    this.output.finish();
    if (this.closed) return;
    this.socket.end();
    this.gone(this.closeReason ?? (this.draining ? "shutdown" : "client"));
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
    this.context.pause.remove(this);
    this.endHold(reason === "client" ? "left" : "failed");
    this.resume();
    this.router.counters.closed[reason]++;
    this.profile.users--;
    this.input.clear();
    this.flight.clear();
    this.reading.leave();
    this.transaction = null;
    this.endSubscriptions();
    this.endTracking();
    this.invalidations?.destroy();
    this.privateLane?.drop();
    this.privateLane = null;
    this.context.onClose(this);
  }
}

const NO_REPLICA = "ERR proxy: no replica is fit to be read (reads.whenNoneFit)";

const MONITOR = encodeRequest(["MONITOR"]);
const UNWATCH = encodeRequest(["UNWATCH"]);

/** Sends what the client has asked for before; it does not see the replies again. */
function quietly(lane: Lane, bytes: Buffer, replies: number): void {
  const request = new Request(NOBODY, OWN_REQUEST, MASTER_READ, NO_CHUNK, 0, 0, replies);
  lane.pushCopy(request, bytes, 0, bytes.length);
}

/** "PING" without an argument: the frame begins with one element. */
function isBare(buf: Buffer, start: number): boolean {
  return buf[start + 1] === 49 && buf[start + 2] === 13;
}
