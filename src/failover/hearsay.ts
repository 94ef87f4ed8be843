/**
 * PURE. The last question before a master that does not answer is replaced: do its replicas still reach it?
 *
 * Neither what they heard nor their link tells in time: an idle master is heard every
 * repl-ping-replica-period (10 s) only, and a link to a process that hangs stays up for repl-timeout (60 s).
 * So a replica that has a link is told to make it anew. It does so at once (replication.c,
 * replicationHandleMasterDisconnection): where the master lives the link is up again within moments and
 * nothing has changed; where it hangs the link is down, and stays so.
 */

import type { NodeId } from "../topology/epoch.ts";
import type { NodeReport } from "../topology/report.ts";
import type { GroupSight } from "../topology/watcher.ts";
import { followersOf, type Outage, type Question } from "./diagnosis.ts";
import type { CommandResult } from "./model.ts";
import type { Draft } from "./state.ts";

/** How long a replica may take to have its link again, ms; before Redis 7 it tries once a second. */
const RELINK_MS = 150;
const SLOW_RELINK_MS = 1_300;
/** So long before the answer is needed they are asked, ms: a link made anew, and the report that shows it. */
export const ASK_BEFORE_MS = 200;
/** How long its next report may take on top, ms. */
const REPORT_MS = 1_000;
/** How soon to look again, ms. */
const SOON_MS = 20;

/** @returns whether some replica has been asked now, or has not shown yet what came of it. */
export function askReplicas(draft: Draft, group: GroupSight, outage: Outage): boolean {
  const master = group.nodes.find(({ id }) => id === outage.master);
  // One that answers says itself what it is.
  if (master?.contact !== "silent" && master?.contact !== "unreachable") return false;
  const questions = new Map(outage.questions);
  const open: NodeId[] = [];
  for (const { report } of followersOf(group)) {
    const question = questions.get(report.node);
    if (question === undefined ? report.linkUp : isOpen(question, report, draft.nowMs))
      open.push(report.node);
    if (question !== undefined || !report.linkUp) continue;
    const command = draft.run(report.node, { kind: "relink" });
    const endedAtMs = Number.POSITIVE_INFINITY;
    questions.set(report.node, { command, endedAtMs, isDone: false, isLeft: false });
  }
  if (questions.size !== outage.questions.size) draft.set({ outage: { ...outage, questions } });
  if (open.length === 0) return false;
  draft.look(...open);
  draft.wake(draft.nowMs + SOON_MS);
  return true;
}

function isOpen(question: Question, report: NodeReport, nowMs: number): boolean {
  if (question.command !== null) return true;
  if (!question.isDone) return false;
  const knownAtMs =
    question.endedAtMs + (Number.parseInt(report.version, 10) >= 7 ? RELINK_MS : SLOW_RELINK_MS);
  return report.sentAtMs < knownAtMs && nowMs < knownAtMs + REPORT_MS;
}

export function onRelinkEnded(draft: Draft, id: number, result: CommandResult): void {
  const { outage } = draft.state;
  for (const [node, question] of outage?.questions ?? []) {
    if (outage === null || question.command !== id) continue;
    const isDone = result.kind === "done";
    if (result.kind === "refused")
      draft.tell("not-asked", node, `whether it reaches the master: ${result.error}`);
    const questions = new Map(outage.questions);
    if (question.isLeft) questions.delete(node);
    else questions.set(node, { command: null, endedAtMs: draft.nowMs, isDone, isLeft: false });
    draft.set({ outage: { ...outage, questions } });
    draft.look(node);
  }
}
