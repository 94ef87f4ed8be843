/**
 * CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR: client-side caching. What a server tracks it tracks
 * for a connection, so a client that tracks has one of its own, to the master, and all it asks goes there.
 *
 * When that connection is lost the client is told once to forget everything: nothing tells it any more what
 * has changed. Until the next one tracks again nothing is read for it.
 */
import { MASTER_READ } from "../commands/command.ts";
import { encodeNull, encodeRequest, encodeValue, type Protocol } from "../resp/encode.ts";
import { ChangedReply, type Rewrite } from "../upstream/request.ts";
import { flushAll, type Invalidations, type Redirecting } from "./invalidations.ts";
import type { Session } from "./session.ts";

import { type Frame, isDone, privateLane, say, sendPlain, sendPrivate, wholeOf } from "./ways.ts";

/** A number that no connection has: the server says then what it says of a client that does not exist. */
const NO_SUCH_ID = "9223372036854775807";

const OK_REPLY = "+OK\r\n";

/** One CLIENT TRACKING ON as the client sent it. */
interface Order {
  readonly args: readonly Buffer[];
  /** Which argument is the client to redirect to; -1 = none. */
  readonly redirectAt: number;
}

/** What a client has the server track. */
export class Tracking implements Redirecting {
  /** Since it was off last: prefixes add up, other options replace each other. */
  private readonly orders: Order[] = [];
  /** The client that gets the messages, if that is another one. */
  redirectId: number | null = null;
  invalidations: Invalidations | null = null;
  /** CLIENT CACHING that is to be said again before the next command. */
  caching: Buffer | null = null;
  /** The client must be told to forget everything as soon as nothing it asked before is on the way. */
  flushDue = false;
  bytes = 0;
  private readonly session: Session;

  constructor(session: Session) {
    this.session = session;
  }

  add(order: Order): void {
    const isKnown = this.orders.some(
      ({ args }) => args.length === order.args.length && args.every((arg, i) => arg.equals(order.args[i]!)),
    );
    if (isKnown) return;
    this.orders.push(order);
    this.bytes += costOf(order.args);
  }

  /** The connection of another client takes the messages from now on; null = its own. */
  redirectTo(id: number | null, invalidations: Invalidations | null): void {
    if (this.invalidations !== invalidations) this.invalidations?.remove(this);
    this.redirectId = id;
    this.invalidations = invalidations;
    invalidations?.add(this);
  }

  /** Whether tracking can be switched on again on another connection. */
  get isReady(): boolean {
    return this.invalidations === null || this.invalidations.serverId !== null;
  }

  /** What to send on a new connection. */
  requests(): Buffer[] {
    // Broken as it is with Redis: the client that got the messages has left.
    if (this.redirectId !== null && this.invalidations === null) return [];
    return this.orders.map((order) => requestOf(order, this.invalidations));
  }

  onRedirectReady(): void {
    this.session.trackAgain();
  }

  onRedirectBroken(): void {
    this.invalidations = null;
  }

  /** Tells whoever gets the messages to forget everything. */
  flush(): void {
    if (this.invalidations !== null) this.invalidations.flushLater();
    else if (this.redirectId === null && this.session.protocol === 3) this.session.deliverShared(flushAll());
  }

  end(): void {
    this.invalidations?.remove(this);
  }
}

function costOf(args: readonly Buffer[]): number {
  return args.reduce((bytes, arg) => bytes + arg.length + 16, 0);
}

function requestOf({ args, redirectAt }: Order, invalidations: Invalidations | null): Buffer {
  if (redirectAt < 0) return encodeRequest(args);
  const id = invalidations?.serverId;
  return encodeRequest(args.with(redirectAt, Buffer.from(id == null ? NO_SUCH_ID : String(id))));
}

/** Where CLIENT TRACKING names the client to redirect to (networking.c, clientCommand); -1 = nowhere. */
export function redirectIndex(args: readonly Buffer[]): number {
  for (let i = 3; i + 1 < args.length; i++) {
    const word = args[i]!.toString("latin1").toLowerCase();
    if (word === "redirect") return i + 1;
    if (word === "prefix") i++;
  }
  return -1;
}

/** CLIENT TRACKING on its way: it reads otherwise where the other client's connection has another number. */
class TrackingCall implements Rewrite {
  readonly replies = 1;
  readonly deadlineMs = null;
  private readonly order: Order;
  private readonly invalidations: Invalidations | null;
  private readonly done: () => void;

  constructor(order: Order, invalidations: Invalidations | null, done: () => void) {
    this.order = order;
    this.invalidations = invalidations;
    this.done = done;
  }

  requestFor(_replid: string): Buffer {
    return requestOf(this.order, this.invalidations);
  }

