/**
 * PURE. Promotion by the proxy: a master that is gone is replaced by the best replica.
 *
 *   outage → grace → last question to the replicas → last look at the leases
 *          → the candidate is told → the watcher accepts it
 *
 * From the moment the candidate is told until it is accepted, or known not to have become a master, writes
 * are held also if the former master comes back: what it would take then would be lost.
 */

import type { NodeId } from "../topology/epoch.ts";
import { isLive } from "../topology/rules/scene.ts";
import type { GroupSight } from "../topology/watcher.ts";
import { type Bounds, type Choice, chooseCandidate, tolerableMs } from "./candidate.ts";
import { diagnose, followOutage, goneAtMs, hearsayAtMs, type Outage } from "./diagnosis.ts";
import { ASK_BEFORE_MS, askReplicas } from "./hearsay.ts";
import type { CommandResult, Obstacle, Standing } from "./model.ts";
import { type Draft, isSwitching, type Job } from "./state.ts";
import { endSettling, giveUpSwitch, heirOf } from "./switchover.ts";

/** How soon to look again for something that must show within moments, ms. */
const SOON_MS = 20;
/** After which a candidate that could not be promoted is tried again, ms. */
const RETRY_MS = 1_000;
/**
 * How long replicas may take to report, and to apply what they received, ms. A master that hung in the middle
 * of a large command leaves half of it behind, which nobody will ever apply as long as the link is up.
 */
const APPLY_MS = 2_000;
/**
 * After which the leases are looked at anew when they have refused, ms. A look takes much less: without a
 * pause one would follow the other for as long as somebody else promotes.
 */
const REFUSAL_MS = 100;
/**
 * How long a refused standing may last before people are told of it although the master is well, ms: a proxy
 * that has just begun, or a node that restarts, takes a moment until all has been looked at.
 */
const REFUSED_MS = 2_000;
/** How long finding a master may take after the start before people are told that none will be made, ms. */
const MASTERLESS_MS = 2_000;
/** How long the watcher may take to accept a node that said it was promoted, ms. */
const ACCEPT_MS = 2_000;

export function followPromotion(draft: Draft): void {
  const { group, job } = draft.state;
  if (draft.settings.mode !== "self" || group === null) return;
  if (group.master === null) return reportMasterless(draft);
  if (job.kind === "promoting") return watchPromotion(draft, job);
  const before = draft.state.outage;
  const outage = followOutage(group, before, draft.nowMs);
  draft.set({ outage });
  if (isSwitching(job)) return outage === null ? undefined : watchOverSwitch(draft, group, outage);
  if (before?.isTold && outage === null) draft.tell("master-recovered", before.master, "it is well again");
  // A look at the leases that is under way is waited for: its answer must not be taken for that of another.
  if (outage === null) return report(draft, null);
  considerPromotion(draft, group, toldOf(draft, outage));
}

/**
 * A planned switch has its own rules for a master that is not well; one that is gone is not waited for until
 * they come to an end.
 */
function watchOverSwitch(draft: Draft, group: GroupSight, outage: Outage): void {
  if (!isGone(draft, group, outage) || isHeirAwaited(draft, group, outage)) return;
  toldOf(draft, outage);
  giveUpSwitch(draft, whyGone(draft));
  followPromotion(draft);
}

/**
 * Of an heir that is not heard it is not known that it has not taken over; time alone proves nothing. So
 * long as for any that was told: the switch may be over before, and its heir is waited for still.
 */
function isHeirAwaited(draft: Draft, group: GroupSight, outage: Outage): boolean {
  const heir = heirOf(draft.state);
  if (heir === null || !isUnheard(group, heir, outage)) return false;
  const untilMs = goneAtMs(group, outage, draft.settings) + ACCEPT_MS;
  if (draft.nowMs >= untilMs) return false;
  draft.wake(untilMs);
  return true;
}

/** It may be there, and has not said anything since the master was missed. */
function isUnheard(group: GroupSight, node: NodeId, { noticedAtMs }: Outage): boolean {
  const view = group.nodes.find(({ id }) => id === node);
  if (view === undefined || view.contact === "unreachable") return false;
  return view.contact !== "answering" || view.report === null || view.report.sentAtMs <= noticedAtMs;
}

