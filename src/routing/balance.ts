/**
 * PURE. Which of the nodes that may be read serves a session, or one read.
 *
 * Only the best rank that has a node counts. For a session four lots are drawn, each by weighted rendezvous
 * hashing: every node gets a number made of the session, the lot, the node and its weight, and the smallest
 * wins. The session takes the lot whose node has the least to do for its weight, and keeps it. So a node that
 * joins takes over its share of the sessions, one that leaves gives away its own, and no other session moves.
 * One read takes the better of two nodes drawn at random, by weight.
 */
import { strict as assert } from "node:assert";

/** What is on the way to a node; changes all the time. */
export interface Load {
  /** Requests that it has not answered. */
  readonly outstanding: number;
  /** Sessions that read there as long as nothing changes. */
  readonly sessions: number;
}

/** A node that may be read now. */
export interface Candidate {
  /** host:port, the same in every proxy. */
  readonly node: string;
  /** How much it gets beside the others, 0 or more; 0 = nothing as long as there is another. */
  readonly weight: number;
  /** 0 = the best; the next is used while there is none better. */
  readonly rank: number;
  readonly load: Load;
  /** It answers late: it gets less, see `SLOW_SHARE`. */
  readonly isSlow: boolean;
}

/** What a slow node gets of what it would get: enough to see when it is well again. */
export const SLOW_SHARE = 1 / 8;

/** Which of its lots a session has taken. */
export type Lot = 0 | 1 | 2 | 3;

const LOTS: readonly Lot[] = [0, 1, 2, 3];

/** The nodes that count, made ready once so that choosing costs nothing. */
export class Choice<T extends Candidate> {
  /** The nodes that are chosen among. */
  readonly nodes: readonly T[];
  private readonly weights: Float64Array;
  /** Hashes of the nodes' names. */
  private readonly hashes: Uint32Array;
  private readonly total: number;

  constructor(candidates: readonly T[]) {
    const wanted = candidates.filter((one) => one.weight > 0);
    const left = wanted.length > 0 ? wanted : candidates;
    const best = left.reduce((rank, one) => Math.min(rank, one.rank), Number.POSITIVE_INFINITY);
    this.nodes = left.filter((one) => one.rank === best);
    this.weights = Float64Array.from(this.nodes, shareOf);
    this.hashes = Uint32Array.from(this.nodes, (one) => hashOf(one.node));
    this.total = this.weights.reduce((sum, weight) => sum + weight, 0);
  }

  /**
   * The lot for a session that reads for the first time. It keeps it: only nodes that come or go, or count
   * for more or less, move it then.
   * @param sessionId a whole number.
   */
  lotFor(sessionId: number): Lot {
    let best: Lot = 0;
    let least = Number.POSITIVE_INFINITY;
    for (const lot of this.nodes.length < 2 ? [] : LOTS) {
      const index = this.rendezvous(sessionId, lot);
      const { outstanding, sessions } = this.at(index).load;
      const load = (outstanding + sessions + 1) / this.weightAt(index);
      if (load >= least) continue;
      least = load;
      best = lot;
    }
    return best;
  }

  /** Where a session reads as long as the nodes are these; null when no node may be read. */
  homeOf(sessionId: number, lot: Lot): T | null {
    return this.nodes.length === 0 ? null : this.at(this.rendezvous(sessionId, lot));
  }

  /**
   * A node for one read; made for every read, so it allocates nothing.
   * @param random from 0 up to 1. @returns null when no node may be read.
   */
  pick(random: number): T | null {
    const count = this.nodes.length;
    if (count < 2) return this.nodes[0] ?? null;
    // The digits before the point of the larger number say which is first, those behind it which is second.
    const scaled = random * DRAWS;
    const drawn = Math.floor(scaled);
    const first = this.draw((drawn / DRAWS) * this.total, -1);
    const others = this.total - this.weightAt(first);
    return this.at(this.better(first, this.draw((scaled - drawn) * others, first)));
  }

  /** The node at a point of all weights laid end to end, one left out (-1 = none). */
  private draw(point: number, without: number): number {
    let left = point;
    let last = 0;
    for (let i = 0; i < this.weights.length; i++) {
      if (i === without) continue;
      last = i;
      left -= this.weightAt(i);
      if (left < 0) break;
    }
    return last;
  }

  /**
   * -ln(u) / weight is smallest for a node with the probability that its share says, for u even over (0, 1].
   */
  private rendezvous(sessionId: number, lot: Lot): number {
    const key = mixed(mixed(sessionId) + lot);
    let best = 0;
    let smallest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.hashes.length; i++) {
      const u = (mixed(key ^ (this.hashes[i] ?? 0)) + 1) / 2 ** 32;
      const score = -Math.log(u) / this.weightAt(i);
      if (score >= smallest) continue;
      smallest = score;
      best = i;
    }
    return best;
  }

  /**
   * The first, unless the second with one request more still has less to do for its weight: where nearly
   * nothing is on the way the weights alone decide.
   */
  private better(first: number, second: number): number {
    const ahead = this.at(first).load.outstanding / this.weightAt(first);
    const behind = (this.at(second).load.outstanding + 1) / this.weightAt(second);
    return behind < ahead ? second : first;
  }

  private at(index: number): T {
    const node = this.nodes[index];
    assert(node !== undefined, "a node was chosen that there is not");
    return node;
  }

  private weightAt(index: number): number {
    return this.weights[index] ?? 0;
  }
}

/** The node to ask beside another one: not a slow one, of the best rank, with the least to do. */
export function spareOf<T extends Candidate>(candidates: readonly T[], isFit: (one: T) => boolean): T | null {
  let best: T | null = null;
  for (const one of candidates) if (isFit(one) && (best === null || isBetterSpare(one, best))) best = one;
  return best;
}

function isBetterSpare(one: Candidate, best: Candidate): boolean {
  if (one.isSlow !== best.isSlow) return best.isSlow;
  if (one.weight === 0 || best.weight === 0) return one.weight > best.weight;
  if (one.rank !== best.rank) return one.rank < best.rank;
  return one.load.outstanding * best.weight < best.load.outstanding * one.weight;
}

/** What a node counts for: where all weights are 0 they are alike. */
function shareOf({ weight, isSlow }: Candidate): number {
  return (weight > 0 ? weight : 1) * (isSlow ? SLOW_SHARE : 1);
}

/** Two draws of 26 bits are in a random number of 53. */
const DRAWS = 2 ** 26;

/** All bits of a whole number spread over 32 (the finalizer of MurmurHash3). */
function mixed(value: number): number {
  let bits = value >>> 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85eb_ca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2_ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

/** FNV-1a, spread. */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return mixed(hash);
}
