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

export class Proofs {
  /** When it was last asked for, monotonic ms. */
  private askedMs = Number.NEGATIVE_INFINITY;
  private readonly waiting = new Set<WaitsForProof>();
  private timer: NodeJS.Timeout | null = null;
  private readonly intervalMs: number;
  private readonly mostMs: number;
  private readonly nowMs: () => number;

  /**
   * @param intervalMs how often it is asked for, at most.
   * @param mostMs a replica whose last proof is older than this is not waited for, far away as it may be.
   */
  constructor(intervalMs: number, mostMs: number, nowMs: () => number) {
    this.intervalMs = intervalMs;
    this.mostMs = mostMs;
    this.nowMs = nowMs;
  }

  asked(atMs: number): void {
    this.askedMs = atMs;
  }

  /**
   * Up to when a replica will soon be proven, monotonic ms; null = nothing is on its way, or the replica has
   * not kept up.
   * @param replica how far it is proven, and how old that proof was when it came, ms.
   */
  soon({ provenAtMs, proofTookMs }: Proven): number | null {
    if (provenAtMs >= this.askedMs) return null;
    // A replica that is being asked already is asked once more behind that: at worst two answers are awaited.
    const patienceMs = Math.min(this.mostMs, this.intervalMs + 3 * proofTookMs + 2 * SLACK_MS);
    return this.nowMs() - provenAtMs < patienceMs ? this.askedMs : null;
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