/** People are not told of what a planned switch does to its master. */
function toldOf(draft: Draft, outage: Outage): Outage {
  if (outage.isTold) return outage;
  const told = { ...outage, isTold: true };
  draft.set({ outage: told });
  draft.tell("master-suspected", outage.master, whyGone(draft));
  return told;
}

/** Known from the leases at all times; before a promotion they are looked at once more. */
export function onStanding(draft: Draft, standing: Standing): void {
  const sinceMs = draft.state.refusedSinceMs;
  const refusedSinceMs = standing.kind === "refused" ? (sinceMs ?? draft.nowMs) : null;
  draft.set({ standing, refusedSinceMs });
  const { outage } = draft.state;
  if (standing.kind === "sole" && outage !== null) draft.set({ outage: { ...outage, refusal: null } });
}

/** Its time is over. The replicas are asked before, and what becomes of that is waited for. */
function isGone(draft: Draft, group: GroupSight, outage: Outage): boolean {
  const atMs = goneAtMs(group, outage, draft.settings);
  const isAbsent = diagnose(group, outage) === "absent";
  // So early that the replicas' answer is there when the time is over.
  const isAsking = isAbsent && draft.nowMs >= atMs - ASK_BEFORE_MS && askReplicas(draft, group, outage);
  if (draft.nowMs >= atMs) return !isAsking;
  draft.wake(isAbsent && draft.nowMs < atMs - ASK_BEFORE_MS ? atMs - ASK_BEFORE_MS : atMs);
  return false;
}

/** What keeps it from being gone although it does not answer. */
function whyNotGone(draft: Draft, group: GroupSight, outage: Outage): Obstacle | null {
  if (diagnose(group, outage) !== "absent") return null;
  if (hearsayAtMs(group, outage) > outage.noticedAtMs) return heardElsewhere(outage.master);
  // At the first look a replica may only be late.
  const isAlone = outage.aloneAtMs === draft.nowMs && outage.noticedAtMs < draft.nowMs;
  return isAlone ? NOBODY_ANSWERS : null;
}

function considerPromotion(draft: Draft, group: GroupSight, outage: Outage): void {
  const { job, standing } = draft.state;
  const isOver = isGone(draft, group, outage);
  if (draft.nowMs < goneAtMs(group, outage, draft.settings)) {
    return report(draft, whyNotGone(draft, group, outage));
  }
  if (!isOver) return;
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
      // One that is tried again is no news yet: what stands in the way is said until it is promoted.
      const { refusal } = outage;
      const why = standing.kind === "refused" ? standing.reason : refusal?.reason;
      if (why !== undefined) report(draft, anotherPromoter(why));
      else if (!outage.failed.has(choice.node)) report(draft, null);
      if (job.kind === "confirming") return;
      if (refusal !== null && draft.nowMs < refusal.untilMs) return draft.wake(refusal.untilMs);
      // The master that was switched to is gone already.
      endSettling(draft);
      draft.set({ job: { kind: "confirming", candidate: choice.node, sinceMs: draft.nowMs } });
      // Whoever answers must have been looked at; of the others nothing can be known.
      draft.emit({ kind: "confirm", nodes: group.nodes.filter(isLive).map(({ id }) => id) });
    }
  }
}

function chooseNow(draft: Draft, outage: Outage): Choice {
  const { group } = draft.state;
  if (group === null || isHeirAwaited(draft, group, outage)) return { kind: "wait" };
  const excluded = new Set<NodeId>();
  for (const [node, untilMs] of outage.failed) if (untilMs > draft.nowMs) excluded.add(node);
  const mayWait = draft.nowMs < goneAtMs(group, outage, draft.settings) + APPLY_MS;
  const isMet = group.nodes.some(({ id, report }) => id === outage.master && report !== null);
  const bounds: Bounds = {
    behindMs: tolerableMs(draft.settings.downAfterMs),
    wellUntilMs: isMet ? outage.wellUntilMs : null,
    heir: heirOf(draft.state),
  };
  return chooseCandidate(group, outage.noticedAtMs, excluded, mayWait, bounds);
}

