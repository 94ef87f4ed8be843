/**
 * The subscriptions of all clients of one user: however many clients, they share one upstream connection, and
 * a topic is subscribed to there once.
 *
 * The connection is a feed. When it must be another one (the master changed, the replica it reads from is not
 * fit any more) the new feed is subscribed to everything while the old one still delivers; each topic moves
 * over the moment the new feed has confirmed it. Clients see nothing of it.
 */
import { MINUS } from "../resp/bytes.ts";
import type { Answer, Router } from "../routing/router.ts";
import type { NodeId } from "../topology/epoch.ts";
import { ask } from "../upstream/ask.ts";
import type { Lane, LaneRole } from "../upstream/lane.ts";
import type { Profile } from "../upstream/profile.ts";
import { Nobody } from "../upstream/request.ts";
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

/** Names confirmed by one request when everything is subscribed to again. */
const BATCH = 500;

/** Pause before a feed is tried again that was not let in, ms: the first, and the longest. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

/** One upstream connection in subscriber mode. */
class Feed extends Nobody {
  private readonly hub: Hub;
  lane: Lane | null = null;
  /** Requests for topics that are not answered yet. */
  pending = 0;

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

  drop(): void {
    const { lane } = this;
    this.lane = null;
    lane?.drop();
  }
}

export class Hub {
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
  /** Since when messages may be missed, monotonic ms; null = none are. */
  private gapSinceMs: number | null = null;
  private readonly overlapping = new Set<Topic>();
  private overlapTimer: NodeJS.Timeout | null = null;
  private pauseMs = 0;
  private retryTimer: NodeJS.Timeout | null = null;
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
    if (feed === null || feed.lane === null) return answer([], this.nowhere());
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
    return refusal === null ? { kind: "nobody" } : { kind: "no", error: refusal };
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
    const { family, name, subscribers } = topic;
    if (subscribers.size > 0 || topic.waiting > 0 || this.topics[family].get(name) !== topic) return;
    this.topics[family].delete(name);
    if (this.isUnused) return this.destroy();
    const lane = this.feed?.lane ?? null;
    // Also when it was never confirmed: the confirmation may be on its way.
    if (lane !== null) ask(lane, [UNSUBSCRIBE[family], Buffer.from(name, "latin1")], () => {});
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
    this.startGap();
    if (wasOpen) this.pauseMs = 0;
    else this.pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, 2 * this.pauseMs));
    this.retryIn(this.pauseMs);
  }

  private startGap(): void {
    this.gapSinceMs ??= this.router.nowMs();
  }

  private retryIn(ms: number): void {
    if (this.retryTimer !== null || this.closed) return;
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
      const target = this.feed?.lane?.target ?? null;
      if (target?.role === "reader" && router.isReadableNode(target.node)) return target;
      const replica = router.readTarget(0);
      if (replica !== null && replica.node !== router.epoch.master) {
        return { node: replica.node, role: "reader" };
      }
    }
    const { master } = router.epoch;
    return router.writable && master !== null ? { node: master, role: "master" } : null;
  }

  /** The routing may have changed: moves to another place if that is the one to listen at now. */
  reconsider(): void {
    if (this.closed || this.retryTimer !== null) return;
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
    if (!this.isUnused) this.startGap();
    const feed = new Feed(this);
    const lane = this.router.openFeed(this.profile, place.node, place.role, feed);
    if (lane === null) return this.retryIn(LONGEST_PAUSE_MS);
    feed.lane = lane;
    lane.carriesMessages = true;
    // One that is not whole yet is of less use than the one that still delivers.
    if (this.old === null) this.old = this.feed;
    else this.feed?.drop();
    this.feed = feed;
    for (const family of ["channels", "patterns", "shards"] as const) {
      const topics = [...this.topics[family].values()];
      for (let i = 0; i < topics.length; i += BATCH) this.restore(feed, family, topics.slice(i, i + BATCH));
    }
    if (feed.pending === 0) this.settled(feed);
  }

  private restore(feed: Feed, family: Family, topics: readonly Topic[]): void {
    feed.pending++;
    this.ask(feed, family, topics, (reply) => {
      feed.pending--;
      if (reply !== null && reply[0] === MINUS) this.refused(feed, family, topics, reply);
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
    if (feed.lane === null) return answer(null);
    if (topics.length === 0) return answer(NOTHING_MISSING);
    const names = topics.map(({ name }) => Buffer.from(name, "latin1"));
    const confirmed = (reply: Buffer | null): void => {
      if (reply !== null && reply[0] !== MINUS) for (const topic of topics) topic.feed = feed;
      answer(reply);
    };
    ask(feed.lane, [SUBSCRIBE[family], ...names], confirmed, names.length);
  }

  /** The new feed has everything: the old one is not needed any more. */
  private settled(feed: Feed): void {
    if (feed.lane === null) return;
    this.old?.drop();
    this.old = null;
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
    if (!isRevocation(error)) return;
    // Without a connection it is the user that is refused, not a name.
    if (topics.length > 1 && feed.lane !== null) {
      for (const topic of topics) this.restore(feed, family, [topic]);
      return;
    }
    for (const topic of topics) for (const one of [...topic.subscribers]) one.accessRevoked();
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
  }
}

const NOTHING_MISSING = Buffer.from("+OK\r\n");

function isRevocation(error: Buffer): boolean {
  return /^-(?:NOPERM|WRONGPASS|NOAUTH)/.test(error.toString("latin1", 0, 16));
}
