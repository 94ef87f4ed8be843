/**
 * CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR: client-side caching. What a server tracks it tracks
 * for a connection, so a client that tracks has one of its own, to the master, and all it asks goes there.
 *
 * When that connection is lost the client is told to forget everything: nothing tells it any more what has
 * changed. Until the server has confirmed that it tracks on the next one nothing is read for the client. A
 * while after that it is told once more, see `flushAgainLater`.
 */
import { MASTER_READ } from "../../commands/command.ts";
import { encodeNull, encodeRequest, encodeValue, OK, type Protocol } from "../../resp/encode.ts";
import { ask } from "../../upstream/ask.ts";
import type { Lane } from "../../upstream/lane.ts";
import { ChangedReply, type Rewrite } from "../../upstream/request.ts";
import type { Session } from "../session.ts";
import { type Frame, isDone, privateLane, say, sendPlain, wholeOf } from "../ways.ts";
import { flushAll, type Invalidations, type Redirecting } from "./invalidations.ts";

/** A number that no connection has: the server says then what it says of a client that does not exist. */
const NO_SUCH_ID = "9223372036854775807";

/**
 * How long after it is tracked anew a client is told once more to forget everything, ms: longer than a client
 * leaves unread what it gets, and no longer than a cache may be behind.
 */
const FORGET_AGAIN_MS = 500;

/** What CLIENT TRACKING is asked for (networking.c, clientCommand); what is wrong with it the server says. */
export interface TrackingOptions {
  readonly isOn: boolean;
  /** BCAST, OPTIN, OPTOUT, NOLOOP, and what is none of them; lower case. */
  readonly flags: readonly string[];
  readonly prefixes: readonly Buffer[];
  /** The client to redirect to; null = none, or not a number. */
  readonly redirectId: number | null;
  /** Where `redirectId` stands among the arguments; -1 = nowhere. */
  readonly redirectAt: number;
}

export function trackingOptions(args: readonly Buffer[]): TrackingOptions {
  const flags: string[] = [];
  const prefixes: Buffer[] = [];
  let redirectId: number | null = null;
  let redirectAt = -1;
  for (let i = 3; i < args.length; i++) {
    const word = wordOf(args[i]!);
    const next = args[i + 1];
    if (word === "redirect" && next !== undefined) {
      i++;
      // A second one is an error.
      redirectId ??= idOf(next);
      if (redirectAt < 0 && redirectId !== null) redirectAt = i;
    } else if (word === "prefix" && next !== undefined) {
      i++;
      prefixes.push(next);
    } else flags.push(word);
  }
  return { isOn: args[2] !== undefined && wordOf(args[2]) === "on", flags, prefixes, redirectId, redirectAt };
}

/** As the server reads it: up to a NUL (strcasecmp). */
function wordOf(arg: Buffer): string {
  return (arg.toString("latin1", 0, 16).split("\0")[0] ?? "").toLowerCase();
}

/** As the server reads it (util.c, string2ll); null = it says what is wrong. */
function idOf(arg: Buffer): number | null {
  const text = arg.toString("latin1", 0, 32);
  const id = Number(text);
  return /^(?:0|-?[1-9]\d*)$/.test(text) && Number.isSafeInteger(id) ? id : null;
}

/** What a client has the server track. */
export class Tracking implements Redirecting {
  /** As it was asked last; prefixes add up. */
  private flags: readonly string[] = [];
  private readonly prefixes: Buffer[] = [];
  /** BCAST was asked for without a prefix. */
  private isForAllKeys = false;
  /** The client that gets the messages, if that is another one. */
  redirectId: number | null = null;
  private invalidations: Invalidations | null = null;
  /** The connection that the server tracks, as it has confirmed. */
  lane: Lane | null = null;
  /** CLIENT CACHING that the next command is to be sent with. */
  caching: Buffer | null = null;
  /** The client must be told to forget everything as soon as nothing it asked before is on the way. */
  flushDue = false;
  /** What the prefixes count for against limits.subscriptionBytes. */
  bytes = 0;
  private againTimer: NodeJS.Timeout | null = null;
  private readonly session: Session;

  constructor(session: Session) {
    this.session = session;
  }