/** The leases were looked at; everything is judged once more, because that took time. */
export function onConfirmed(draft: Draft, standing: Standing): void {
  const { job, outage, group } = draft.state;
  if (job.kind !== "confirming") return;
  draft.set({ job: { kind: "none" } });
  // It is the answer to this question: what is known in general may be newer, and is told apart from it.
  if (outage === null || group === null) return;
  if (standing.kind === "refused") {
    const refusal = { reason: standing.reason, untilMs: draft.nowMs + REFUSAL_MS };
    draft.set({ outage: { ...outage, refusal } });
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
      draft.set({ job: { ...job, command: null, endedAtMs: draft.nowMs } });
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
    tellEnd(draft, job, group.epoch.master);
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
  // Its process is gone, and nobody else has seen what it may have become: the next one need not wait.
  if (view?.contact === "unreachable") return giveUpOrder(draft, job, "it is gone");
  if (draft.nowMs < job.endedAtMs + ACCEPT_MS) return draft.wake(job.endedAtMs + ACCEPT_MS);
  // Time alone proves nothing, least of all when our own process stood still: it may be the master already.
  if (view === undefined || view.contact !== "answering" || newer) {
    return giveUpOrder(draft, job, "it was not accepted as the master");
  }
  draft.look(job.candidate);
  draft.wake(draft.nowMs + SOON_MS);
}

function tellEnd(draft: Draft, job: Promoting, master: NodeId | null): void {
  if (master !== job.candidate) {
    return draft.tell("promotion-failed", job.candidate, `${master} became the master instead`);
  }
  const { outage } = draft.state;
  const sinceMs = Math.round(draft.nowMs - (outage?.noticedAtMs ?? job.sinceMs));
  draft.tell("promoted", master, `instead of ${job.former}, ${sinceMs} ms after that one was missed`);
}

/** Whether the order was carried out, or will be yet, is not known. */
function giveUpOrder(draft: Draft, job: Promoting, why: string): void {
  draft.emit({ kind: "renounce", node: job.candidate });
  giveUp(draft, job, why);
}

function giveUp(draft: Draft, job: Promoting, why: string): void {
  const { outage } = draft.state;
  draft.tell("promotion-failed", job.candidate, why);
  draft.emit({ kind: "release" });
  const failed = new Map(outage?.failed).set(job.candidate, draft.nowMs + RETRY_MS);
  draft.set({ job: { kind: "none" }, outage: outage === null ? null : { ...outage, failed } });
  draft.wake(draft.nowMs + SOON_MS);
}

/** What stands in the way of a promotion; null = nothing but, maybe, that this proxy may not promote. */
function report(draft: Draft, obstacle: Obstacle | null): void {
  const others = draft.state.obstacles.filter(({ kind }) => kind === "not-demoted");
  const first = obstacle ?? lastingRefusal(draft);
  draft.set({ obstacles: first === null ? others : [first, ...others] });
}

/** Of a group whose master was never met nothing is promoted: which history is the true one is not known. */
function reportMasterless(draft: Draft): void {
  const sinceMs = draft.state.masterlessSinceMs ?? draft.nowMs;
  draft.set({ masterlessSinceMs: sinceMs });
  const atMs = sinceMs + MASTERLESS_MS;
  if (draft.nowMs >= atMs) return report(draft, NEVER_MET);
  draft.wake(atMs);
}

function lastingRefusal(draft: Draft): Obstacle | null {
  const { standing, refusedSinceMs } = draft.state;
  if (standing.kind === "sole" || refusedSinceMs === null) return null;
  const atMs = refusedSinceMs + REFUSED_MS;
  if (draft.nowMs >= atMs) return anotherPromoter(standing.reason);
  draft.wake(atMs);
  return null;
}

const NOBODY_ANSWERS: Obstacle = {
  ...{ kind: "no-candidate", node: null, detail: "no other node answers either" },
};

const NEVER_MET: Obstacle = {
  ...{ kind: "no-candidate", node: null },
  detail: "this proxy never met the master, nor remembers it (failover.stateFile): promote a replica by hand",
};

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
