/**
 * One client, from its first byte to its last: what its parts have in common is here, namely whether it goes
 * on, why not, and its end.
 *
 * Requests are taken from the input in order (`Intake`) and given to one upstream connection at a time
 * (`LaneChoice`): a session never has requests out on two of them. What must go another way waits until
 * everything before it is answered (`Flight`); that is also the order the client may rely on (a read must not
 * see a write that was sent after it).
 *
 * What cannot go on stays in the input, unparsed: a held session (`Holding`) queues behind itself.
 */
import type { Socket } from "node:net";
import { type Command, SPECIAL } from "../commands/command.ts";
import type { CloseReason } from "../metrics.ts";
import type { StreamHandler } from "../net.ts";
import { requestArgs } from "../resp/args.ts";
import { encodeError, PONG, type Protocol } from "../resp/encode.ts";
import type { Answer, Router } from "../routing/router.ts";
import type { Wakeable } from "../turn.ts";
import { LARGE_BYTES, type Lane } from "../upstream/lane.ts";
import { ANONYMOUS, type Profile } from "../upstream/profile.ts";
import type { PlainKind, Request } from "../upstream/request.ts";
import type { Attempts } from "./attempts.ts";
import { NOT_PAUSED, type Pausable } from "./client/pause.ts";
import type { SessionContext } from "./context.ts";
import { Flight, type FlightHost, type Piece, type Sending } from "./flight.ts";
import { Holding, type HoldingHost, NO_WAITING } from "./holding.ts";
import { Input } from "./input.ts";
import { Inquiry, type Question } from "./inquiry.ts";
import { Intake, type IntakeHost } from "./intake.ts";
import { LaneChoice, type LaneChoiceHost } from "./lane-choice.ts";
import { Messages, type MessagesHost } from "./messages.ts";
import { Output, type OutputOwner } from "./output.ts";
import { PrivateConnection, type PrivateHost } from "./private-connection.ts";
import { Reading } from "./reading.ts";
import { slotsOf } from "./slots.ts";
import { special } from "./special.ts";
import type { Transaction } from "./transaction/transaction.ts";
import { Voice } from "./voice.ts";
import { withCaching } from "./ways.ts";

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

/** How long a client may take to read its last replies after the proxy has nothing more to say, ms. */
const LINGER_MS = 10_000;

