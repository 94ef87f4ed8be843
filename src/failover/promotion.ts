/**
 * PURE. Promotion by the proxy: a master that is gone is replaced by the best replica.
 *
 *   outage → grace → last look at the leases → the candidate is told → the watcher accepts it
 *
 * From the moment the candidate is told until it is accepted, or known not to have become a master, writes are
 * held also if the former master comes back: what it would take then would be lost.
 */

import type { NodeId } from "../topology/epoch.ts";
import { type Choice, chooseCandidate } from "./candidate.ts";
import { diagnose, followOutage, goneAtMs, heardAtMs, type Outage } from "./diagnosis.ts";
import type { CommandResult, Obstacle, Standing } from "./model.ts";
import type { Draft, Job } from "./state.ts";
import { endSettling } from "./switchover.ts";

/** How soon to look again for something that must show within moments, ms. */
const SOON_MS = 20;
/** After which a candidate that could not be promoted is tried again, ms. */
const RETRY_MS = 1_000;
/** How long the watcher may take to accept a node that said it was promoted, ms. */
const ACCEPT_MS = 2_000;

export function followPromotion(draft: Draft): void {
  const { group, job } = draft.state;
  if (draft.settings.mode !== "self" || group === null) return;
  if (job.kind === "promoting") return watchPromotion(draft, job);
  if (job.kind === "switchover" && job.phase !== "settling") return;
  const before = draft.state.outage;
  const outage = followOutage(group, before, draft.nowMs);
  draft.set({ outage });
  if (before !== null && outage === null) draft.tell("master-recovered", before.master, "it is well again");
  // A look at the leases that is under way is waited for: its answer must not be taken for that of another.
  if (outage === null) return report(draft, null);
  if (before?.master !== outage.master) draft.tell("master-suspected", outage.master, whyGone(draft));
  considerPromotion(draft, outage);
}

function considerPromotion(draft: Draft, outage: Outage): void {
  const { group, job, standing } = draft.state;
  if (group === null) return;
  const atMs = goneAtMs(group, outage, draft.settings);
  if (draft.nowMs < atMs) {
    draft.wake(atMs);
    const isHeard = heardAtMs(group) > outage.noticedAtMs && diagnose(group, outage) === "absent";
    return report(draft, isHeard ? heardElsewhere(outage.master) : null);
  }
  const choice = chooseNow(draft, outage);
  switch (choice.kind) {
    case "wait":
      draft.wake(draft.nowMs + SOON_MS);
      return;
    case "nobody": {
      draft.wake(draft.nowMs + RETRY_MS);
      return report(draft, { kind: "no-candidate", node: null, detail: choice.reasons });
    }
    case "take": {
      report(draft, standing.kind === "sole" ? null : anotherPromoter(standing.reason));
      if (job.kind === "confirming") return;
      // The master that was switched to is gone already.
      endSettling(draft);
      draft.set({ job: { kind: "confirming", candidate: choice.node, sinceMs: draft.nowMs } });
      draft.emit({ kind: "confirm", nodes: group.nodes.map(({ id }) => id) });
    }
  }
}

function chooseNow(draft: Draft, outage: Outage): Choice {
  const { group } = draft.state;
  if (group === null) return { kind: "wait" };
  const excluded = new Set<NodeId>();
  for (const [node, untilMs] of outage.failed) if (untilMs > draft.nowMs) excluded.add(node);
  return chooseCandidate(group, outage.noticedAtMs, excluded);
}

/** The leases were looked at; everything is judged once more, because that took time. */
export function onConfirmed(draft: Draft, standing: Standing): void {
  const { job, outage, group } = draft.state;
  if (job.kind !== "confirming") return;
  draft.set({ job: { kind: "none" }, standing });
  if (outage === null || group === null) return;
  if (standing.kind === "refused") {
    draft.wake(draft.nowMs + RETRY_MS);
    return report(draft, anotherPromoter(standing.reason));
  }
  if (draft.nowMs < goneAtMs(group, outage, draft.settings)) return;
  const choice = chooseNow(draft, outage);
  if (choice.kind === "take") promote(draft, choice.node, outage);
  else draft.wake(draft.nowMs + SOON_MS);
}

function promote(draft: Draft, candidate: NodeId, outage: Outage): void {
  draft.emit({ kind: "hold" });
  draft.tell("promoting", candidate, whyGone(draft));
  const command = draft.run(candidate, { kind: "promote" });
  const { nowMs: sinceMs } = draft;
  draft.set({
    job: { kind: "promoting", candidate, former: outage.master, command, sinceMs, endedAtMs: null },
  });
}

export function onPromoteEnded(draft: Draft, id: number, result: CommandResult): void {
  const { job } = draft.state;
  if (job.kind !== "promoting" || job.command !== id) return;
  switch (result.kind) {
    case "done":
    case "unknown":
      draft.set({ job: { ...job, endedAtMs: draft.nowMs } });
      draft.look(job.candidate);
      draft.wake(draft.nowMs + ACCEPT_MS);
      return;
    case "refused":
    case "unreachable":
      return giveUp(draft, job, result.error);
  }
}

type Promoting = Extract<Job, { kind: "promoting" }>;

function watchPromotion(draft: Draft, job: Promoting): void {
  const { group } = draft.state;
  if (group === null) return;
  if (group.epoch.master !== job.former) {
    draft.emit({ kind: "release" });
    draft.set({ job: { kind: "none" }, outage: null });
    return report(draft, null);
  }
  if (job.endedAtMs === null) return;
  const view = group.nodes.find(({ id }) => id === job.candidate);
  const newer = view?.report !== null && view?.report !== undefined && view.report.sentAtMs > job.endedAtMs;
  // The connection that carried the command is gone: what it has not done by now it will not do.
  if (view?.contact === "answering" && newer && view.report.role === "replica") {
    return giveUp(draft, job, "it is a replica still");
  }
  if (draft.nowMs < job.endedAtMs + ACCEPT_MS) return draft.wake(job.endedAtMs + ACCEPT_MS);
  // Time alone proves nothing, least of all when our own process stood still: it may be the master already.
  if (view === undefined || view.contact !== "answering" || newer) {
    return giveUp(draft, job, "it was not accepted as the master");
  }
  draft.look(job.candidate);
  draft.wake(draft.nowMs + SOON_MS);
}

function giveUp(draft: Draft, job: Promoting, why: string): void {
  const { outage } = draft.state;
  draft.tell("promotion-failed", job.candidate, why);
  draft.emit({ kind: "release" });
  const failed = new Map(outage?.failed).set(job.candidate, draft.nowMs + RETRY_MS);
  draft.set({ job: { kind: "none" }, outage: outage === null ? null : { ...outage, failed } });
  draft.wake(draft.nowMs + SOON_MS);
}

/** What stands in the way of a promotion; null = nothing does. */
function report(draft: Draft, obstacle: Obstacle | null): void {
  const others = draft.state.obstacles.filter(({ kind }) => kind === "not-demoted");
  draft.set({ obstacles: obstacle === null ? others : [obstacle, ...others] });
}

function heardElsewhere(master: NodeId): Obstacle {
  const detail = "it is silent here, but a replica hears from it: it is not replaced";
  return { kind: "master-heard-elsewhere", node: master, detail };
}

function anotherPromoter(reason: string): Obstacle {
  return { kind: "another-promoter", node: null, detail: reason };
}

function whyGone(draft: Draft): string {
  const { group, outage } = draft.state;
  return group === null
    ? ""
    : `the master is ${diagnose(group, outage)} (${group.epoch.holdCause ?? "held"})`;
}
