/** What each node that may be read counts for: what the settings say of it, and how late it answers. */
import type { Config } from "../config/schema.ts";
import type { NodeId } from "../topology/epoch.ts";
import { NodeMeter } from "../upstream/meter.ts";
import type { Candidate } from "./balance.ts";
import { SlowNodes } from "./latency.ts";

/** How often it is looked for slow nodes, ms. */
const LOOK_MS = 100;

/** How long samples count: from one to two of these spans of time, ms. */
const SPAN_MS = 2_000;

/** Samples in that time without which nothing is said of a node. */
const LEAST_SAMPLES = 8;

export class Standing {
  private readonly preferred: ReadonlySet<NodeId>;
  private readonly weights: ReadonlyMap<NodeId, number>;
  /** One for each node that was ever connected to: connections keep theirs. */
  private readonly meters = new Map<NodeId, NodeMeter>();
  private readonly slow: SlowNodes;
  private lookedMs = Number.NEGATIVE_INFINITY;
  private turnedMs = Number.NEGATIVE_INFINITY;

  constructor(reads: Config["reads"]) {
    this.preferred = new Set(reads.prefer);
    this.weights = new Map(reads.weights.map(({ node, weight }) => [node, weight]));
    this.slow = new SlowNodes(reads.slowAfter);
  }

  meterOf(node: NodeId): NodeMeter {
    let meter = this.meters.get(node);
    if (meter === undefined) {
      meter = new NodeMeter();
      this.meters.set(node, meter);
    }
    return meter;
  }

  of(node: NodeId): Pick<Candidate, "weight" | "rank"> & { readonly load: NodeMeter } {
    const weight = this.weights.get(node) ?? 1;
    return { weight, rank: this.preferred.has(node) ? 0 : 1, load: this.meterOf(node) };
  }

  isSlow(node: NodeId): boolean {
    return this.slow.has(node);
  }

  /**
   * To be called often.
   * @param nodes those that may be read now.
   * @param waitingSinceMs when the oldest sample of a node that is not answered was sent, monotonic ms;
   *   null = there is none.
   * @returns whether other nodes are slow now.
   */
  look(
    nowMs: number,
    nodes: () => readonly NodeId[],
    waitingSinceMs: (node: NodeId) => number | null,
  ): boolean {
    if (nowMs - this.lookedMs < LOOK_MS) return false;
    this.lookedMs = nowMs;
    if (nowMs - this.turnedMs >= SPAN_MS) {
      this.turnedMs = nowMs;
      for (const meter of this.meters.values()) meter.turn();
    }
    return this.slow.look(
      nodes().map((node) => {
        const tookMs = this.meterOf(node).p99Ms(LEAST_SAMPLES);
        const waitsMs = nowMs - (waitingSinceMs(node) ?? nowMs);
        // One that has only begun to wait says nothing of a node of which nothing else is known.
        if (tookMs === null) return { node, lateMs: waitsMs < LOOK_MS ? null : waitsMs };
        return { node, lateMs: Math.max(tookMs, waitsMs) };
      }),
    );
  }
}