  /** The server has accepted it (tracking.c, enableTracking). */
  accept(options: TrackingOptions, invalidations: Invalidations | null): void {
    this.flags = options.flags;
    for (const prefix of options.prefixes) this.prefixes.push(prefix);
    this.bytes += costOf(options.prefixes);
    if (options.prefixes.length === 0) this.isForAllKeys = true;
    const before = this.invalidations;
    this.redirectId = options.redirectId;
    // The other client may have left meanwhile.
    this.invalidations = invalidations?.isClosed === false ? invalidations : null;
    this.invalidations?.add(this);
    if (before !== this.invalidations) before?.remove(this);
  }

  /** Whether CLIENT CACHING with this word is accepted (networking.c, clientCommand). */
  takesCaching(word: string): boolean {
    return (
      (word === "yes" && this.flags.includes("optin")) || (word === "no" && this.flags.includes("optout"))
    );
  }

  /** Whether tracking can be switched on on another connection now. */
  get isReady(): boolean {
    return this.invalidations === null || this.invalidations.isReady();
  }

  /** The client that got the messages has left, and with it the messages. */
  get isBroken(): boolean {
    return this.redirectId !== null && this.invalidations === null;
  }

  /**
   * Switches tracking on on a new connection, as it was on the one before.
   * @param answered once: whether the server has accepted all of it; never when the connection is lost.
   */
  start(lane: Lane, answered: (accepted: boolean) => void): void {
    const requests = this.requests();
    let missing = requests.length;
    if (missing === 0) answered(true);
    for (const request of requests) {
      ask(lane, request, (reply) => {
        if (reply === null || missing === 0) return;
        const accepted = reply.equals(OK);
        missing = accepted ? missing - 1 : 0;
        if (missing === 0) answered(accepted);
      });
    }
  }

  private requests(): (string | Buffer)[][] {
    if (this.isBroken) return [];
    const words = ["CLIENT", "TRACKING", "ON", ...this.flags];
    if (this.invalidations !== null)
      words.push("REDIRECT", String(this.invalidations.serverId ?? NO_SUCH_ID));
    const { prefixes } = this;
    if (prefixes.length === 0) return [words];
    const named = [...words, ...prefixes.flatMap((prefix) => ["PREFIX", prefix])];
    // In this order: the other way round the server finds that they overlap.
    return this.isForAllKeys ? [named, words] : [named];
  }

  onRedirectReady(): void {
    this.session.privateConnection.restore();
  }

  onRedirectLost(): void {
    this.session.privateConnection.leave();
  }

  onRedirectBroken(): void {
    this.invalidations = null;
  }

  /** Tells whoever gets the messages to forget everything. */
  flush(): void {
    if (this.invalidations !== null) this.invalidations.flushLater();
    else if (this.session.protocol === 3) {
      this.session.messages.deliverShared(
        this.redirectId === null ? flushAll() : brokenPush(this.redirectId),
      );
    }
  }

  /**
   * Tells it once more, a while later. Some clients keep what they waited for when they are told to forget
   * everything: a reply of the former master that they read together with that, or one of the new master that
   * they read together with its invalidation. (node-redis empties the tables of its cache only, which leaves
   * valid what is still to be put there: `clear` in cache.js.) Nobody would ever tell them to forget that.
   */
  flushAgainLater(): void {
    if (this.againTimer !== null) clearTimeout(this.againTimer);
    this.againTimer = setTimeout(() => {
      this.againTimer = null;
      if (!this.isBroken) this.flush();
    }, FORGET_AGAIN_MS);
  }

  /** A push from the server, as the client is to see it; null = as it is. */
  changedPush(buf: Buffer, start: number, end: number): Buffer | null {
    if (end - start < BROKEN.length || buf.toString("latin1", start, start + BROKEN.length) !== BROKEN) {
      return null;
    }
    // The other client is still there, only its connection is gone: it gets another one.
    return this.isBroken ? brokenPush(this.redirectId ?? 0) : NOTHING;
  }

  end(): void {
    if (this.againTimer !== null) clearTimeout(this.againTimer);
    this.invalidations?.remove(this);
  }
}

const NOTHING = Buffer.alloc(0);

/**
 * The push that says that the client that got the messages is gone (tracking.c, sendTrackingMessage); the
 * server names it by its connection's number, the client knows it by the proxy's.
 */
const BROKEN = ">2\r\n$21\r\ntracking-redir-broken\r\n";

function brokenPush(id: number): Buffer {
  return Buffer.from(`${BROKEN}:${id}\r\n`);
}

function costOf(prefixes: readonly Buffer[]): number {
  return prefixes.reduce((bytes, prefix) => bytes + prefix.length + 64, 0);
}

