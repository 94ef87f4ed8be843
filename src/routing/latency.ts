/** PURE. Which nodes answer reads late, beside the others that answer the same kind of reads. */

/** How late a node answers now. */
export interface Lateness {
  readonly node: string;
  /**
   * What 99 of 100 reads do not exceed, or how long one has been waiting if that is longer, ms; null = too
   * few reads to tell.
   */
  readonly lateMs: number | null;
}

/** A node is slow from so many times the median of the others on, and well again at so many times less. */
export const SLOW_FACTOR = 4;
const WELL_SHARE = 1 / 2;

/** Looks in a row that must find it late: one may have been the proxy's own pause. */
const LOOKS = 2;

export class SlowNodes {
  private readonly slow = new Set<string>();
  /** Nodes that are late and not slow yet, with the looks that found it. */
  private readonly late = new Map<string, number>();
  private readonly afterMs: number;

  /** @param afterMs no node that answers sooner is slow; 0 = none ever is. */
  constructor(afterMs: number) {
    this.afterMs = afterMs;
  }

  has(node: string): boolean {
    return this.slow.has(node);
  }

  /**
   * Looks at all nodes that may be read, and at no others: one that is not among them any more is not slow.
   * @returns whether the set of slow nodes changed.
   */
  look(all: readonly Lateness[]): boolean {
    if (this.afterMs === 0) return false;
    let changed = false;
    for (const known of [...this.slow, ...this.late.keys()]) {
      if (all.some(({ node }) => node === known)) continue;
      changed = this.slow.delete(known) || changed;
      this.late.delete(known);
    }
    for (const { node, lateMs } of all) {
      const isSlow = this.judge(node, lateMs, limitFor(node, all, this.afterMs));
      if (isSlow === this.slow.has(node)) continue;
      if (isSlow) this.slow.add(node);
      else this.slow.delete(node);
      changed = true;
    }
    return changed;
  }

  private judge(node: string, lateMs: number | null, limitMs: number): boolean {
    if (this.slow.has(node)) return lateMs !== null && lateMs > limitMs * WELL_SHARE;
    if (lateMs === null || lateMs <= limitMs) {
      this.late.delete(node);
      return false;
    }
    const looks = (this.late.get(node) ?? 0) + 1;
    this.late.set(node, looks);
    if (looks < LOOKS) return false;
    this.late.delete(node);
    return true;
  }
}

/** From where on a node is late, ms; never where nothing is known of the others. */
function limitFor(node: string, all: readonly Lateness[], afterMs: number): number {
  const others = all.flatMap((one) => (one.node === node || one.lateMs === null ? [] : [one.lateMs]));
  const median = medianOf(others);
  return median === null ? Number.POSITIVE_INFINITY : Math.max(afterMs, SLOW_FACTOR * median);
}

/** The lower one of two in the middle: with two others, the faster one is what to expect. */
function medianOf(values: readonly number[]): number | null {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? null;
}
