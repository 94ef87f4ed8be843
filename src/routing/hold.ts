/**
 * Sessions whose next request needs a master while there is none. A session is held as a whole: it is not
 * read any further than its bounds allow and queues behind itself, so its requests keep their order.
 *
 * Exact accounting: held = released + expired + left + failed + held now.
 */
import type { Counters, HoldOutcome } from "../metrics.ts";

/** What the hold needs to know of a session. */
export interface Holdable {
  /** Since when the oldest of its waiting requests has waited, monotonic ms. */
  readonly heldSinceMs: number;
  /** Bytes it has waiting. */
  heldBytes(): number;
  /** Try again: there may be a way now. It stays held until it says that it got on. */
  retry(): void;
  /** What has waited since before `cutoffMs` is answered MASTERDOWN. */
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
  private timer: NodeJS.Timeout | null = null;
  /** Sessions are being let go, in their order; those that come now queue behind them. */
  releasing = false;
  private joined = false;

  constructor(settings: HoldSettings, counters: Counters, nowMs: () => number, hasMaster: () => boolean) {
    this.settings = settings;
    this.counters = counters;
    this.nowMs = nowMs;
    this.hasMaster = hasMaster;
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
    this.joined ||= this.releasing;
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

  /** There may be a way for some of them: all try, in the order of arrival, a batch a turn. */
  retryAll(): void {
    if (this.releasing || this.sessions.size === 0) return;
    this.releasing = true;
    this.retryBatch([...this.sessions.keys()], 0);
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