export class Session
  implements
    FlightHost,
    HoldingHost,
    IntakeHost,
    LaneChoiceHost,
    MessagesHost,
    PrivateHost,
    StreamHandler,
    OutputOwner,
    Wakeable,
    Pausable
{
  readonly id: number;
  readonly context: SessionContext;
  readonly router: Router;
  readonly flight: Flight;
  readonly reading: Reading;
  readonly privateConnection: PrivateConnection;
  readonly holding: Holding;
  /** Which connection its next request is given to. */
  readonly lanes: LaneChoice;
  readonly messages: Messages;
  readonly voice: Voice;
  /** What the next command has asked so far. */
  readonly inquiry = new Inquiry();
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
  /** Failed logins in a row; null while there are none. */
  attempts: Attempts | null = null;
  wakeQueued = false;
  private readonly socket: Socket;
  private readonly input: Input;
  private readonly intake: Intake;
  private readonly output: Output;
  private blocked: Blocked = "no";
  private closed = false;
  /** The client will send nothing more. */
  private ended = false;
  /** Nothing more is taken; the session ends when all that was taken is answered. */
  private closeReason: CloseReason | null = null;
  /** The proxy is shutting down: the session ends when it has nothing more to do. */
  private draining = false;
  private readonly createdMs: number;
  /** When the client last sent something, monotonic ms, coarse. */
  private activeMs: number;
  private lingerTimer: NodeJS.Timeout | null = null;

  constructor(id: number, socket: Socket, context: SessionContext) {
    const { router, slab, table, limits, maxPipeline } = context;
    const { turn, counters } = router;
    this.id = id;
    this.socket = socket;
    this.context = context;
    this.router = router;
    const output = new Output({ socket, slab, turn, settings: context.output, owner: this, counters });
    const input = new Input();
    const flight = new Flight(this, output, router);
    const reading = new Reading(router, flight, id);
    const voice = new Voice(flight, counters);
    const holding = new Holding(this, { router, flight, input, voice });
    const privateConnection = new PrivateConnection(this, router, flight);
    const parts = { router, flight, output, reading, holding, privateConnection, maxPipeline };
    const lanes = new LaneChoice(this, parts);
    this.output = output;
    this.input = input;
    this.flight = flight;
    this.reading = reading;
    this.holding = holding;
    this.privateConnection = privateConnection;
    this.lanes = lanes;
    this.voice = voice;
    this.intake = new Intake(this, { socket, input, flight, reading, lanes, router, table, limits });
    this.messages = new Messages(this, { router, output, flight, voice });
    this.profile = router.profiles.get(ANONYMOUS, 0, 2);
    this.profile.users++;
    this.activeMs = router.coarseMs;
    this.createdMs = this.activeMs;
  }

  /** What its client speaks. */
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

  get isDraining(): boolean {
    return this.draining;
  }

  /** It does not go on at the moment. */
  get isBlocked(): boolean {
    return this.blocked !== "no";
  }

  /** What CLIENT LIST tells of its socket and buffers. */
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
      const used = this.take(buf, 0, end, false);
      if (used < end && !this.closed) this.keep(buf, used, end);
      return;
    }
    this.keep(buf, 0, end);
    if (this.blocked === "no") this.pump();
  }

  /** Takes what it can; see `Intake`. */
  private take(buf: Buffer, start: number, end: number, owned: boolean): number {
    if (this.output.congested) this.block("output");
    return this.intake.take(buf, start, end, owned);
  }

  /** Keeps input for later, and stops reading when that is more than the session may have waiting. */
  private keep(buf: Buffer, start: number, end: number): void {
    if (this.closeReason !== null) return;
    const hasRoom = this.holding.grow(end - start);
    this.intake.keep(buf, start, end);
    if (this.blocked === "no") return;
    const most = this.blocked === "hold" ? this.context.maxHeldBytes : this.context.maxWaitingBytes;
    if (!hasRoom || this.input.length >= most) this.intake.pause();
  }

  /** Goes on: what has to be sent again first, then the input. */
  private pump(): void {
    const { flight, holding, input } = this;
    while (!flight.sendAgain()) {
      if (this.blocked === "no" && flight.count > 0) this.block("drain");
      if (this.blocked !== "no") return;
      holding.end("failed");
      flight.refuseAgain(() => holding.refusal(), holding.lacks);
    }
    if (!input.isEmpty && this.closeReason === null) {
      const used = this.take(input.buffer, input.start, input.end, true);
      if (this.closed) return;
      if (this.closeReason === null) input.consume(used - input.start);
      else input.clear();
    }
    if (this.blocked !== "no") return;
    holding.end("released");
    this.intake.resume();
    if (flight.isEmpty && this.isOver()) this.hangUp();
  }

  private isOver(): boolean {
    return this.ended || this.closeReason !== null || this.draining;
  }

  get isTaking(): boolean {
    return this.blocked === "no" && this.closeReason === null;
  }

  get isSharing(): boolean {
    if (!this.profile.accepted || this.context.pause.level !== NOT_PAUSED || this.skip !== "no") return false;
    const { lane, hasStream } = this.privateConnection;
    return this.transaction === null && !this.output.isSubscriber && lane === null && !hasStream;
  }

  takeFrame(
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
      if (wide === null || !this.lanes.mayUse(wide)) return wide === null && this.holding.wait(start);
      this.send({ command, kind: command.kind as PlainKind }, wide, { buf, start, end, owned });
      return true;
    }
    if (command.kind !== SPECIAL && this.isSharing) return this.noWay(command, buf, start);
    return special(this, command, buf, start, end, owned);
  }

  /** Sends one frame that is not part of a run. */
  send(what: Sending, lane: Lane, frame: Piece): void {
    // The lane may take the input's buffer over: it must not be moved or overwritten from now on.
    if (frame.owned && frame.end - frame.start > LARGE_BYTES) this.input.lend(frame.buf);
    const slots =
      what.slots ?? slotsOf(this.router, what.command, what.kind, requestArgs(frame.buf, frame.start));
    const sending = { ...what, slots };
    const caching = this.privateConnection.tracking?.caching ?? null;
    if (caching === null) this.flight.send(sending, lane, frame);
    else {
      const unit = withCaching(caching, sending, frame);
      this.flight.send(unit.what, lane, unit.frame);
    }
    this.onSent();
  }

  onSent(): void {
    this.holding.end("released");
  }

  refuseStream(problem: string): false {
    this.flight.say(encodeError(problem));
    this.finish(problem.startsWith("ERR proxy:") ? "request-limit" : "protocol-error");
    return false;
  }

  // Waiting

  block(why: Exclude<Blocked, "no">): false {
    this.blocked = why;
    return false;
  }

  /** Whether nothing is on the way; if something is, the session waits for it. */
  isDrained(): boolean {
    return this.flight.isEmpty || this.block("drain");
  }

  /** A request was not given a lane. @returns true when it was answered all the same. */
  noWay(command: Command, buf: Buffer, start: number): boolean {
    if (this.blocked !== "no") return false;
    // Health checks are answered while nobody can be asked.
    if (command.name === "ping" && isBare(buf, start)) {
      this.voice.say(PONG);
      return true;
    }
    return this.holding.wait(start, this.holding.lacks);
  }

  /** Takes nothing more for a while. */
  pauseFor(pauseMs: number): void {
    this.blocked = "pause";
    setTimeout(() => {
      if (this.blocked === "pause") this.goOn();
    }, pauseMs);
  }

  isSkipOver(): boolean {
    if (this.skip !== "taken") return true;
    if (!this.isDrained()) return false;
    this.skip = "no";
    this.flight.muted = false;
    return true;
  }

  /** The answer to a question of the next command, which waits for it. */
  answered(question: Question, answer: Answer): void {
    this.inquiry.answered(question, answer);
    this.router.turn.wakeLater(this);
  }

  // Going on

  wake(): void {
    if (this.closed) return;
    switch (this.blocked) {
      case "hold":
        // What came back from a lost connection stands before the request that waits, and may have a way.
        if (this.flight.hasAgain && this.flight.count === 0) this.holding.retry();
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
        if (this.inquiry.told === null) return;
        break;
      case "proof":
      case "no":
        break;
    }
    const { told } = this.inquiry;
    this.blocked = "no";
    this.pump();
    this.inquiry.outlive(told);
    // What it was held for may have been answered by the proxy itself, and nothing was sent.
    if (this.blocked === "no") this.holding.end("released");
  }

  tryAgain(): void {
    if (this.closed || this.blocked !== "hold") return;
    this.blocked = "no";
    this.pump();
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

  pauseEnded(): void {
    if (this.blocked === "client-pause") this.goOn();
  }

  /** What it waited for is over: it goes on in a moment. */
  goOn(): void {
    this.blocked = "no";
    this.router.turn.wakeLater(this);
  }

  // What the flight reports

  onProgress(): void {
    const { flight } = this;
    if (flight.count === 0) this.privateConnection.onDrained();
    if (flight.hasAgain && this.blocked === "no") this.block("drain");
    const mayGoOn =
      flight.count === 0 || (this.blocked === "pipeline" && flight.count * 2 < this.context.maxPipeline);
    if (mayGoOn && (this.blocked !== "no" || this.isOver())) this.router.turn.wakeLater(this);
  }

  wayFor(request: Request): Lane | Buffer | null {
    const { holding, lanes, router } = this;
    const lane = lanes.again(request);
    if (lane === null) {
      if (this.blocked !== "no") return null;
      if (holding.mustNotWait) return this.voice.refusal(NO_WAITING);
      if (!this.draining) holding.begin(holding.waitsSince(request));
      return null;
    }
    request.wayFoundAtMs = router.nowMs();
    const isBarrier = request.rewrite?.isBarrier === true;
    // What follows a call that waits, or that changes its connection, waits for it, as it did before.
    const isAlone = request.bond === "blocking" || request.bond === "change";
    if (isBarrier || isAlone) this.block("drain");
    return lane;
  }

  twinLane(): Lane | null {
    return this.reading.twinLane(this.profile);
  }

  onTwinAnswered(lane: Lane): void {
    this.reading.answeredBy(lane);
  }

  onSpecialDone(request: Request, failed: boolean): void {
    // What a stream brings from now on is no part of the reply that was skipped.
    if (request.bond === "stream" && this.skip === "taken" && this.flight.isEmpty) this.isSkipOver();
    this.privateConnection.answered(request, failed);
  }

  onLostAgain(pauseMs: number): void {
    // The answer that it waits for comes before anything else goes on.
    if (this.blocked !== "hold" && this.blocked !== "answer") this.pauseFor(pauseMs);
  }

  onGivenUp(): void {
    if (this.blocked === "hold") this.holding.retry();
    else this.router.turn.wakeLater(this);
  }

  // Who the client is

  /** From now on requests go through connections of this profile. */
  useProfile(profile: Profile): void {
    profile.users++;
    this.profile.users--;
    this.profile = profile;
  }

  // Life

  /** Nothing on the way, nothing waiting, no stream of messages, and not a byte since `beforeMs`. */
  isIdleSince(beforeMs: number): boolean {
    const isQuiet = this.flight.isEmpty && this.blocked === "no" && this.privateConnection.lane === null;
    return isQuiet && !this.messages.isSubscriber && this.activeMs < beforeMs;
  }

  onEnd(): void {
    this.ended = true;
    const { inBlockingCall, monitor } = this.privateConnection;
    // A client that left while it waits is not waited for: its requests are dropped.
    const waits = this.blocked === "hold" || this.blocked === "client-pause" || inBlockingCall;
    if (!waits && monitor === null && !this.messages.isSubscriber) {
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
    const isSubscriber = this.messages.isSubscriber && subscriberBufferBytes < outputBufferBytes;
    this.destroy(isSubscriber ? "subscriber-limit" : "output-limit");
  }

  /** The proxy is shutting down: what is on the way is answered, what waits for a master is refused. */
  drain(): void {
    if (this.closed || this.draining) return;
    this.draining = true;
    if (this.holding.heldSinceMs !== 0) this.holding.expire(Number.POSITIVE_INFINITY);
    this.router.turn.wakeLater(this);
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
    this.holding.end(reason === "client" ? "left" : "failed");
    this.intake.resume();
    this.router.counters.closed[reason]++;
    this.profile.users--;
    this.input.clear();
    this.flight.clear();
    this.reading.leave();
    this.transaction = null;
    this.messages.end();
    this.privateConnection.end();
    this.context.onClose(this);
  }
}

/** "PING" without an argument: the frame begins with one element. */
function isBare(buf: Buffer, start: number): boolean {
  return buf[start + 1] === 49 && buf[start + 2] === 13;
}
