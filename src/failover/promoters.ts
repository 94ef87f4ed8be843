/**
 * Keeps our markers on the nodes and looks for those of others, and for Sentinels that nobody told us of: the
 * edge of lease.ts and foreign-sentinels.ts, which decide. It tells where the proxy stands, and before a
 * promotion it looks anew.
 *
 * Two connections to each node: one is the marker (subscribed, also to what Sentinels say; it cannot ask
 * anything), one asks. Whatever fails on a node makes it one on which nothing is known, until it answers.
 */

import { randomBytes } from "node:crypto";
import type { Redis } from "ioredis";
import type { Clock } from "../clock.ts";
import { messageOf } from "../errors.ts";
import { dial, greeting, hangUp, type Login, refusedLogin } from "../topology/dial.ts";
import type { NodeId } from "../topology/epoch.ts";
import {
  type Ear,
  type Earshot,
  HELLO_CHANNEL,
  type Hello,
  objectionOf,
  readHello,
  readSubscribers,
  SILENCE,
  withEar,
  withHello,
} from "./foreign-sentinels.ts";
import {
  confirmed,
  firstLease,
  freshOnly,
  type Lease,
  type Look,
  labelOf,
  MARKER_PREFIX,
  type Marker,
  markerChannel,
  markerId,
  readMarkers,
  standingOf,
  withLook,
  withNodes,
} from "./lease.ts";
import type { Standing } from "./model.ts";

export interface PromotersOptions extends Login {
  /** One look at one node, connecting included, in ms. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Where this proxy can be found ("host:port"), for the people who run another one. */
  readonly label?: string | undefined;
  /** Between two looks at a node in calm, in ms; default 2000. */
  readonly lookEveryMs?: number | undefined;
}

export interface PromotersEvents {
  /** It is another one than before. The first one is "refused": nothing has been seen yet. */
  onStanding(standing: Standing): void;
}

const LOOK_EVERY_MS = 2_000;
/** Between two looks while something is to change soon, in ms. */
const DENSE_MS = 250;
const CONNECTION_NAME = "holdfast-promoter";

export class Promoters {
  readonly #options: PromotersOptions;
  readonly #events: PromotersEvents;
  readonly #self: Marker;
  readonly #posts = new Map<NodeId, Post>();
  #lease: Lease;
  #earshot: Earshot = SILENCE;
  #standing: Standing;
  #state: "new" | "running" | "closed" = "new";

  constructor(options: PromotersOptions, events: PromotersEvents) {
    this.#options = options;
    this.#events = events;
    const id = markerId(options.clock.wallMs(), randomBytes(8).toString("hex"));
    this.#self = { id, label: options.label === undefined ? null : labelOf(options.label) };
    this.#lease = firstLease(id);
    this.#standing = standingOf(this.#lease);
  }

