/** Proof that is on its way: what replicas have applied is being asked for at this moment. */

/** Who waits for it. */
export interface WaitsForProof {
  /** Replicas have proven more, or it takes too long. */
  proofCame(): void;
}

/** A replica whose last proof is older than this, ms, is not waited for. */
const MOST_MS = 100;

/** What two looks may be apart beyond the interval that is set, ms. */
const SLACK_MS = 5;

export class Proofs {
  /** When it was last asked for, monotonic ms. */
  private askedMs = Number.NEGATIVE_INFINITY;
  /** The newest proof of any replica, and how old that was when it came, ms. */
  private provenAtMs = Number.NEGATIVE_INFINITY;
  private tookMs = 0;
  private readonly waiting = new Set<WaitsForProof>();
  private timer: NodeJS.Timeout | null = null;
  private readonly intervalMs: number;
  private readonly nowMs: () => number;

  /** @param intervalMs how often it is asked for, at most. */
  constructor(intervalMs: number, nowMs: () => number) {
    this.intervalMs = intervalMs;
    this.nowMs = nowMs;
  }

  asked(atMs: number): void {
    this.askedMs = atMs;
  }

  /**
   * Up to when a replica that is proven so far will soon be, monotonic ms; null = nothing is on its way, or
   * the replica has not kept up.
   */
  soon(provenAtMs: number): number | null {
    if (provenAtMs >= this.askedMs) return null;
    const patienceMs = Math.min(MOST_MS, this.intervalMs + 2 * this.tookMs + SLACK_MS);
    return this.nowMs() - provenAtMs < patienceMs ? this.askedMs : null;
  }

  wait(one: WaitsForProof): void {
    this.waiting.add(one);
    this.timer ??= setTimeout(() => this.wakeAll(), SLACK_MS);
  }

  /** Replicas are proven up to these moments now, or routing has changed otherwise. */
  came(proven: readonly { readonly provenAtMs: number }[]): void {
    for (const { provenAtMs } of proven) {
      if (provenAtMs <= this.provenAtMs) continue;
      this.provenAtMs = provenAtMs;
      this.tookMs = this.nowMs() - provenAtMs;
    }
    this.wakeAll();
  }

  private wakeAll(): void {
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
