/** A span of monotonic time, in ms; both ends belong to it. */
interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** Spans remembered at most; beyond it the two oldest become one. */
const MAX_SPANS = 64;

/**
 * When writes were answered that a later switch may have lost: replication is asynchronous, so what the
 * former master acknowledged last may not be in the new master's history.
 */
export class Doubts {
  /** Oldest first. */
  private readonly spans: Span[] = [];

  /**
   * A switch at `nowMs`.
   * @param keptUntilMs writes answered before it are proven to be in the new history; -Infinity = none are,
   *   Infinity = all are.
   */
  add(keptUntilMs: number, nowMs: number): void {
    this.spans.push({ fromMs: keptUntilMs, toMs: nowMs });
    if (this.spans.length <= MAX_SPANS) return;
    const [first, second] = this.spans as [Span, Span];
    const fromMs = Math.min(first.fromMs, second.fromMs);
    this.spans.splice(0, 2, { fromMs, toMs: second.toMs });
  }

  /** Whether a write that was answered at `answeredMs` may be lost. */
  cover(answeredMs: number): boolean {
    return this.spans.some(({ fromMs, toMs }) => fromMs <= answeredMs && answeredMs <= toMs);
  }
}
