/** Proof that is on its way: what replicas have applied is being asked for at this moment. */

/** Who waits for it. */
export interface WaitsForProof {
  /** Replicas have proven more, or it takes too long. */
  proofCame(): void;
}

interface Proven {
  readonly provenAtMs: number;
  readonly proofTookMs: number;
}

/** What a question may be late by, ms; and how often who waits looks again, though nothing came. */
const SLACK_MS = 5;

/** Questions that may be on their way at once to a replica that is far away. */
const ASKS = 8;

export class Proofs {
  /** When it was asked for lately, monotonic ms, the newest first. */
  private readonly asks: number[] = [];
  private readonly waiting = new Set<WaitsForProof>();
  private timer: NodeJS.Timeout | null = null;
  private readonly mostMs: number;
  private readonly nowMs: () => number;

  /** @param mostMs what takes longer is not waited for, far away as the replica may be. */
  constructor(mostMs: number, nowMs: () => number) {
    this.mostMs = mostMs;
    this.nowMs = nowMs;
  }

  asked(atMs: number): void {
    this.asks.unshift(atMs);
    if (this.asks.length > ASKS) this.asks.pop();
  }

  /** How long ago it was asked for what has come now, ms; null = nobody had, it came by itself. */
  took(provenAtMs: number): number | null {
    const askedMs = this.asks.find((atMs) => atMs <= provenAtMs);
    if (askedMs === undefined || provenAtMs - askedMs > SLACK_MS) return null;
    return this.nowMs() - askedMs;
  }

  /**
   * Up to when a replica will soon be proven, monotonic ms; null = nothing is on its way, or the replica has
   * not kept up.
   * @param replica how far it is proven, and how long that took, ms.
   */
  soon({ provenAtMs, proofTookMs }: Proven): number | null {
    const [askedMs = Number.NEGATIVE_INFINITY] = this.asks;
    // A replica that is being asked already is asked once more behind that: at worst two answers are awaited.
    const dueMs = this.nowMs() - Math.min(this.mostMs, 2 * proofTookMs + SLACK_MS);
    if (provenAtMs >= askedMs || askedMs <= dueMs) return null;
    const overdueMs = this.asks.find((atMs) => atMs <= dueMs);
    return overdueMs !== undefined && provenAtMs < overdueMs ? null : askedMs;
  }

  wait(one: WaitsForProof): void {
    this.waiting.add(one);
    this.timer ??= setTimeout(() => this.came(), SLACK_MS);
  }

  /** Replicas have proven more, routing has changed otherwise, or it is time to look. */
  came(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    if (this.waiting.size === 0) return;
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const one of waiting) one.proofCame();
  }

  destroy(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    this.waiting.clear();
  }
}
