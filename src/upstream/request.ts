import type { Command, Kind, SPECIAL } from "../commands/command.ts";
import { encodeNull, type Protocol } from "../resp/encode.ts";
import type { Chunk } from "./chunk.ts";
import type { Lane } from "./lane.ts";
import type { Severed } from "./severed.ts";

/**
 * Where a request can be repeated or not is decided by this; SPECIAL commands are plain once they are sent.
 */
export type PlainKind = Exclude<Kind, typeof SPECIAL>;

/** Which slots of the table of writes (routing/freshness.ts) a request touches: some, or one of these two. */
export type Slots = number | readonly number[];
/** Any key: which ones is not known. */
export const EVERYTHING = -1;
/** No key. */
export const NOTHING = -2;

/** What an error reply that says "did not run" says about the node. */
export type NotRunCause = "not-master" | "loading" | "link-down" | "no-replicas";

/**
 * What ties a request to its private connection: it cannot be repeated on a shared one.
 * watch: WATCH itself; watched: the EXEC of watched keys; blocking: it waits there for as long as it likes;
 * stream: it turns the connection into a stream of messages; node: it is meant for this node as it is now;
 * change: it may leave the connection with another user, database or protocol.
 */
export type Bond = "none" | "watch" | "watched" | "blocking" | "stream" | "node" | "change";

/** A request that depends on the node it is sent to. */
export interface Rewrite {
  /** Replies it gets as `requestFor` made it last; all but the last are not the client's. */
  readonly replies: number;
  /** The request for the node whose history this is. */
  requestFor(replid: string): Buffer;
  /** The reply as the client is to see it. */
  replyFor(reply: Buffer): Buffer;
  /** When it stops waiting by its own word, monotonic ms; null = it does not wait, or for ever. */
  readonly deadlineMs: number | null;
  /** What follows waits for its reply, also where it is sent again: that may change the session. */
  readonly isBarrier?: boolean;
  /** Whether the request can be made now; always if absent. */
  isReady?(): boolean;
  /** What it is answered then. */
  nullReply(protocol: Protocol): Buffer;
  /** Why a reply that is no error says that nothing of the request ran; absent or null = it is the answer. */
  refusalIn?(reply: Buffer): NotRunCause | null;
  /** One of the replies before the last was an error. */
  firstRefused?(): void;
  /** Its answer where no server need be asked (any more); null = it has to be sent. */
  knownReply?(): Buffer | null;
}

/** A request that reads alike for every node, and whose reply the client is to see otherwise. */
export class ChangedReply implements Rewrite {
  readonly replies = 1;
  readonly deadlineMs = null;
  readonly replyFor: (reply: Buffer) => Buffer;
  private readonly frame: Buffer;

  /** @param frame the request; copied. @param replyFor gets every reply, errors too. */
  constructor(frame: Buffer, replyFor: (reply: Buffer) => Buffer) {
    this.frame = Buffer.from(frame);
    this.replyFor = replyFor;
  }

  requestFor(): Buffer {
    return this.frame;
  }

  nullReply(protocol: Protocol): Buffer {
    return encodeNull(protocol);
  }
}

/** What is known of a transaction that is sent as one unit. */
export interface UnitFacts {
  /** It leaves the same behind when it runs twice. */
  readonly isIdempotent: boolean;
  /** A command in it writes or may replicate. */
  readonly mayReplicate: boolean;
}

/** Who sent a request and gets its reply. */
export interface RequestOwner {
  /** Reply bytes, valid during the call only. */
  emit(buf: Buffer, start: number, end: number): void;
  /** Reply bytes that the owner may keep. */
  emitOwned(bytes: Buffer): void;
  /** The request's last reply was emitted (right before, or in the same run of bytes). */
  settled(request: Request, nowMs: number): void;
  /**
   * While true, every reply comes through `exception`: replies of requests that follow one that has to be
   * sent again must not be emitted before it.
   */
  readonly exceptional: boolean;
  /** A push, or any frame on a connection that also carries messages: takes it if it is a message. */
  takesMessage(buf: Buffer, start: number, end: number): boolean;
  /** Any reply but the last (`request.replies > 1`): of a transaction, or a confirmation. */
  intermediate(request: Request, buf: Buffer, start: number, end: number): void;
  /**
   * The last reply where it is an error, or any while `exceptional`: the owner emits it, or keeps the request
   * to send it again.
   * @returns whether the owner keeps the request and with it the bytes.
   */
  exception(request: Request, buf: Buffer, start: number, end: number, nowMs: number): boolean;
  /** The connection died with the request unanswered. `sent` is false when no byte of it was written. */
  lost(request: Request, sent: boolean): void;
  /** The connection cannot be had because the server refuses: its error reply. The request did not run. */
  refused(request: Request, error: Buffer): void;
  /**
   * Nothing it has on the way may have an effect: all of it can be sent elsewhere without changing an
   * order.
   */
  readonly movable: boolean;
  /**
   * It has been unanswered for as long as a read may be (`reads.hedge`).
   * @returns whether it was sent to another node as well.
   */
  overdue?(request: Request): boolean;
  /** The private connection takes nothing more, for whatever reason; requests come back through `lost`. */
  connectionGone(lane: Lane): void;
}

