/**
 * The subscriptions of all clients of one user: however many clients, they share one upstream connection, and
 * a topic is subscribed to there once.
 *
 * The connection is a feed. When it must be another one (the master changed, the replica it reads from is not
 * fit any more) the new feed is subscribed to everything while the old one still delivers; each topic moves
 * over the moment the new feed has confirmed it. Clients see nothing of it.
 */
import { MINUS } from "../../resp/bytes.ts";
import type { Answer, Router } from "../../routing/router.ts";
import type { NodeId } from "../../topology/epoch.ts";
import type { Wakeable } from "../../turn.ts";
import { ask } from "../../upstream/ask.ts";
import type { Lane, LaneRole } from "../../upstream/lane.ts";
import type { Profile } from "../../upstream/profile.ts";
import { Nobody } from "../../upstream/request.ts";
import { Fanout, type Subscriber } from "./fanout.ts";
import { Overlap, SPAN_MS } from "./overlap.ts";
import { type Family, readMessage, SUBSCRIBE, topicName, UNSUBSCRIBE } from "./topics.ts";

/** One name that clients are subscribed to. */
export class Topic {
  readonly hub: Hub;
  readonly family: Family;
  /** latin1 text. */
  readonly name: string;
  readonly subscribers = new Set<Subscriber>();
  /** Clients that wait for its confirmation. */
  waiting = 0;
  /** The connection its messages are taken from; null = none is subscribed. */
  feed: Feed | null = null;
  /** What came from the old feed during a move, and may come from the new one once more; null = nothing. */
  overlap: Overlap | null = null;

  constructor(hub: Hub, family: Family, name: string) {
    this.hub = hub;
    this.family = family;
    this.name = name;
  }
}

const FAMILIES: readonly Family[] = ["channels", "patterns", "shards"];

/** Names in one request when many are subscribed to again, or given up. */
const BATCH = 500;

/** Pause before a feed is tried again that was not let in, ms: the first, and the longest. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

/** One upstream connection in subscriber mode. */
class Feed extends Nobody {
  private readonly hub: Hub;
  lane: Lane | null = null;
  /** Requests of `restore` that are not answered yet. */
  pending = 0;
  /** Monotonic ms: what was published before is here. A replica may fall behind before anybody knows. */
  completeUntilMs = Number.POSITIVE_INFINITY;
  /** Those who wait for an answer from it. */
  private readonly waiting = new Set<(reply: Buffer | null) => void>();

  constructor(hub: Hub) {
    super();
    this.hub = hub;
  }

  override takesMessage(buf: Buffer, start: number, end: number): boolean {
    return this.hub.message(this, buf, start, end);
  }

  override connectionGone(lane: Lane): void {
    this.lane = null;
    this.hub.feedGone(this, lane.wasOpen);
  }

  /** @param answer gets the last reply, null when the feed is lost or dropped before it. */
  ask(args: readonly (string | Buffer)[], replies: number, answer: (reply: Buffer | null) => void): void {
    if (this.lane === null) return answer(null);
    const once = (reply: Buffer | null): void => {
      if (this.waiting.delete(once)) answer(reply);
    };
    this.waiting.add(once);
    ask(this.lane, args, once, replies);
  }

  /** Ends the connection. A lane that is dropped answers nothing more: those who wait are told here. */
  drop(): void {
    const { lane } = this;
    this.lane = null;
    lane?.drop();
    for (const answer of this.waiting) answer(null);
  }
}

export class Hub implements Wakeable {
  wakeQueued = false;
  readonly profile: Profile;
  private readonly router: Router;
  private readonly onClosed: () => void;
  private readonly fanout: Fanout;
  private readonly topics: Readonly<Record<Family, Map<string, Topic>>> = {
    channels: new Map(),
    patterns: new Map(),
    shards: new Map(),
  };
  /** Where everything is, or is going to be, subscribed to. */
  private feed: Feed | null = null;
  /** Delivers what `feed` has not confirmed yet. */
  private old: Feed | null = null;
  /** Topics that nobody wants any more and that the feed is to be told of at the end of the turn. */
  private givenUp: Topic[] = [];
  /** Requests by which topics were given up that are not answered yet, and who waits for that. */
  private unanswered = 0;
  private waiters: (() => void)[] = [];
  /** Since when messages may be missed, monotonic ms; null = none are. */
  private gapSinceMs: number | null = null;
  private readonly overlapping = new Set<Topic>();
  private overlapTimer: NodeJS.Timeout | null = null;
  private pauseMs = 0;
  private retryTimer: NodeJS.Timeout | null = null;
  /** The epoch whose place let no feed in: the next one is tried at once. */
  private retryEpoch = -1;
  private closed = false;