  replyFor(reply: Buffer): Buffer {
    if (reply.toString("latin1") === OK_REPLY) this.done();
    return reply;
  }

  nullReply(protocol: Protocol): Buffer {
    return encodeNull(protocol);
  }
}

/** CLIENT TRACKING …, with the right number of words. */
export function tracking(session: Session, frame: Frame): boolean {
  const args = frame.args.map((arg) => Buffer.from(arg));
  const isOn = args[2]?.toString("latin1").toLowerCase() === "on";
  if (!isOn && session.tracking === null) return sendPlain(session, frame, MASTER_READ);
  const redirectAt = isOn ? redirectIndex(args) : -1;
  const redirectId = redirectAt < 0 ? null : Number(args[redirectAt]!.toString("latin1"));
  const target = redirectId === null ? null : (session.context.sessions.get(redirectId) ?? null);
  const invalidations = target?.takeInvalidations() ?? null;
  if (invalidations !== null && !isReady(session, frame, invalidations)) return isDone(session);
  const most = session.context.limits.subscriptionBytes;
  if (isOn && (session.tracking?.bytes ?? 0) + costOf(args) > most) {
    session.refuse(`ERR proxy: too many prefixes are tracked, limits.subscriptionBytes (${most} bytes)`);
    return true;
  }
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  lane.carriesMessages = true;
  const order = { args, redirectAt };
  const rewrite = new TrackingCall(order, invalidations, () => {
    if (!isOn) return session.endTracking();
    session.tracking ??= new Tracking(session);
    session.tracking.add(order);
    session.tracking.redirectTo(redirectId === 0 ? null : redirectId, invalidations);
  });
  session.send(
    { command: frame.command, kind: MASTER_READ, bond: "stream", rewrite },
    lane,
    wholeOf(rewrite.requestFor("")),
  );
  // What follows depends on whether it was accepted.
  session.block("drain");
  return true;
}

/** Whether the other client's connection has a number; asked for if not. False: see `isAccepted`. */
function isReady(session: Session, frame: Frame, invalidations: Invalidations): boolean {
  session.takeAnswer("redirect");
  if (invalidations.serverId !== null) return true;
  if (!session.isDrained()) return false;
  if (!session.router.writable) {
    session.waitToAsk(frame.start);
    return false;
  }
  session.block("answer");
  invalidations.whenReady(() => session.answered("redirect", { kind: "yes" }));
  return false;
}

/** CLIENT CACHING YES|NO: it is about the next command, wherever that will be sent to. */
export function caching(session: Session, frame: Frame): boolean {
  if (session.tracking === null) return sendPlain(session, frame, MASTER_READ);
  const sent = sendPrivate(session, frame, MASTER_READ, "none");
  if (sent !== null) return sent;
  session.tracking.caching = Buffer.from(frame.buf.subarray(frame.start, frame.end));
  return true;
}

/** CLIENT GETREDIR: the number of a client of the proxy; 0 = its own connection, -1 = it does not track. */
export function getRedir(session: Session): true {
  const { tracking } = session;
  return say(session, encodeValue(tracking === null ? -1 : (tracking.redirectId ?? 0), session.protocol));
}

/** CLIENT TRACKINGINFO: the server's words, with the proxy's number for the other client. */
export function trackingInfo(session: Session, frame: Frame): boolean {
  const { tracking } = session;
  if (tracking === null) return sendPlain(session, frame, MASTER_READ);
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  const bytes = frame.buf.subarray(frame.start, frame.end);
  const rewrite = new ChangedReply(bytes, (reply) => withRedirect(reply, tracking.redirectId));
  session.send({ command: frame.command, kind: MASTER_READ, rewrite }, lane, wholeOf(Buffer.from(bytes)));
  return true;
}

function withRedirect(reply: Buffer, id: number | null): Buffer {
  if (id === null) return reply;
  const text = reply.toString("latin1").replace(/(\$8\r\nredirect\r\n:)\d+/, `$1${id}`);
  return Buffer.from(text, "latin1");
}

/**
 * A push that says that the client that got the messages is gone names it by its connection's number
 * (tracking.c, sendTrackingMessage); the client knows it by the proxy's.
 */
export function withClientsId(tracking: Tracking, buf: Buffer, start: number, end: number): Buffer | null {
  if (end - start < BROKEN.length || buf.toString("latin1", start, start + BROKEN.length) !== BROKEN) {
    return null;
  }
  return Buffer.from(`${BROKEN}:${tracking.redirectId ?? 0}\r\n`, "latin1");
}

const BROKEN = ">2\r\n$21\r\ntracking-redir-broken\r\n";