  start(): void {
    if (this.#state !== "new") return;
    this.#state = "running";
    for (const post of this.#posts.values()) void post.look();
  }

  /** All nodes of the group that are known now, second addresses left out. */
  setNodes(nodes: readonly NodeId[]): void {
    if (this.#state === "closed") return;
    for (const [node, post] of this.#posts) {
      if (nodes.includes(node)) continue;
      post.close();
      this.#posts.delete(node);
      this.#earshot = withEar(this.#earshot, node, null);
    }
    this.#lease = withNodes(this.#lease, nodes);
    for (const node of nodes) {
      if (this.#posts.has(node)) continue;
      const post = this.#buildPost(node);
      this.#posts.set(node, post);
      if (this.#state === "running") void post.look();
    }
    this.#tell();
  }

  /** By what was last seen; before a promotion ask `confirm`. */
  standing(): Standing {
    return this.#standing;
  }

  /**
   * Looks anew at these nodes (the candidate and all that answer) and at all others that were seen last time,
   * a master that hangs among them: those are waited for only as long as their looks are needed.
   * `done` is told once, within the time-out, never before this returns, and not after close(). "sole" holds
   * for what is sent in the same turn: send the promotion at once.
   */
  confirm(nodes: readonly NodeId[], done: (standing: Standing) => void): void {
    if (this.#state === "closed") throw new Error("confirm() after close()");
    const fresh = new Set<NodeId>();
    let told = false;
    const finish = (isOver: boolean): void => {
      if (told || this.#state === "closed") return;
      const standing = this.#judge(freshOnly(this.#lease, fresh), nodes);
      if (standing.kind === "refused" && !isOver) return;
      told = true;
      clearTimeout(timer);
      if (standing.kind === "sole") this.#lease = confirmed(this.#lease, this.#options.clock.nowMs());
      done(standing);
    };
    const timer = setTimeout(() => finish(true), this.#options.timeoutMs);
    const asked = [...this.#posts].filter(
      ([node]) => nodes.includes(node) || this.#lease.looks.get(node)?.kind === "seen",
    );
    const look = async ([node, post]: readonly [NodeId, Post]): Promise<void> => {
      await post.lookAnew();
      fresh.add(node);
    };
    const needed = Promise.all(asked.filter(([node]) => nodes.includes(node)).map(look));
    const others = Promise.all(asked.filter(([node]) => !nodes.includes(node)).map(look));
    // A bug in `done` is not to be lost in a promise.
    void needed.then(() => setImmediate(finish, false));
    void Promise.all([needed, others]).then(() => setImmediate(finish, true));
  }

  /** There is nothing to finish, so this is destroy() for those who await. */
  async close(): Promise<void> {
    this.destroy();
  }

  /** Takes all markers away: another proxy may promote from now on. */
  destroy(): void {
    this.#state = "closed";
    for (const post of this.#posts.values()) post.close();
    this.#posts.clear();
  }

  #buildPost(node: NodeId): Post {
    return new Post(node, this.#self, this.#options, {
      marks: () => this.#lease.marks,
      onLook: (look, ear) => this.#onLook(node, look, ear),
      onHello: (hello) => this.#onHello(hello),
      pauses: () => this.#pauses(),
    });
  }

  #onHello(hello: Hello): void {
    if (this.#state !== "running") return;
    this.#earshot = withHello(this.#earshot, hello, this.#options.clock.nowMs());
    this.#tell();
  }

  #onLook(node: NodeId, look: Look, ear: Ear | null): void {
    if (this.#state !== "running") return;
    this.#earshot = withEar(this.#earshot, node, ear);
    const before = this.#lease.marks;
    this.#lease = withLook(this.#lease, node, look, this.#options.clock.nowMs());
    if (before && !this.#lease.marks) for (const post of this.#posts.values()) post.unmark();
    if (!before && this.#lease.marks) for (const post of this.#posts.values()) void post.lookAnew();
    this.#tell();
  }

  #pauses(): { readonly shortMs: number; readonly longMs: number } {
    const longMs = this.#options.lookEveryMs ?? LOOK_EVERY_MS;
    const isCalm = !this.#lease.marks || standingOf(this.#lease).kind === "sole";
    return { shortMs: isCalm ? longMs : Math.min(longMs, DENSE_MS), longMs };
  }

  #judge(lease: Lease, must: readonly NodeId[] = []): Standing {
    const standing = standingOf(lease, must);
    // Other proxies first: they listen for Sentinels as we do.
    if (standing.kind === "refused") return standing;
    const reason = objectionOf(this.#earshot, this.#options.clock.nowMs());
    return reason === null ? standing : { kind: "refused", reason };
  }

  #tell(): void {
    const before = this.#standing;
    const now = this.#judge(this.#lease);
    if (before.kind === now.kind && (now.kind === "sole" || reasonOf(before) === now.reason)) return;
    this.#standing = now;
    if (this.#state === "running") this.#events.onStanding(now);
  }
}

function reasonOf(standing: Standing): string {
  return standing.kind === "sole" ? "" : standing.reason;
}

interface PostParts {
  /** Whether our marker is to stand. */
  marks(): boolean;
  /** @param ear null when nothing is known there. */
  onLook(look: Look, ear: Ear | null): void;
  onHello(hello: Hello): void;
  /** Until the next look, in ms; after failures longer and longer, up to `longMs`. */
  pauses(): { readonly shortMs: number; readonly longMs: number };
}

interface Connection {
  readonly redis: Redis;
  /** The reason ioredis gave for a failure, which comes apart from the rejected promise. */
  lastError: string;
  ended: boolean;
}

/** The node answers, and says that we may not. */
class Forbidden extends Error {}

/** One node. */
class Post {
  readonly #node: NodeId;
  readonly #self: Marker;
  readonly #options: PromotersOptions;
  readonly #parts: PostParts;
  /** Asks. */
  #asking: Connection | null = null;
  /** Subscribed to our marker, and confirmed. */
  #marker: Connection | null = null;
  /** Monotonic ms: since when it stands. */
  #markedAtMs = 0;
  /** Who listens here, by the last answer. */
  #ear: Ear | null = null;
  /** The look under way. */
  #looking: Promise<void> | null = null;
  /** The next one, which begins after it. */
  #next: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  /** Looks that failed since the last one that did not. */
  #failures = 0;
  /** All that are not ended. */
  readonly #connections = new Set<Connection>();
  #closed = false;

  constructor(node: NodeId, self: Marker, options: PromotersOptions, parts: PostParts) {
    this.#node = node;
    this.#self = self;
    this.#options = options;
    this.#parts = parts;
  }

  /** Never rejects. */
  look(): Promise<void> {
    this.#looking ??= this.#runLook();
    return this.#looking;
  }

  /** A look that begins after this call. Never rejects. */
  lookAnew(): Promise<void> {
    if (this.#looking === null) return this.look();
    this.#next ??= this.#looking.then(() => {
      this.#next = null;
      return this.look();
    });
    return this.#next;
  }

  unmark(): void {
    this.#drop(this.#marker);
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const connection of [...this.#connections]) this.#drop(connection);
  }

  async #runLook(): Promise<void> {
    if (this.#closed) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    const look = await this.#runInTime();
    this.#looking = null;
    if (this.#closed) return;
    this.#failures = look.kind === "seen" ? 0 : this.#failures + 1;
    this.#parts.onLook(look, look.kind === "seen" ? this.#ear : null);
    if (this.#looking === null) this.#lookIn(this.#delayMs());
  }

  #delayMs(): number {
    const { longMs, shortMs } = this.#parts.pauses();
    const pauseMs = this.#failures === 0 ? shortMs : Math.min(longMs, shortMs * 2 ** (this.#failures - 1));
    return pauseMs * (0.9 + 0.2 * Math.random());
  }

  async #runInTime(): Promise<Look> {
    const used = new Set<Connection>();
    const giveUp = (): void => {
      // What waits for an answer of these is rejected by that. The marker stays: whether it stands, the next
      // answer tells.
      for (const connection of used) if (connection !== this.#marker) this.#drop(connection);
    };
    const why = `no answer within ${this.#options.timeoutMs} ms`;
    let isOver = false;
    let isLate = false;
    const timer = setTimeout(() => {
      // The answer may be in the socket while we were busy: read once before judging.
      setImmediate(() => {
        isLate = !isOver;
        if (isLate) giveUp();
      });
    }, this.#options.timeoutMs);
    try {
      return await this.#ask(used);
    } catch (error) {
      giveUp();
      if (error instanceof Forbidden) return { kind: "forbidden", error: messageOf(error) };
      const detail = [...used].map(({ lastError }) => lastError).find((text) => text !== "");
      return { kind: "unseen", why: isLate ? why : (detail ?? messageOf(error)) };
    } finally {
      isOver = true;
      clearTimeout(timer);
    }
  }

  /** Once more after a pause; an earlier plan is dropped. */
  #lookIn(delayMs: number): void {
    if (this.#closed) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.look(), delayMs);
  }

  /** @param used gets every connection that is used for it. */
  async #ask(used: Set<Connection>): Promise<Look> {
    const asking = this.#asking ?? (await this.#open(used));
    used.add(asking);
    this.#asking = asking;
    if (this.#parts.marks() && this.#marker === null) {
      const connection = await this.#open(used);
      this.#hear(connection);
      await permitted(connection.redis.subscribe(markerChannel(this.#self), HELLO_CHANNEL));
      this.#keep(connection);
    }
    const marker = this.#marker;
    const calls = [
      asking.redis.call("pubsub", ["CHANNELS", `${MARKER_PREFIX}*`]),
      asking.redis.call("pubsub", ["NUMSUB", HELLO_CHANNEL]),
    ];
    const [channels, counts] = await permitted(Promise.all(calls));
    const markers = readMarkers(channels, this.#self.id);
    if (markers === null) throw new Error("PUBSUB CHANNELS answered no list");
    const subscribers = readSubscribers(counts);
    if (subscribers === null) throw new Error("PUBSUB NUMSUB answered no count");
    const { own, others } = markers;
    const listensSinceMs = own && marker !== null ? this.#markedAtMs : null;
    this.#ear = { listensSinceMs, others: Math.max(0, subscribers - (own ? 1 : 0)) };
    const marked = own && marker !== null && this.#marker === marker && this.#parts.marks();
    // It was closed by the node and we were not told: it is made anew by the next look.
    if (!own && marker !== null) this.#drop(marker);
    return { kind: "seen", marked, others };
  }

  /** It is the marker from now on, unless that is not wanted any more. */
  #keep(connection: Connection): void {
    if (connection.ended) throw new Error("the connection was closed");
    if (this.#closed || !this.#parts.marks()) this.#drop(connection);
    else {
      this.#marker = connection;
      this.#markedAtMs = this.#options.clock.nowMs();
    }
  }

  #hear(connection: Connection): void {
    connection.redis.on("message", (channel: string, text: string) => {
      if (channel !== HELLO_CHANNEL || !this.#connections.has(connection)) return;
      const hello = readHello(text);
      if (hello !== null) this.#parts.onHello(hello);
    });
  }

  async #open(used: Set<Connection>): Promise<Connection> {
    const connection: Connection = { redis: dial(this.#node), lastError: "", ended: false };
    used.add(connection);
    this.#connections.add(connection);
    connection.redis.on("error", (error: unknown) => {
      connection.lastError ||= messageOf(error);
    });
    connection.redis.on("end", () => this.#onEnd(connection));
    await connection.redis.connect();
    const prelude = greeting(this.#options, CONNECTION_NAME);
    const replies = (await connection.redis.pipeline(prelude).exec()) ?? [];
    const refused = refusedLogin(prelude, replies);
    if (refused !== null) throw new Error(refused);
    if (connection.ended || !this.#connections.has(connection)) throw new Error("the connection was closed");
    return connection;
  }

  /** Without a marker nothing is known here, and without an answer neither: look at once. */
  #onEnd(connection: Connection): void {
    connection.ended = true;
    this.#connections.delete(connection);
    const isOurs = connection === this.#asking || connection === this.#marker;
    if (!isOurs || this.#closed) return;
    if (connection === this.#asking) this.#asking = null;
    else this.#marker = null;
    if (this.#looking !== null) return; // it tells
    this.#parts.onLook({ kind: "unseen", why: "the connection was closed" }, null);
    this.#lookIn(Math.min(DENSE_MS, this.#parts.pauses().shortMs));
  }

  #drop(connection: Connection | null): void {
    if (connection === null) return;
    if (connection === this.#asking) this.#asking = null;
    if (connection === this.#marker) this.#marker = null;
    this.#connections.delete(connection);
    hangUp(connection.redis);
  }
}

/** What a node says to a call that its user may not make, or that it does not have. */
async function permitted<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    const text = messageOf(error);
    if (/^NOPERM|unknown command/i.test(text)) throw new Forbidden(text);
    throw error;
  }
}