  /** @param onClosed nobody is subscribed to anything here any more. */
  constructor(profile: Profile, router: Router, onClosed: () => void) {
    this.profile = profile;
    this.router = router;
    this.onClosed = onClosed;
    this.fanout = new Fanout(router.turn);
    profile.users++;
  }

  private get isUnused(): boolean {
    const { channels, patterns, shards } = this.topics;
    return channels.size + patterns.size + shards.size === 0;
  }

  /** Its connection is one that the master counts. */
  get isAtMaster(): boolean {
    return this.feed?.lane?.target.role === "master";
  }

  names(family: Family): Iterable<string> {
    return this.topics[family].keys();
  }

  subscribersOf(family: Family, name: string): number {
    return this.topics[family].get(name)?.subscribers.size ?? 0;
  }

  // For clients

  /** The topics of these names if messages of all of them arrive; null = they have to be asked for first. */
  liveTopics(family: Family, names: readonly string[]): Topic[] | null {
    const topics: Topic[] = [];
    for (const name of names) {
      const topic = this.topics[family].get(name);
      if (topic === undefined || topic.feed === null || topic.feed !== this.feed) return null;
      topics.push(topic);
    }
    return topics;
  }

  /**
   * Subscribes to names upstream, those that are not yet.
   * @param answer gets the topics, which are released by `leave`, or why there are none.
   */
  subscribe(
    family: Family,
    names: readonly string[],
    answer: (topics: readonly Topic[], found: Answer) => void,
  ): void {
    this.reconsider();
    const { feed } = this;
    if (feed === null || feed.lane === null) {
      const found = this.nowhere();
      // Who had nobody before has nobody now: it would open a connection for nothing later.
      if (this.isUnused) this.destroy();
      return answer([], found);
    }
    const topics = names.map((name) => this.topic(family, name));
    for (const topic of topics) topic.waiting++;
    const missing = topics.filter((topic) => topic.feed !== feed);
    this.ask(feed, family, missing, (reply) => {
      for (const topic of topics) topic.waiting--;
      if (reply !== null && reply[0] !== MINUS) return answer(topics, { kind: "yes" });
      for (const topic of topics) this.release(topic);
      answer([], reply === null ? { kind: "nobody" } : { kind: "no", error: reply });
    });
  }

  private nowhere(): Answer {
    const refusal = this.router.noPrivateRoom();
    if (refusal === null) return { kind: "nobody" };
    this.router.counters.proxyErrors++;
    return { kind: "no", error: refusal };
  }

  private topic(family: Family, name: string): Topic {
    let topic = this.topics[family].get(name);
    if (topic === undefined) {
      topic = new Topic(this, family, name);
      this.topics[family].set(name, topic);
    }
    return topic;
  }

  /** A client does not want the topic any more. */
  leave(topic: Topic, subscriber: Subscriber): void {
    topic.subscribers.delete(subscriber);
    this.release(topic);
  }

  /** A topic that nobody wants is given up. */
  private release(topic: Topic): void {
    const { family, name } = topic;
    if (isWanted(topic) || this.topics[family].get(name) !== topic) return;
    this.topics[family].delete(name);
    // Also when it was never confirmed: the confirmation may be on its way.
    this.givenUp.push(topic);
    this.router.turn.wakeLater(this);
  }

  /** The server still counts somebody who has left. */
  get isSettling(): boolean {
    return this.givenUp.length > 0 || this.unanswered > 0;
  }

  /** Calls when the server knows of everything that was given up, or cannot be told. */
  whenSettled(settled: () => void): void {
    this.waiters.push(settled);
  }

  /** Ends what was given up in this turn: a client that leaves may have had thousands of names. */
  wake(): void {
    if (this.closed) return;
    const topics = this.givenUp;
    this.givenUp = [];
    for (const family of FAMILIES) {
      const names = topics.filter((topic) => topic.family === family).map(nameOf);
      for (const batch of batches(names)) this.giveUp(family, batch);
    }
    this.settle();
  }

  private giveUp(family: Family, names: readonly Buffer[]): void {
    if (this.feed === null) return;
    this.unanswered++;
    this.feed.ask([UNSUBSCRIBE[family], ...names], names.length, () => {
      this.unanswered--;
      this.settle();
    });
  }

  private settle(): void {
    if (this.isSettling || this.closed) return;
    this.tellWaiters();
    if (this.isUnused) this.destroy();
  }

