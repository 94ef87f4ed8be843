/** Proof that is on its way: what a replica has applied is being asked for at this moment. */

/** Who waits for it. */
export interface WaitsForProof {
  /** Replicas have proven more, or it takes too long. */
  proofCame(): void;
}

/** How long at most it is waited for, ms: on the way are two questions, to the master and then to a replica. */
const WAIT_MS = 5;

export class Proofs {
  /** When it was last asked for, and the time before, monotonic ms. */
  private askedMs = Number.NEGATIVE_INFINITY;
  private askedBeforeMs = Number.NEGATIVE_INFINITY;
  private readonly waiting = new Set<WaitsForProof>();
  private timer: NodeJS.Timeout | null = null;
  private readonly nowMs: () => number;

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  asked(atMs: number): void {
    this.askedBeforeMs = this.askedMs;
    this.askedMs = atMs;
  }

  /**
   * Up to when a replica that is proven so far will soon be, monotonic ms; null = nothing is on its way, or the
   * replica has not kept up with what was asked before.
   */
  soon(provenAtMs: number): number | null {
    const { askedMs, askedBeforeMs } = this;
    if (provenAtMs >= askedMs || provenAtMs < askedBeforeMs) return null;
    return this.nowMs() - askedMs < WAIT_MS ? askedMs : null;
  }

  wait(one: WaitsForProof): void {
    this.waiting.add(one);
    this.timer ??= setTimeout(() => this.came(), WAIT_MS);
  }

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