/** One request on its way: the one object that is made per request. */
export class Request {
  owner: RequestOwner;
  readonly command: Command;
  /** Whether it may be repeated, and where it may run. */
  kind: PlainKind;
  /** Where its bytes are. */
  chunk: Chunk;
  start: number;
  end: number;
  /** What it may change; of a read, what the master shows of the data. */
  slots: Slots = EVERYTHING;
  /** Replies it gets; all but the last are not the client's (a transaction is one request). */
  replyCount: number;
  /** Replies still to come. */
  replies: number;
  /** Next in the lane's order. */
  next: Request | null = null;
  /** What the proxy has to say to the client right after this request's reply. */
  trailer: Buffer | null = null;
  /** When it was given to the lane, monotonic ms. */
  sinceMs = 0;
  /** Why a queued command of this transaction was refused; it decides what its EXECABORT means. */
  queueRefusal: NotRunCause | null = null;
  /** The refusal it is sent again for, and the epoch it came in. */
  refusal: Buffer | null = null;
  refusedInEpoch = -1;
  /** It was lost with a connection once, and sent again although it may have run there. */
  mayHaveRun = false;
  /** It waits to be sent again for that, and it is not known yet whether it may be. */
  isInDoubt = false;
  /** What is left of the connection that it was lost with last; null = nothing. */
  severed: Severed | null = null;
  unit: UnitFacts | null = null;
  /** Connections that were lost while it was unanswered. */
  losses = 0;
  /** Since when it waits to be sent again, and when a way was last found for that, monotonic ms; 0 = not. */
  waitsSinceMs = 0;
  wayFoundAtMs = 0;
  /** Times it was refused as not run; and for want of replicas, which passes. */
  refusals = 0;
  settlings = 0;
  bond: Bond = "none";
  /** Its place among the session's requests; -1 until it is sent for the first time. */
  order = -1;
  /** It is confirmed name by name, as SUBSCRIBE is; refused as a whole, it gets one reply. */
  confirmsEach = false;
  /** It reads otherwise for each node, and so does its reply. */
  rewrite: Rewrite | null = null;
  /** For a script that the server turns out not to have: what to send instead; null = nothing helps. */
  repair: (() => Buffer | null) | null = null;
  /** What to take back when the server refuses it. */
  undo: (() => void) | null = null;
  /** Sent away from a silent node once already. */
  moved = false;

  constructor(
    owner: RequestOwner,
    command: Command,
    kind: PlainKind,
    chunk: Chunk,
    start: number,
    end: number,
    replies: number,
  ) {
    this.owner = owner;
    this.command = command;
    this.kind = kind;
    this.chunk = chunk;
    this.start = start;
    this.end = end;
    this.replyCount = replies;
    this.replies = replies;
  }
}

/** Takes the place of an owner that left or whose request was sent elsewhere: replies are dropped. */
export class Nobody implements RequestOwner {
  readonly exceptional: boolean = true;
  readonly movable: boolean = false;
  emit(_buf: Buffer, _start: number, _end: number): void {}
  emitOwned(_bytes: Buffer): void {}
  settled(_request: Request, _nowMs: number): void {}
  takesMessage(_buf: Buffer, _start: number, _end: number): boolean {
    return false;
  }
  intermediate(_request: Request, _buf: Buffer, _start: number, _end: number): void {}
  exception(_request: Request, _buf: Buffer, _start: number, _end: number, _nowMs: number): boolean {
    return false;
  }
  lost(_request: Request, _sent: boolean): void {}
  refused(_request: Request, _error: Buffer): void {}
  connectionGone(_lane: Lane): void {}
}

export const NOBODY: RequestOwner = new Nobody();
