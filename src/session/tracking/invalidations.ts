/**
 * Where the invalidation messages go of clients that redirect theirs to another client (CLIENT TRACKING ON
 * REDIRECT id): to a server a connection of that client's own, whose number stands in for the client's.
 */
import { COLON, GREATER } from "../../resp/bytes.ts";
import type { Protocol } from "../../resp/encode.ts";
import type { Answer, Router, WaitsForMaster } from "../../routing/router.ts";
import type { Wakeable } from "../../turn.ts";
import { ask } from "../../upstream/ask.ts";
import type { Lane } from "../../upstream/lane.ts";
import type { Profile } from "../../upstream/profile.ts";
import { Nobody } from "../../upstream/request.ts";

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
  /** There is a connection with a number now. */
  onRedirectReady(): void;
  /** The connection is lost: what the server sent there since is lost, too. */
  onRedirectLost(): void;
  /** The client that got the messages has left. */
  onRedirectBroken(): void;
}

/** "All of it": what is cached is not known to be true any more (tracking.c). */
const FLUSH_ALL = Buffer.from(">2\r\n$10\r\ninvalidate\r\n_\r\n");
const PUSH_HEAD = FLUSH_ALL.length - "_\r\n".length;
const MESSAGE_HEAD = Buffer.from("*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n");

/** Pause before the connection is opened again, ms: the first, and the longest. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

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
  private waiting: ((found: Answer) => void)[] = [];
  private pauseMs = 0;
  private retryTimer: NodeJS.Timeout | null = null;
  private closed = false;

  /** The client that got the messages has left. */
  get isClosed(): boolean {
    return this.closed;
  }

  constructor(target: InvalidationTarget, router: Router) {
    super();
    this.target = target;
    this.router = router;
  }

  add(one: Redirecting): void {
    this.from.add(one);
  }

  remove(one: Redirecting): void {
    this.from.delete(one);
    this.closeIfUnused();
  }

  /** Nobody redirects to it: it needs no connection. */
  closeIfUnused(): void {
    if (this.from.size === 0 && this.waiting.length === 0) this.drop();
  }

  /** Whether there is nothing to wait for; opens a connection if there is none. */
  isReady(): boolean {
    if (this.closed || this.serverId !== null) return true;
    this.open();
    return false;
  }

  /** @param answer is called once, not at once: there is a number, or why there is none. */
  whenReady(answer: (found: Answer) => void): void {
    this.waiting.push(answer);
    this.open();
  }

  private tell(found: Answer): void {
    const { waiting } = this;
    this.waiting = [];
    for (const answer of waiting) answer(found);
  }

  private open(): void {
    if (this.closed || this.lane !== null || this.retryTimer !== null) return;
    const { profile } = this.target;
    const { router } = this;
    // RESP3 whatever the client speaks: there the messages need no subscription.
    const own = router.profiles.get(profile.identity, profile.db, 3);
    const lane = router.writable ? router.openPrivate(own, this) : null;
    if (lane === null) {
      const error = router.noPrivateRoom();
      this.tell(error === null ? { kind: "nobody" } : { kind: "no", error });
      return router.writable ? this.retryLater() : router.whenWritable(this);
    }
    lane.carriesMessages = true;
    this.lane = lane;
    ask(lane, ["CLIENT", "ID"], (reply) => this.opened(lane, reply));
  }

  private opened(lane: Lane, reply: Buffer | null): void {
    const id = reply?.[0] === COLON ? Number(reply.toString("latin1", 1)) : null;
    if (lane === this.lane && id !== null) {
      this.serverId = id;
      this.pauseMs = 0;
      this.tell({ kind: "yes" });
      for (const one of [...this.from]) one.onRedirectReady();
      return;
    }
    this.tell(reply === null || id !== null ? { kind: "nobody" } : { kind: "no", error: reply });
    if (lane !== this.lane) return;
    this.drop();
    this.retryLater();
  }

  onWritable(): void {
    if (this.from.size > 0) this.open();
  }

  override takesMessage(buf: Buffer, start: number, end: number): boolean {
    if (buf[start] !== GREATER) return false;
    if (buf.compare(FLUSH_ALL, 0, PUSH_HEAD, start, Math.min(end, start + PUSH_HEAD)) === 0) {
      this.deliver(Buffer.from(buf.subarray(start, end)));
    }
    return true;
  }

  private deliver(push: Buffer): void {
    if (this.target.protocol === 3) this.target.deliverShared(push);
    else if (this.target.isSubscriber) this.target.deliverShared(asMessage(push));
  }

  override connectionGone(lane: Lane): void {
    if (lane !== this.lane) return;
    const hadNumber = this.serverId !== null;
    this.lane = null;
    this.serverId = null;
    this.retryLater();
    // Whoever redirects here leaves its own connection and has the client told to forget everything.
    if (hadNumber) for (const one of [...this.from]) one.onRedirectLost();
  }

  /** Opens another connection after a pause, longer each time until there is one. */
  private retryLater(): void {
    this.pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, 2 * this.pauseMs));
    this.retryTimer ??= setTimeout(() => {
      this.retryTimer = null;
      if (this.from.size > 0) this.open();
    }, this.pauseMs);
  }

  /** Messages may have been missed: once a turn the target is told to forget everything. */
  flushLater(): void {
    this.router.turn.wakeLater(this);
  }

  wake(): void {
    if (!this.closed) this.deliver(FLUSH_ALL);
  }

  private drop(): void {
    this.lane?.drop();
    this.lane = null;
    this.serverId = null;
  }

  /** The target is gone. */
  destroy(): void {
    this.closed = true;
    this.drop();
    if (this.retryTimer !== null) clearTimeout(this.retryTimer);
    for (const one of [...this.from]) one.onRedirectBroken();
    this.from.clear();
    this.tell({ kind: "nobody" });
  }
}
