/**
 * PURE. What a former master that lives on still adds to the history that was left: it answers writes until
 * the switch, and a little beyond it those that were on their way. All of that is lost, and only its own
 * later reports tell how much it is.
 */

import type { NodeId } from "../epoch.ts";
import type { Belief, MasterChange, NodeView } from "./model.ts";

export interface Aftermath {
  /** The former master, and its running instance. */
  readonly node: NodeId;
  readonly runId: string;
  /** The history that was left, and up to where it survives. */
  readonly replid: string;
  readonly endOffset: number;
  /** What is known to be lost, in bytes. */
  readonly lostBytes: number;
  readonly epochNumber: number;
}

/** What is to be followed after `change`; null when the former master is gone, or nothing can be compared. */
export function aftermathOf(
  before: Belief,
  after: Belief,
  change: MasterChange,
  views: readonly NodeView[],
): Aftermath | null {
  const fork = after.master?.forkedFrom ?? null;
  const former = before.master;
  if (change.kind !== "switch" || change.lostBytes === null || fork === null || former === null) return null;
  const begun: Aftermath = {
    ...{ node: former.id, runId: former.runId, replid: former.replid },
    ...{ endOffset: fork.offset, lostBytes: change.lostBytes, epochNumber: after.epoch.number },
  };
  return fork.replid === former.replid ? followAftermath(begun, views) : null;
}

/** Null: the former master adds nothing any more, or cannot be asked. */
export function followAftermath(aftermath: Aftermath, views: readonly NodeView[]): Aftermath | null {
  const { node, runId, replid, endOffset } = aftermath;
  const view = views.find(({ id }) => id === node);
  if (view === undefined || view.contact !== "answering" || view.report === null) return null;
  const { report } = view;
  if (report.runId !== runId || report.role !== "master" || report.replid !== replid) return null;
  const lostBytes = Math.max(aftermath.lostBytes, report.masterReplOffset - endOffset);
  return lostBytes === aftermath.lostBytes ? aftermath : { ...aftermath, lostBytes };
}
