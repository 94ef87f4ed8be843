/**
 * Where the invalidation messages go of clients that redirect theirs to another client (CLIENT TRACKING ON
 * REDIRECT id): to a server a connection of that client's own, whose number stands in for the client's.
 */
import type { Protocol } from "../resp/encode.ts";
import type { Router, WaitsForMaster } from "../routing/router.ts";
import type { Wakeable } from "../turn.ts";
import { ask } from "../upstream/ask.ts";
import type { Lane } from "../upstream/lane.ts";
import type { Profile } from "../upstream/profile.ts";
import { Nobody } from "../upstream/request.ts";

/** The client that gets the messages. */
export interface InvalidationTarget {
  readonly protocol: Protocol;
  readonly profile: Profile;
  /** It is subscribed to something: in RESP2 only a subscriber gets these messages. */
  readonly isSubscriber: boolean;
  deliverShared(bytes: Buffer): void;
}

/** A client whose messages go there. */
export interface Redirecting {
  /** The connection has another number than before. */
  onRedirectReady(): void;
  /** The client that got the messages has left. */
  onRedirectBroken(): void;
}

/** "All of it": what is cached is not known to be true any more (tracking.c). */
const FLUSH_ALL = Buffer.from(">2\r\n$10\r\ninvalidate\r\n_\r\n");
const PUSH_HEAD = FLUSH_ALL.length - "_\r\n".length;
const MESSAGE_HEAD = Buffer.from("*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n");

/** Pause before the connection is opened again, ms. */
const PAUSE_MS = 50;

/** The message in RESP2's form; a null stands for everything. */
function asMessage(push: Buffer): Buffer {
  const keys = push.subarray(PUSH_HEAD);
  return Buffer.concat([MESSAGE_HEAD, keys[0] === 95 ? Buffer.from("$-1\r\n") : keys]);
}

/** The message that makes a client that tracks by itself forget everything. */
export function flushAll(): Buffer {
  return FLUSH_ALL;
}

export class Invalidations extends Nobody implements WaitsForMaster, Wakeable {
  wakeQueued = false;
  /** The number to redirect to; null while there is none. */
  serverId: number | null = null;
  private readonly target: InvalidationTarget;
  private readonly router: Router;
  private readonly from = new Set<Redirecting>();
  private lane: Lane | null = null;
  private waiting: (() => void)[] = [];
  private closed = false;

  constructor(target: InvalidationTarget, router: Router) {
    super();
    this.target = target;
    this.router = router;
    this.open();
  }

  get isUnused(): boolean {
    return this.from.size === 0;
  }

  add(one: Redirecting): void {
    this.from.add(one);
  }

  remove(one: Redirecting): void {
    this.from.delete(one);
  }

  /** Calls once there is a number; not at once. */
  whenReady(ready: () => void): void {
    this.waiting.push(ready);
  }

  private open(): void {
    if (this.closed || this.lane !== null) return;
    const { profile } = this.target;
    const { router } = this;
    // RESP3 whatever the client speaks: there the messages need no subscription.
    const own = router.profiles.get(profile.identity, profile.db, 3);
    const lane = router.writable ? router.openPrivate(own, this) : null;
    if (lane === null) return router.whenWritable(this);
    lane.carriesMessages = true;
    this.lane = lane;
    ask(lane, ["CLIENT", "ID"], (reply) => this.opened(reply));
  }

  private opened(reply: Buffer | null): void {
    const id = Number(reply?.toString("latin1", 1) ?? Number.NaN);
    if (this.closed || !Number.isSafeInteger(id)) return;
    this.serverId = id;
    const { waiting } = this;
    this.waiting = [];
    for (const ready of waiting) ready();
    for (const one of this.from) one.onRedirectReady();
  }

  onWritable(): void {
    this.open();
  }

  override takesMessage(buf: Buffer, start: number, end: number): boolean {
    if (buf.compare(FLUSH_ALL, 0, PUSH_HEAD, start, Math.min(end, start + PUSH_HEAD)) !== 0) return false;
    this.deliver(Buffer.from(buf.subarray(start, end)));
    return true;
  }

  private deliver(push: Buffer): void {
    if (this.target.protocol === 3) this.target.deliverShared(push);
    else if (this.target.isSubscriber) this.target.deliverShared(asMessage(push));
  }

  override connectionGone(_lane: Lane): void {
    this.lane = null;
    this.serverId = null;
    if (this.closed) return;
    this.flushLater();
    setTimeout(() => this.open(), PAUSE_MS).unref();
  }

  /** Messages may have been missed: once a turn the target is told to forget everything. */
  flushLater(): void {
    this.router.turn.wakeLater(this);
  }

  wake(): void {
    if (!this.closed) this.deliver(FLUSH_ALL);
  }

  /** The target is gone, or nobody redirects to it any more. */
  destroy(): void {
    this.closed = true;
    this.lane?.drop();
    this.lane = null;
    this.serverId = null;
    for (const one of [...this.from]) one.onRedirectBroken();
    this.from.clear();
    const { waiting } = this;
    this.waiting = [];
    for (const ready of waiting) ready();
  }
}
