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

/** What there is to be looked at. */
export interface Upstream {
  /** The nodes that may be read now. */
  readable(): readonly NodeId[];
  /** When a node's oldest sample that is not answered was sent, monotonic ms; null = there is none. */
  sampledSinceMs(node: NodeId): number | null;
  /** Whether there are shared connections to a node. */
  isConnected(node: NodeId): boolean;
}

export class Standing {
  private readonly preferred: ReadonlySet<NodeId>;
  private readonly weights: ReadonlyMap<NodeId, number>;
  /** One for each node that may be read, or that has connections: those keep theirs. */
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
   * @returns whether other nodes are slow now.
   */
  look(nowMs: number, upstream: Upstream): boolean {
    if (nowMs - this.lookedMs < LOOK_MS) return false;
    this.lookedMs = nowMs;
    const nodes = upstream.readable();
    if (nowMs - this.turnedMs >= SPAN_MS) this.turn(nowMs, nodes, upstream);
    return this.slow.look(
      nodes.map((node) => {
        const tookMs = this.meterOf(node).p99Ms(LEAST_SAMPLES);
        const waitsMs = nowMs - (upstream.sampledSinceMs(node) ?? nowMs);
        // One that has only begun to wait says nothing of a node of which nothing else is known.
        if (tookMs === null) return { node, lateMs: waitsMs < LOOK_MS ? null : waitsMs };
        return { node, lateMs: Math.max(tookMs, waitsMs) };
      }),
    );
  }

  /** A new span of time begins; of nodes that are of no use any more nothing is kept. */
  private turn(nowMs: number, nodes: readonly NodeId[], upstream: Upstream): void {
    this.turnedMs = nowMs;
    for (const [node, meter] of this.meters) {
      meter.turn();
      const isUsed = meter.sessions > 0 || nodes.includes(node) || upstream.isConnected(node);
      if (!isUsed) this.meters.delete(node);
    }
  }
}
