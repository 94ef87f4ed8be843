/** PURE. How many reads may be sent to a second node: where all nodes are slow, that must not double their work. */

/** Of all reads. */
const SHARE = 0.1;

/** Reads that may be sent twice although nothing was read for a while: what one node that stops has at once. */
const BURST = 32;

export class HedgeBudget {
  private left = BURST;
  private reads = 0;

  /** @param reads all reads so far. */
  earn(reads: number): void {
    this.left = Math.min(BURST, this.left + SHARE * (reads - this.reads));
    this.reads = reads;
  }

  get isSpent(): boolean {
    return this.left < 1;
  }

  /** One was sent. */
  spend(): void {
    this.left--;
  }
}
