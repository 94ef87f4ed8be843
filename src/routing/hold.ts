/**
 * Sessions whose next request needs a master while there is none, or a replica (`reads.whenNoneFit: wait`).
 * A session is held as a whole: it is not read any further than its bounds allow and queues behind itself, so
 * its requests keep their order.
 *
 * Exact accounting: held = released + expired + left + failed + held now.
 */
import type { Counters, HoldOutcome } from "../metrics.ts";

/** What a held session's next request waits for. */
export type Lack = "master" | "replica";

/** What the hold needs to know of a session. */
export interface Holdable {
  readonly lacks: Lack;
  /** Since when the oldest of its waiting requests has waited, monotonic ms. */
  readonly heldSinceMs: number;
  /** Bytes it has waiting. */
  heldBytes(): number;
  /** Try again: there may be a way now. It stays held until it says that it got on. */
  retry(): void;
  /** What has waited since before `cutoffMs` is answered with an error. */
  expire(cutoffMs: number): void;
}

export interface HoldSettings {
  readonly maxTimeMs: number;
  readonly maxBytes: number;
}

/** How often deadlines are looked at, ms. */
const CHECK_MS = 20;

/** Sessions released in one turn of the event loop: others get their turn in between. */
const RELEASE_BATCH = 256;

export class Hold {
  /** In the order of arrival. */
  private readonly sessions = new Map<Holdable, number>();
  private bytes = 0;
  private readonly settings: HoldSettings;
  private readonly counters: Counters;
  private readonly nowMs: () => number;
  /** Whether there is a master now: whoever is still held then tries again from time to time. */
  private readonly hasMaster: () => boolean;
  /** Whether there is a replica for who waits for one. */
  private readonly hasReplica: () => boolean;
  private timer: NodeJS.Timeout | null = null;
  /** Sessions are asked to try again, in their order. */
  private retrying = false;
  /** There are some among them that wait for the master; who needs it now queues behind them. */
  releasing = false;
  private joined = false;

  constructor(
    settings: HoldSettings,
    counters: Counters,
    nowMs: () => number,
    has: { readonly master: () => boolean; readonly replica: () => boolean },
  ) {
    this.settings = settings;
    this.counters = counters;
    this.nowMs = nowMs;
    this.hasMaster = has.master;
    this.hasReplica = has.replica;
  }

  get size(): number {
    return this.sessions.size;
  }

  /** @returns false when there is no room (`hold.maxBytes`). */
  add(session: Holdable): boolean {
    const bytes = session.heldBytes();
    if (this.bytes + bytes > this.settings.maxBytes) {
      this.counters.holdFull++;
      return false;
    }
    this.sessions.set(session, bytes);
    this.joined ||= this.retrying;
    this.account(bytes);
    this.counters.held++;
    this.counters.heldNow++;
    this.timer ??= setInterval(() => this.checkDeadlines(), CHECK_MS);
    // It was let go too often for nothing, each time before its deadline was looked at.
    if (session.heldSinceMs <= this.nowMs() - this.settings.maxTimeMs)
      setImmediate(() => this.checkDeadlines());
    return true;
  }

  /** A held session received more. @returns false when reading from it must stop: there is no room. */
  grow(session: Holdable, bytes: number): boolean {
    this.sessions.set(session, (this.sessions.get(session) ?? 0) + bytes);
    this.account(bytes);
    return this.bytes <= this.settings.maxBytes;
  }

  remove(session: Holdable, outcome: HoldOutcome): void {
    const bytes = this.sessions.get(session);
    if (bytes === undefined) return;
    this.sessions.delete(session);
    this.account(-bytes);
    this.counters.heldNow--;
    this.counters.holdEnded[outcome]++;
    if (this.sessions.size === 0 && this.timer !== null) {
      clearInterval(this.timer);
      this.timer = null;
    }
  }

  private account(bytes: number): void {
    this.bytes += bytes;
    this.counters.heldBytesNow = this.bytes;
  }

  /**
   * There may be a way for some of them: all try, in the order of arrival, a batch a turn; but who waits for
   * a replica only when there is one.
   */
  retryAll(): void {
    if (this.retrying || this.sessions.size === 0) return;
    const all = [...this.sessions.keys()];
    const waiting = this.hasReplica() ? all : all.filter(lacksMaster);
    if (waiting.length === 0) return;
    this.retrying = true;
    this.releasing = waiting.some(lacksMaster);
    this.retryBatch(waiting, 0);
  }

  private retryBatch(sessions: readonly Holdable[], from: number): void {
    const to = Math.min(from + RELEASE_BATCH, sessions.length);
    for (let i = from; i < to; i++) {
      const session = sessions[i]!;
      try {
        if (this.sessions.has(session)) session.retry();
      } catch (error) {
        // A bug, to be reported as one; the others are let go all the same.
        setImmediate(() => {
          throw error;
        });
      }
    }
    if (to < sessions.length) return void setImmediate(() => this.retryBatch(sessions, to));
    this.retrying = false;
    this.releasing = false;
    if (this.joined) setImmediate(() => this.retryAll());
    this.joined = false;
  }

  private checkDeadlines(): void {
    const cutoffMs = this.nowMs() - this.settings.maxTimeMs;
    for (const session of [...this.sessions.keys()]) {
      if (session.heldSinceMs <= cutoffMs) session.expire(cutoffMs);
    }
    if (this.hasMaster()) this.retryAll();
  }

  destroy(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
  }
}

function lacksMaster({ lacks }: Holdable): boolean {
  return lacks === "master";
}