/** CLIENT TRACKING on its way: it reads otherwise where the other client's connection has another number. */
class TrackingCall implements Rewrite {
  readonly replies = 1;
  readonly deadlineMs = null;
  readonly isBarrier = true;
  private readonly session: Session;
  private readonly args: readonly Buffer[];
  private readonly options: TrackingOptions;
  private readonly invalidations: Invalidations | null;
  private sentId: number | null = null;

  constructor(
    session: Session,
    args: readonly Buffer[],
    options: TrackingOptions,
    invalidations: Invalidations | null,
  ) {
    this.session = session;
    this.args = args;
    this.options = options;
    this.invalidations = invalidations;
  }

  isReady(): boolean {
    return this.invalidations === null || this.invalidations.isReady();
  }

  requestFor(_replid: string): Buffer {
    const { args, options, invalidations } = this;
    if (options.redirectAt < 0) return encodeRequest(args);
    this.sentId = invalidations?.serverId ?? null;
    const id = this.sentId === null ? NO_SUCH_ID : String(this.sentId);
    return encodeRequest(args.with(options.redirectAt, Buffer.from(id)));
  }

  replyFor(reply: Buffer): Buffer {
    const { session, invalidations } = this;
    const { privateConnection } = session;
    if (!reply.equals(OK)) invalidations?.closeIfUnused();
    else if (!this.options.isOn) privateConnection.endTracking();
    else {
      privateConnection.tracking ??= new Tracking(session);
      privateConnection.tracking.accept(this.options, invalidations);
      privateConnection.tracking.lane = privateConnection.lane;
      const isOther = invalidations?.isClosed === false && invalidations.serverId !== this.sentId;
      if (isOther) privateConnection.leave();
    }
    return reply;
  }

  nullReply(protocol: Protocol): Buffer {
    return encodeNull(protocol);
  }
}

/** CLIENT TRACKING …, with the right number of words. */
export function tracking(session: Session, frame: Frame): boolean {
  const args = frame.args.map((arg) => Buffer.from(arg));
  const options = trackingOptions(args);
  if (!options.isOn && session.privateConnection.tracking === null)
    return sendPlain(session, frame, MASTER_READ);
  const most = session.context.limits.subscriptionBytes;
  if (options.isOn && (session.privateConnection.tracking?.bytes ?? 0) + costOf(options.prefixes) > most) {
    session.voice.refuse(
      `ERR proxy: too many prefixes are tracked, limits.subscriptionBytes (${most} bytes)`,
    );
    return true;
  }
  const { redirectId } = options;
  const target = redirectId === null ? null : (session.context.sessions.get(redirectId) ?? null);
  const invalidations = target?.messages.takeInvalidations() ?? null;
  if (invalidations !== null && !isReady(session, frame, invalidations)) return isDone(session);
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  lane.carriesMessages = true;
  const rewrite = new TrackingCall(session, args, options, invalidations);
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
  const answer = session.inquiry.take("redirect");
  if (answer?.kind === "no") {
    session.voice.say(answer.error);
    return false;
  }
  if (invalidations.isReady()) return true;
  if (!session.isDrained()) return false;
  if (answer?.kind === "nobody" || !session.router.writable) {
    session.holding.waitToAsk(frame.start);
    return false;
  }
  session.block("answer");
  invalidations.whenReady((found) => session.answered("redirect", found));
  return false;
}

/**
 * CLIENT CACHING YES|NO: it is about the next command and goes with it, wherever that will be sent to; the
 * errors are the server's.
 */
export function caching(session: Session, frame: Frame): boolean {
  const { tracking } = session.privateConnection;
  const word = wordOf(frame.args[2]!);
  if (tracking === null || !tracking.takesCaching(word)) return sendPlain(session, frame, MASTER_READ);
  tracking.caching = encodeRequest(["CLIENT", "CACHING", word]);
  return say(session, OK);
}

/** CLIENT GETREDIR: the number of a client of the proxy; 0 = its own connection, -1 = it does not track. */
export function getRedir(session: Session): true {
  const { tracking } = session.privateConnection;
  return say(session, encodeValue(tracking === null ? -1 : (tracking.redirectId ?? 0), session.protocol));
}

/** CLIENT TRACKINGINFO: the server's words, with the proxy's number for the other client. */
export function trackingInfo(session: Session, frame: Frame): boolean {
  const { tracking } = session.privateConnection;
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
