/**
 * Keeps our markers on the nodes and looks for those of others, and for Sentinels that nobody told us of:
 * what lease.ts and foreign-sentinels.ts decide is done here. It tells where the proxy stands, and before a
 * promotion it looks anew.
 *
 * Two lines to each node: one is the marker (subscribed, also to what Sentinels say; it cannot ask anything),
 * one asks. Whatever fails on a node makes it one on which nothing is known, until it answers again.
 */

import type { Clock, SetTimer } from "../../clock.ts";
import { messageOf } from "../../errors.ts";
import type { NodeId } from "../../topology/epoch.ts";
import type { Standing } from "../model.ts";
import {
  type Ear,
  type Earshot,
  HELLO_CHANNEL,
  type Hello,
  objectionOf,
  readHello,
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
  type Marker,
  markerChannel,
  standingOf,
  withLook,
  withNodes,
} from "./lease.ts";
import { type Asker, askPresence } from "./presence.ts";

/** A connection to a node, used by one marker or for one question after another. */
export interface Line extends Asker {
  /** Connects and logs in. Rejects with the reason, also when it is hung up meanwhile; so do the others. */
  open(): Promise<void>;
  /** `onMessage` is told what is said on these channels from then on; it is untrusted, as answers are. */
  subscribe(
    channels: readonly string[],
    onMessage: (channel: string, text: string) => void,
  ): Promise<unknown>;
  /** Ends it whatever its state. */
  hangUp(): void;
}

export interface PromotersParts {
  readonly clock: Clock;
  readonly setTimer: SetTimer;
  /** 0 up to 1. */
  readonly random: () => number;
  /** `onEnd` is told once when it has ended, maybe also after hangUp(); never before this returns. */
  readonly createLine: (node: NodeId, onEnd: () => void) => Line;
}

export interface PromotersOptions {
  /** One look at one node, connecting included, in ms. */
  readonly timeoutMs: number;
  /** See markerId. */
  readonly id: string;
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
const CLOSED = "the connection was closed";

export class Promoters {
  readonly #options: PromotersOptions;
  readonly #events: PromotersEvents;
  readonly #parts: PromotersParts;
  readonly #self: Marker;
  readonly #posts = new Map<NodeId, Post>();
  #lease: Lease;
  #earshot: Earshot = SILENCE;
  #standing: Standing;
  #state: "new" | "running" | "closed" = "new";

  constructor(options: PromotersOptions, events: PromotersEvents, parts: PromotersParts) {
    this.#options = options;
    this.#events = events;
    this.#parts = parts;
    const { id } = options;
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
      cancelTimer();
      if (standing.kind === "sole") this.#lease = confirmed(this.#lease, this.#parts.clock.nowMs());
      done(standing);
    };
    const cancelTimer = this.#parts.setTimer(() => finish(true), this.#options.timeoutMs);
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
    const settings = { node, self: this.#self, timeoutMs: this.#options.timeoutMs };
    return new Post(settings, this.#parts, {
      marks: () => this.#lease.marks,
      onLook: (look, ear) => this.#onLook(node, look, ear),
      onHello: (hello) => this.#onHello(hello),
      pauses: () => this.#pauses(),
    });
  }

  #onHello(hello: Hello): void {
    if (this.#state !== "running") return;
    this.#earshot = withHello(this.#earshot, hello, this.#parts.clock.nowMs());
    this.#tell();
  }

