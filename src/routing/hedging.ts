/** PURE. How many reads may be sent to a second node: nodes that are all slow must not get twice the work. */

/** Of all reads. */
const SHARE = 0.1;

/** So many may be sent at once: what is on the way to a node that stops. */
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
