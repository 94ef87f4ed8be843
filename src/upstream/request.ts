import type { Command, Kind, SPECIAL } from "../commands/command.ts";
import type { Protocol } from "../resp/encode.ts";
import type { Chunk } from "./chunk.ts";
import type { Lane } from "./lane.ts";

/**
 * Where a request can be repeated or not is decided by this; SPECIAL commands are plain once they are sent.
 */
export type PlainKind = Exclude<Kind, typeof SPECIAL>;

/** What an error reply that says "did not run" says about the node. */
export type NotRunCause = "not-master" | "loading" | "link-down";

/**
 * What ties a request to its private connection: it cannot be repeated on a shared one.
 * watch: WATCH itself; watched: the EXEC of watched keys; blocking: it waits there for as long as it likes;
 * stream: it turns the connection into a stream of messages.
 */
export type Bond = "none" | "watch" | "watched" | "blocking" | "stream";

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
  /** What it is answered then. */
  nullReply(protocol: Protocol): Buffer;
  /** One of the replies before the last was an error. */
  firstRefused?(): void;
  /** Its answer where no server need be asked (any more); null = it has to be sent. */
  knownReply?(): Buffer | null;
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
  /** On a connection that also carries messages: takes the frame if it is one. */
  takesMessage(buf: Buffer, start: number, end: number, next: Request | null): boolean;
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
  /** Connections that were lost while it was unanswered. */
  losses = 0;
  /** Times it was refused as not run. */
  refusals = 0;
  bond: Bond = "none";
  /** Its place among the session's requests; -1 until it is sent for the first time. */
  order = -1;
  /** All its replies are the client's, as the confirmations of SUBSCRIBE are. */
  passesAll = false;
  /** Of these, replies the client got already before the request had to be sent again. */
  passed = 0;
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
export const NOBODY: RequestOwner = {
  exceptional: true,
  movable: false,
  emit() {},
  emitOwned() {},
  settled() {},
  takesMessage() {
    return false;
  },
  intermediate() {},
  exception() {
    return false;
  },
  lost() {},
  refused() {},
  connectionGone() {},
};