  private tellWaiters(): void {
    const { waiters } = this;
    this.waiters = [];
    for (const settled of waiters) settled();
  }

  // From the feeds

  /** @returns whether the frame was a message. */
  message(feed: Feed, buf: Buffer, start: number, end: number): boolean {
    const family = readMessage(buf, start, end);
    if (family === null) return false;
    const topic = this.topics[family].get(topicName);
    if (topic?.feed !== feed) return true;
    if (this.old !== null || topic.overlap !== null) {
      if (feed === this.old) this.note(topic, buf.subarray(start, end));
      else if (topic.overlap?.has(buf.subarray(start, end), this.router.nowMs()) === true) return true;
      else topic.overlap = null;
    }
    this.fanout.add(topic.subscribers, buf, start, end);
    return true;
  }

  private note(topic: Topic, message: Buffer): void {
    topic.overlap ??= new Overlap();
    topic.overlap.add(message, this.router.nowMs());
    this.overlapping.add(topic);
    this.overlapTimer ??= setTimeout(() => this.forgetOverlaps(), SPAN_MS);
  }

  private forgetOverlaps(): void {
    this.overlapTimer = null;
    for (const topic of this.overlapping) {
      if (topic.overlap?.isOver(this.router.nowMs()) !== false) {
        topic.overlap = null;
        this.overlapping.delete(topic);
      }
    }
    if (this.overlapping.size > 0) this.overlapTimer = setTimeout(() => this.forgetOverlaps(), SPAN_MS);
  }

