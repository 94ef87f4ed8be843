/**
 * PURE. What traffic noticed takes effect at once, and until a probe that was sent later says otherwise.
 */

import type { Evidence, NodeId } from "../epoch.ts";
import type { Belief, Suspicion } from "./model.ts";
import { causeOfEvidence } from "./succession.ts";

/**
 * Evidence about the master holds its sessions, evidence about a replica stops reading from it. Evidence from
 * another epoch changes nothing.
 * @param lastsMs only a probe that is sent so much later can say otherwise.
 */
export function suspect(belief: Belief, evidence: Evidence, nowMs: number, lastsMs = 0): Belief {
  const { epoch } = belief;
  if (evidence.epoch !== epoch.number) return belief;
  const suspicion: Suspicion = { node: evidence.node, kind: evidence.kind, sinceMs: nowMs + lastsMs };
  const suspicions = [...belief.suspicions.filter(({ node }) => node !== evidence.node), suspicion];
  if (evidence.node === epoch.master) {
    return {
      ...belief,
      suspicions,
      gone: belief.gone ?? { sinceMs: nowMs, by: "evidence" },
      epoch: epoch.holdCause !== null ? epoch : { ...epoch, holdCause: causeOfEvidence(evidence.kind) },
    };
  }
  return { ...belief, suspicions, epoch: withoutReadable(belief, evidence.node) };
}

function withoutReadable(belief: Belief, gone: NodeId): Belief["epoch"] {
  const { epoch } = belief;
  const readable = epoch.readable.filter(({ id }) => id !== gone);
  return readable.length === epoch.readable.length ? epoch : { ...epoch, readable };
}
