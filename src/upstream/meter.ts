/** What the connections to one node see of it: how much is on the way, and how long answers take. */

/** Four buckets for each doubling, from 0.05 ms up to 50 s: a value is known to 19 %. */
const SMALLEST_MS = 0.05;
const PER_DOUBLING = 4;
const BUCKETS = 80;

export class NodeMeter {
  /** Requests over shared connections that are not answered. */
  outstanding = 0;
  /** Sessions that read there as long as nothing changes. */
  sessions = 0;
  /** Samples of this span of time and of the one before, by how long they took. */
  private current = new Uint32Array(BUCKETS);
  private before = new Uint32Array(BUCKETS);

  /** A read took so long, ms. */
  add(tookMs: number): void {
    const bucket = Math.ceil(PER_DOUBLING * Math.log2(Math.max(tookMs, SMALLEST_MS) / SMALLEST_MS));
    const at = Math.min(bucket, BUCKETS - 1);
    this.current[at] = (this.current[at] ?? 0) + 1;
  }

  /** A new span of time begins: what is older than the last one is forgotten. */
  turn(): void {
    const { current, before } = this;
    this.before = current;
    this.current = before.fill(0);
  }

  /**
   * What 99 of 100 samples did not exceed, ms; the longest one of fewer than 101 does not count.
   * @param least samples that it takes at least; null = there are fewer.
   */
  p99Ms(least: number): number | null {
    let count = 0;
    for (let i = 0; i < BUCKETS; i++) count += this.samplesIn(i);
    if (count < least || count === 0) return null;
    let left = Math.floor(0.99 * (count - 1)) + 1;
    for (let i = 0; i < BUCKETS; i++) {
      left -= this.samplesIn(i);
      if (left <= 0) return SMALLEST_MS * 2 ** (i / PER_DOUBLING);
    }
    return null;
  }

  private samplesIn(bucket: number): number {
    return (this.current[bucket] ?? 0) + (this.before[bucket] ?? 0);
  }
}