  feedGone(feed: Feed, wasOpen: boolean): void {
    if (this.closed) return;
    if (feed === this.old) {
      this.old = null;
      return;
    }
    if (feed !== this.feed) return;
    this.feed = null;
    this.startGap(feed);
    if (wasOpen) this.pauseMs = 0;
    else this.pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, 2 * this.pauseMs));
    this.retryIn(this.pauseMs);
  }

  /** @param left the connection that messages came from. */
  private startGap(left: Feed | null): void {
    const nowMs = this.router.nowMs();
    this.gapSinceMs ??= Math.min(nowMs, left?.completeUntilMs ?? nowMs);
  }

  private retryIn(ms: number): void {
    if (this.retryTimer !== null || this.closed) return;
    this.retryEpoch = this.router.epoch.number;
    this.retryTimer = setTimeout(() => {
      this.retryTimer = null;
      this.reconsider();
    }, ms);
  }

  // Where the feed is

  /** The place to listen at; null = there is none now. */
  private wanted(): { node: NodeId; role: LaneRole } | null {
    const { router } = this;
    if (router.config.pubsub.from === "replica") {
      // Also with reads.from: master, which says nothing about subscriptions.
      const { readable } = router.epoch;
      const target = this.feed?.lane?.target;
      const here = readable.find(({ id }) => id === target?.node);
      if (here !== undefined && this.feed !== null && target?.role === "reader") {
        if (Number.isFinite(here.provenAtMs)) this.feed.completeUntilMs = here.provenAtMs;
        return target;
      }
      const replica = readable[0];
      if (replica !== undefined) return { node: replica.id, role: "reader" };
    }
    const { master } = router.epoch;
    return router.writable && master !== null ? { node: master, role: "master" } : null;
  }

  /** The routing may have changed: moves to another place if that is the one to listen at now. */
  reconsider(): void {
    if (this.closed) return;
    if (this.retryTimer !== null) {
      if (this.router.epoch.number === this.retryEpoch) return;
      clearTimeout(this.retryTimer);
      this.retryTimer = null;
    }
    const place = this.wanted();
    if (place === null) return;
    const target = this.feed?.lane?.target;
    const isThere =
      target !== undefined &&
      target.node === place.node &&
      target.role === place.role &&
      (place.role === "reader" || target.epoch === this.router.epoch.number);
    if (!isThere) this.move(place);
  }

  private move(place: { node: NodeId; role: LaneRole }): void {
    if (!this.isUnused) this.startGap(this.feed);
    const feed = new Feed(this);
    const lane = this.router.openFeed(this.profile, place.node, place.role, feed);
    if (lane === null) return this.makeRoom();
    feed.lane = lane;
    lane.carriesMessages = true;
    // One that is not whole yet is of less use than the one that still delivers.
    const before = this.feed;
    this.feed = feed;
    if (this.old === null) this.old = before;
    else before?.drop();
    // It knows nothing of them.
    this.givenUp = [];
    for (const family of FAMILIES) {
      for (const batch of batches([...this.topics[family].values()])) this.restore(feed, family, batch);
    }
    if (feed.pending === 0) this.settled(feed);
  }

  /**
   * There is no room for a connection beside those it has: they are on the wrong node and make room.
   */
  private makeRoom(): void {
    const { feed, old } = this;
    const hadNone = feed === null && old === null;
    this.feed = null;
    this.old = null;
    feed?.drop();
    old?.drop();
    this.retryIn(hadNone ? LONGEST_PAUSE_MS : FIRST_PAUSE_MS);
  }

  private restore(feed: Feed, family: Family, topics: readonly Topic[]): void {
    feed.pending++;
    this.ask(feed, family, topics.filter(isWanted), (reply) => {
      if (reply !== null && reply[0] === MINUS) this.refused(feed, family, topics, reply);
      feed.pending--;
      if (feed.pending === 0 && feed === this.feed) this.settled(feed);
    });
  }

  /** Sends one request for the topics, and notes from where their messages come once it is confirmed. */
  private ask(
    feed: Feed,
    family: Family,
    topics: readonly Topic[],
    answer: (reply: Buffer | null) => void,
  ): void {
    if (topics.length === 0) return answer(NOTHING_MISSING);
    // A name that is wanted again at once must not be ended behind that.
    this.wake();
    const names = topics.map(nameOf);
    const confirmed = (reply: Buffer | null): void => {
      if (reply !== null && reply[0] !== MINUS) for (const topic of topics) this.arrived(topic, feed);
      answer(reply);
    };
    feed.ask([SUBSCRIBE[family], ...names], names.length, confirmed);
  }

  /** A topic's messages come from this feed now; a late word of the old one takes none back. */
  private arrived(topic: Topic, feed: Feed): void {
    if (topic.feed !== this.feed || this.feed === null) topic.feed = feed;
  }

  /** The new feed has everything: the old one is not needed any more. */
  private settled(feed: Feed): void {
    if (feed.lane === null) return;
    const { old } = this;
    this.old = null;
    old?.drop();
    this.pauseMs = 0;
    if (this.gapSinceMs === null) return;
    const { counters } = this.router;
    counters.subscriptionMoves++;
    counters.subscriptionGapMs += this.router.nowMs() - this.gapSinceMs;
    this.gapSinceMs = null;
  }

  /**
   * The server does not let the user read one of these. Redis closes the connections of those who have lost
   * the right (acl.c, ACLKillPubsubClientsIfNeeded, and deluser): a subscriber that hears nothing and does
   * not know it would be worse off.
   */
  private refused(feed: Feed, family: Family, topics: readonly Topic[], error: Buffer): void {
    if (!isRevocation(error)) return this.restoreLater(feed, family, topics);
    // Without a connection it is the user that is refused, not a name.
    if (topics.length > 1 && feed.lane !== null) {
      for (const topic of topics) this.restore(feed, family, [topic]);
      return;
    }
    for (const topic of topics) for (const one of [...topic.subscribers]) one.accessRevoked();
  }

  /** What is refused for a while only (BUSY: a slow script runs) is not there yet: the gap goes on. */
  private restoreLater(feed: Feed, family: Family, topics: readonly Topic[]): void {
    feed.pending++;
    const timer = setTimeout(() => {
      feed.pending--;
      if (feed === this.feed && feed.lane !== null) this.restore(feed, family, topics);
    }, LONGEST_PAUSE_MS);
    timer.unref();
  }

  destroy(): void {
    if (this.closed) return;
    this.closed = true;
    this.onClosed();
    this.profile.users--;
    if (this.retryTimer !== null) clearTimeout(this.retryTimer);
    if (this.overlapTimer !== null) clearTimeout(this.overlapTimer);
    this.feed?.drop();
    this.old?.drop();
    this.tellWaiters();
  }
}

const NOTHING_MISSING = Buffer.from("+OK\r\n");

/** Somebody is subscribed to it, or waits to be. */
function isWanted({ subscribers, waiting }: Topic): boolean {
  return subscribers.size > 0 || waiting > 0;
}

function nameOf({ name }: Topic): Buffer {
  return Buffer.from(name, "latin1");
}

function batches<T>(all: readonly T[]): T[][] {
  const some: T[][] = [];
  for (let i = 0; i < all.length; i += BATCH) some.push(all.slice(i, i + BATCH));
  return some;
}

function isRevocation(error: Buffer): boolean {
  return /^-(?:NOPERM|WRONGPASS|NOAUTH)/.test(error.toString("latin1", 0, 16));
}
