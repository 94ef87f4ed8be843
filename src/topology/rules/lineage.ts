/**
 * PURE. Which history continues which. On promotion a server keeps its old replication id as master_replid2
 * and the first offset of its own history as second_repl_offset; a replica that continues with a master of a
 * new id (+CONTINUE <id>) does the same. So each such pair is an edge from one history to the next.
 */

import type { NodeReport } from "../report.ts";

/** History `to` contains history `from` up to and including `offset`. */
export interface Edge {
  readonly from: string;
  readonly to: string;
  readonly offset: number;
}

export interface Lineage {
  /** Bytes of the ancestor that survive; a lower bound when the chain has several steps. */
  readonly endOffset: number;
  /** The ids on the way, newest first; the ancestor is the last. */
  readonly path: readonly string[];
}

/** Longest chain of promotions believed to have been missed between two probes. */
const MAX_STEPS = 8;

export function edgeOf(report: NodeReport): Edge | null {
  if (report.replid2 === null || report.secondReplOffset === null) return null;
  return { from: report.replid2, to: report.replid, offset: report.secondReplOffset - 1 };
}

/**
 * How the history of `claimant` continues `ancestor`, or null. Its own word is taken first, then `edges`,
 * which must come from running instances that are known to have got their data by replication.
 */
export function lineageOf(claimant: NodeReport, ancestor: string, edges: readonly Edge[]): Lineage | null {
  const own = edgeOf(claimant);
  const known = own === null ? edges : [own, ...edges];
  const path = [claimant.replid];
  let endOffset = Number.POSITIVE_INFINITY;
  for (let step = 0; step < MAX_STEPS; step++) {
    const current = path.at(-1);
    const edge = known.find(({ to, from }) => to === current && !path.includes(from));
    if (edge === undefined) return null;
    path.push(edge.from);
    endOffset = Math.min(endOffset, edge.offset);
    if (edge.from === ancestor) return { endOffset, path };
  }
  return null;
}
