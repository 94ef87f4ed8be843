/**
 * PURE. Processes that were told to become the master by an order that was given up. One that hangs reads it
 * when it wakes up, however much later, and is a master then that lacks what was written meanwhile: of a
 * promotion by somebody else that is what it may lose, of our own it is not.
 */

import type { NodeId } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
import type { Belief, MasterBelief, NodeView } from "./model.ts";

/** Remembered at most; the oldest are forgotten. */
export const MAX_RENOUNCED = 64;

/** @returns the belief after the order to `node` was given up. */
export function renounce(belief: Belief, views: readonly NodeView[], node: NodeId): Belief {
  const runId = views.find(({ id }) => id === node)?.report?.runId;
  if (belief.master === null || runId === undefined) return belief;
  const others = [...belief.renounced].filter(([one]) => one !== runId);
  const renounced = new Map(
    [...others, [runId, belief.master.lastSeenOffset] as const].slice(-MAX_RENOUNCED),
  );
  return { ...belief, renounced };
}

/**
 * Its claim would throw away what the master has taken since the order was given up.
 * @param isWell the master is: then it may have been written since it was asked last.
 */
export function isRenounced(
  belief: Belief,
  master: MasterBelief,
  isWell: boolean,
  { runId }: NodeReport,
): boolean {
  const offset = belief.renounced.get(runId);
  return offset !== undefined && (isWell || master.lastSeenOffset > offset);
}

/** Without those that have followed the master since: nothing is left of the order. */
export function withoutFollowers(
  renounced: Belief["renounced"],
  replicas: readonly NodeReport[],
): Belief["renounced"] {
  const done = replicas.filter(
    ({ runId, appliedOffset }) => appliedOffset > (renounced.get(runId) ?? Number.POSITIVE_INFINITY),
  );
  if (done.length === 0) return renounced;
  return new Map([...renounced].filter(([runId]) => !done.some((report) => report.runId === runId)));
}

/** Without the one that was accepted as the master: its order has been carried out. */
export function withoutMaster(renounced: Belief["renounced"], { runId }: NodeReport): Belief["renounced"] {
  return renounced.has(runId) ? new Map([...renounced].filter(([one]) => one !== runId)) : renounced;
}
