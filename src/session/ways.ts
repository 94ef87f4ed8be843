/** The ways a command can go once it is known what it needs: a shared lane, or the private connection. */
import type { Command } from "../commands/command.ts";
import { OK, type Protocol } from "../resp/encode.ts";
import type { Lane } from "../upstream/lane.ts";
import type { Bond, PlainKind, Rewrite, Slots } from "../upstream/request.ts";
import type { Piece, Sending } from "./flight.ts";
import type { Session } from "./session.ts";
import { slotsOf } from "./slots.ts";

/** One command as it lies in a buffer. */
export interface Frame extends Piece {
  readonly command: Command;
  /** Views into the buffer, the name first. */
  readonly args: Buffer[];
}

/** A frame that the proxy made itself. */
export function wholeOf(buf: Buffer): Piece {
  return { buf, start: 0, end: buf.length, owned: true };
}

/** A special command that turns out to be a plain request. */
export function sendPlain(session: Session, frame: Frame, kind: PlainKind): boolean {
  const { privateConnection } = session;
  if (privateConnection.lane !== null) privateConnection.release();
  if (privateConnection.lane !== null || privateConnection.hasStream) return onPrivate(session, frame, kind);
  const slots = slotsOf(session.router, frame.command, kind, frame.args);
  const lane = session.lanes.route(kind, slots);
  if (lane === null) return session.noWay(frame.command, frame.buf, frame.start);
  session.send({ command: frame.command, kind, slots }, lane, frame);
  return true;
}

/** Where a command goes that is plain but for what becomes of its reply; null = it has no way now. */
export function laneFor(session: Session, kind: PlainKind, slots: Slots): Lane | null {
  const { privateConnection } = session;
  if (privateConnection.lane === null && !privateConnection.hasStream)
    return session.lanes.route(kind, slots);
  const lane = session.lanes.openPrivate();
  return typeof lane === "string" ? null : lane;
}

/** Sends a command that is plain but for its rewrite. */
export function sendRewritten(session: Session, frame: Frame, rewrite: Rewrite): boolean {
  const { command } = frame;
  const slots = slotsOf(session.router, command, command.plainKind, frame.args);
  const lane = laneFor(session, command.plainKind, slots);
  if (lane === null) return session.noWay(command, frame.buf, frame.start);
  const buf = rewrite.requestFor(lane.target.replid ?? "");
  session.send({ command, kind: command.plainKind, rewrite, slots }, lane, wholeOf(buf));
  return true;
}

// Private connections

/** The session's private connection; where there is none now, the command waits or was answered. */
export function privateLane(session: Session, frame: Frame): Lane | "wait" | "answered" {
  const lane = session.lanes.openPrivate();
  if (lane === "blocked") return "wait";
  if (lane === "no-master") return session.holding.wait(frame.start) ? "answered" : "wait";
  if (lane !== "no-room") return lane;
  refusePrivate(session);
  return "answered";
}

/** There may be no more private connections. @returns true: the command is taken. */
export function refusePrivate(session: Session): true {
  session.voice.refuse(session.router.noPrivateRoomText);
  return true;
}

/** Sends a command on the private connection. @returns null when it was sent, else what to return. */
export function sendPrivate(session: Session, frame: Frame, kind: PlainKind, bond: Bond): boolean | null {
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  session.send({ command: frame.command, kind, bond }, lane, frame);
  return null;
}

/** A plain request of a session that has a private connection for something else. */
export function onPrivate(session: Session, frame: Frame, kind: PlainKind): boolean {
  return sendPrivate(session, frame, kind, "none") ?? true;
}

/**
 * A request that CLIENT CACHING goes before, in one unit with it: lost between the two it would be about
 * another command, or about none.
 */
class Preceded implements Rewrite {
  private readonly before: Buffer;
  private readonly rewrite: Rewrite;

  constructor(before: Buffer, rewrite: Rewrite) {
    this.before = before;
    this.rewrite = rewrite;
  }

  get replies(): number {
    return this.rewrite.replies + 1;
  }

  get deadlineMs(): number | null {
    return this.rewrite.deadlineMs;
  }

  get isBarrier(): boolean {
    return this.rewrite.isBarrier === true;
  }

  isReady(): boolean {
    return this.rewrite.isReady?.() !== false;
  }

  requestFor(replid: string): Buffer {
    return Buffer.concat([this.before, this.rewrite.requestFor(replid)]);
  }

  replyFor(reply: Buffer): Buffer {
    return this.rewrite.replyFor(reply);
  }

  nullReply(protocol: Protocol): Buffer {
    return this.rewrite.nullReply(protocol);
  }

  firstRefused(): void {
    this.rewrite.firstRefused?.();
  }

  knownReply(): Buffer | null {
    return this.rewrite.knownReply?.() ?? null;
  }
}

/** What is sent, in one unit with the CLIENT CACHING that is about it. */
export function withCaching(
  caching: Buffer,
  what: Sending,
  { buf, start, end }: Piece,
): { readonly what: Sending; readonly frame: Piece } {
  const frame = wholeOf(Buffer.concat([caching, buf.subarray(start, end)]));
  const replies = (what.rewrite?.replies ?? what.replies ?? 1) + 1;
  if (what.rewrite === undefined) return { what: { ...what, replies }, frame };
  return { what: { ...what, replies, rewrite: new Preceded(caching, what.rewrite) }, frame };
}

/** CLIENT CACHING that the next command is to be sent with; null = none. */
export function takeCaching(session: Session): Buffer | null {
  const { tracking } = session.privateConnection;
  if (tracking === null) return null;
  const { caching } = tracking;
  tracking.caching = null;
  return caching;
}

/** The sub-command's name in upper case, as far as one can be known; "" = there is none. */
export function subcommandOf(args: readonly Buffer[]): string {
  return args[1]?.toString("latin1", 0, 16).toUpperCase() ?? "";
}

// What a command says

/** A reply of the proxy's own; the command is taken. */
export function say(session: Session, bytes: Buffer): true {
  session.voice.say(bytes);
  return true;
}

/**
 * A reply of the proxy's own that takes time: nothing more is taken until it was said. The command is taken.
 * @param reply a promise that fails is a bug.
 */
export function sayLater(session: Session, reply: Promise<Buffer>): true {
  session.block("answer");
  const go = (bytes: Buffer): void => {
    if (session.isClosed) return;
    session.voice.say(bytes);
    session.goOn();
  };
  reply.then(go, (error: unknown) => {
    session.context.onFault(error);
    go(session.voice.refusal("ERR proxy: not answered: a bug, its log says more"));
  });
  return true;
}

/** What a function that is not accepted returns: whether the command is done with (its error was said). */
export function isDone(session: Session): boolean {
  return !session.isBlocked;
}

export function quit(session: Session): true {
  session.voice.say(OK);
  session.finish("client");
  return true;
}

/** What a browser says to a port that it mistakes for a web server's is the end (server.c). */
export function forbidden(session: Session): true {
  session.finish("protocol-error");
  return true;
}