  #onLook(node: NodeId, look: Look, ear: Ear | null): void {
    if (this.#state !== "running") return;
    this.#earshot = withEar(this.#earshot, node, ear);
    const before = this.#lease.marks;
    this.#lease = withLook(this.#lease, node, look, this.#parts.clock.nowMs());
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
    const reason = objectionOf(this.#earshot, this.#parts.clock.nowMs());
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

interface PostSettings {
  readonly node: NodeId;
  readonly self: Marker;
  /** For one look, in ms. */
  readonly timeoutMs: number;
}

/** What came of asking a node. */
interface Answer {
  readonly look: Look;
  /** Who listens there; null = nothing is known. */
  readonly ear: Ear | null;
}

interface Bench {
  /** Whether our marker is to stand. */
  marks(): boolean;
  /** @param ear null when nothing is known there. */
  onLook(look: Look, ear: Ear | null): void;
  onHello(hello: Hello): void;
  /** Until the next look, in ms; after failures longer and longer, up to `longMs`. */
  pauses(): { readonly shortMs: number; readonly longMs: number };
}

/** The node answers, and says that we may not. */
class Forbidden extends Error {}

/** One node. */
class Post {
  readonly #settings: PostSettings;
  readonly #parts: PromotersParts;
  readonly #bench: Bench;
  /** Asks. */
  #asking: Line | null = null;
  /** Subscribed to our marker, and confirmed. */
  #marker: Line | null = null;
  /** Monotonic ms: since when it stands. */
  #markedAtMs = 0;
  /** The look under way. */
  #looking: Promise<void> | null = null;
  /** The next one, which begins after it. */
  #next: Promise<void> | null = null;
  #cancelTimer: () => void = () => undefined;
  /** Looks that failed since the last one that did not. */
  #failures = 0;
  /** All that are not ended. */
  readonly #lines = new Set<Line>();
  #closed = false;

  constructor(settings: PostSettings, parts: PromotersParts, bench: Bench) {
    this.#settings = settings;
    this.#parts = parts;
    this.#bench = bench;
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
    this.#cancelTimer();
    for (const line of [...this.#lines]) this.#drop(line);
  }

  async #runLook(): Promise<void> {
    if (this.#closed) return;
    this.#cancelTimer();
    const { look, ear } = await this.#runInTime();
    this.#looking = null;
    if (this.#closed) return;
    this.#failures = look.kind === "seen" ? 0 : this.#failures + 1;
    this.#bench.onLook(look, ear);
    if (this.#looking === null) this.#lookIn(this.#delayMs());
  }

  #delayMs(): number {
    const { longMs, shortMs } = this.#bench.pauses();
    const pauseMs = this.#failures === 0 ? shortMs : Math.min(longMs, shortMs * 2 ** (this.#failures - 1));
    return pauseMs * (0.9 + 0.2 * this.#parts.random());
  }

  async #runInTime(): Promise<Answer> {
    const used = new Set<Line>();
    const { timeoutMs } = this.#settings;
    const giveUp = (): void => {
      // What waits for an answer of these is rejected by that. The marker stays: whether it stands, the next
      // answer tells.
      for (const line of used) if (line !== this.#marker) this.#drop(line);
    };
    let isOver = false;
    let isLate = false;
    const cancelTimer = this.#parts.setTimer(() => {
      // The answer may be in the socket while we were busy: read once before judging.
      this.#parts.setTimer(() => {
        isLate = !isOver;
        if (isLate) giveUp();
      }, 0);
    }, timeoutMs);
    try {
      return await this.#ask(used);
    } catch (error) {
      giveUp();
      const why = messageOf(error);
      if (error instanceof Forbidden) return { look: { kind: "forbidden", error: why }, ear: null };
      return { look: { kind: "unseen", why: isLate ? `no answer within ${timeoutMs} ms` : why }, ear: null };
    } finally {
      isOver = true;
      cancelTimer();
    }
  }

  /** Once more after a pause; an earlier plan is dropped. */
  #lookIn(delayMs: number): void {
    if (this.#closed) return;
    this.#cancelTimer();
    this.#cancelTimer = this.#parts.setTimer(() => void this.look(), delayMs);
  }

  /** @param used gets every line that is used for it. */
  async #ask(used: Set<Line>): Promise<Answer> {
    const { self } = this.#settings;
    const asking = this.#asking ?? (await this.#open(used));
    used.add(asking);
    this.#asking = asking;
    if (this.#bench.marks() && this.#marker === null) {
      const line = await this.#open(used);
      const channels = [markerChannel(self), HELLO_CHANNEL];
      await permitted(line.subscribe(channels, (channel, text) => this.#hear(line, channel, text)));
      this.#keep(line);
    }
    const marker = this.#marker;
    const { own, others, subscribers } = await permitted(askPresence(asking, self.id));
    const listensSinceMs = own && marker !== null ? this.#markedAtMs : null;
    const ear = { listensSinceMs, others: Math.max(0, subscribers - (own ? 1 : 0)) };
    const marked = own && marker !== null && this.#marker === marker && this.#bench.marks();
    // It was closed by the node and we were not told: it is made anew by the next look.
    if (!own && marker !== null) this.#drop(marker);
    return { look: { kind: "seen", marked, others }, ear };
  }

  /** It is the marker from now on, unless that is not wanted any more. */
  #keep(line: Line): void {
    if (!this.#lines.has(line)) throw new Error(CLOSED);
    if (!this.#bench.marks()) return this.#drop(line);
    this.#marker = line;
    this.#markedAtMs = this.#parts.clock.nowMs();
  }

  #hear(line: Line, channel: string, text: string): void {
    if (channel !== HELLO_CHANNEL || !this.#lines.has(line)) return;
    const hello = readHello(text);
    if (hello !== null) this.#bench.onHello(hello);
  }

  async #open(used: Set<Line>): Promise<Line> {
    const line: Line = this.#parts.createLine(this.#settings.node, () => this.#onEnd(line));
    used.add(line);
    this.#lines.add(line);
    await line.open();
    if (!this.#lines.has(line)) throw new Error(CLOSED);
    return line;
  }

  /** Without a marker nothing is known here, and without an answer neither: look at once. */
  #onEnd(line: Line): void {
    this.#lines.delete(line);
    const isOurs = line === this.#asking || line === this.#marker;
    if (!isOurs || this.#closed) return;
    if (line === this.#asking) this.#asking = null;
    else this.#marker = null;
    if (this.#looking !== null) return; // it tells
    this.#bench.onLook({ kind: "unseen", why: CLOSED }, null);
    this.#lookIn(Math.min(DENSE_MS, this.#bench.pauses().shortMs));
  }

  #drop(line: Line | null): void {
    if (line === null) return;
    if (line === this.#asking) this.#asking = null;
    if (line === this.#marker) this.#marker = null;
    this.#lines.delete(line);
    line.hangUp();
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
