/**
 * When the nodes are asked next: in rounds, more often while something is odd, never twice within a moment.
 * Timers that fire late tell that our own process stood still.
 */
import type { Clock, SetTimer } from "../clock.ts";

/** Rounds asked for by evidence are at least so far apart, in ms. */
const ROUND_GAP_MS = 5;
/** Dense probing goes on for so long after a switch or a hold, in ms: replicas find their new master. */
const DENSE_AFTER_MS = 2_000;
/** Between two rounds while a promotion is expected, in ms: at least this, at most twice. */
const DENSEST_MS = 10;

export interface PaceParts {
  readonly clock: Clock;
  readonly setTimer: SetTimer;
  /** In [0, 1). */
  readonly random: () => number;
  /** Between two rounds while all is well, in ms, about. */
  readonly intervalMs: number;
  /** A timer that fires so late, in ms, means that our process stood still. */
  readonly stallMs: number;
  /** Begins a round: it calls `began` and, at its end, `within`. */
  readonly round: () => void;
}

export class Pace {
  /** Monotonic ms at which the last stall of our own process ended, and how long it was, ms. */
  stalledUntilMs = Number.NEGATIVE_INFINITY;
  stalledForMs = 0;
  #cancelTick: (() => void) | null = null;
  #dueMs = Number.POSITIVE_INFINITY;
  #lastRoundMs = Number.NEGATIVE_INFINITY;
  #denseUntilMs = Number.NEGATIVE_INFINITY;
  #densestUntilMs = Number.NEGATIVE_INFINITY;
  #isStopped = false;
  readonly #parts: PaceParts;

  constructor(parts: PaceParts) {
    this.#parts = parts;
  }

  /** A round now, or as soon as the last one is a moment ago. */
  soon(): void {
    const waitMs = this.#untilNextMs();
    if (waitMs === 0) this.#parts.round();
    else this.within(waitMs);
  }

  /** The same, but never before this returns. */
  next(): void {
    this.within(this.#untilNextMs());
  }

  #untilNextMs(): number {
    return Math.max(0, this.#lastRoundMs + ROUND_GAP_MS - this.#parts.clock.nowMs());
  }

  /** A round in so many ms, unless one is due sooner. */
  within(delayMs: number): void {
    if (this.#isStopped) return;
    const dueMs = this.#parts.clock.nowMs() + delayMs;
    if (this.#cancelTick !== null && this.#dueMs <= dueMs) return;
    this.#cancelTick?.();
    this.#dueMs = dueMs;
    this.#cancelTick = this.#parts.setTimer(() => {
      this.noticeStall();
      this.#cancelTick = null;
      this.#parts.round();
    }, delayMs);
  }

  /** A round has begun: none is due for now. */
  began(nowMs: number): void {
    this.#cancelTick?.();
    this.#cancelTick = null;
    this.#lastRoundMs = nowMs;
  }

  /** A tick that is overdue means that we did not run; answers may lie unread in the sockets. */
  noticeStall(): void {
    const nowMs = this.#parts.clock.nowMs();
    const lateMs = this.#cancelTick === null ? 0 : nowMs - this.#dueMs;
    if (lateMs <= this.#parts.stallMs) return;
    this.stalledUntilMs = nowMs;
    this.stalledForMs = lateMs;
  }

  /** A promotion is expected within so many ms. */
  expect(forMs: number): void {
    this.#densestUntilMs = Math.max(this.#densestUntilMs, this.#parts.clock.nowMs() + forMs);
  }

  /** The master has changed, or is back: replicas will find it soon. */
  settle(nowMs: number): void {
    this.#denseUntilMs = nowMs + DENSE_AFTER_MS;
  }

  /** From one round to the next, ms. @param isOdd something is wrong with the group. */
  pauseMs(nowMs: number, isOdd: boolean): number {
    const { intervalMs, random } = this.#parts;
    if (nowMs < this.#densestUntilMs) return Math.min(intervalMs, DENSEST_MS * (1 + random()));
    if (!isOdd && nowMs >= this.#denseUntilMs) return intervalMs * (0.9 + 0.2 * random());
    return this.densePauseMs * (1 - 0.2 * random());
  }

  /** The same while something is odd, ms: at most so long. */
  get densePauseMs(): number {
    const { intervalMs } = this.#parts;
    return Math.min(intervalMs, Math.max(10, intervalMs / 5));
  }

  /** There are no more rounds. */
  stop(): void {
    this.#isStopped = true;
    this.#cancelTick?.();
  }
}
