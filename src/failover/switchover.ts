/**
 * PURE. The planned switch, step by step:
 *
 *   failover  draining → handing-over → settling
 *   promote   draining → pausing → comparing → promoting → settling
 *   sentinel  the same, with SENTINEL FAILOVER instead of REPLICAOF NO ONE
 *
 * Writes are held from the beginning until the watcher has verified the new master, or the old one is
 * verified again, or the time is over, whatever comes first. Nothing is undone after a promotion: who the
 * master is then is decided by what the nodes say.
 */

import type { NodeId } from "../topology/epoch.ts";
import { isLive, liveAt } from "../topology/rules/scene.ts";
import type { GroupSight } from "../topology/watcher.ts";
import { renounce, strays } from "./care.ts";
import type { CommandResult, SwitchoverAnswer, SwitchoverRequest } from "./model.ts";
import { lift, pause } from "./pauses.ts";
import { planSwitchover } from "./plan.ts";
import type { Draft, Heir, Job, State, SwitchoverJob, SwitchoverPhase } from "./state.ts";

/** How often the replica is asked for its word, and the nodes are looked at, while writes are held, ms. */
const NUDGE_MS = 5;
/** FAILOVER's own time-out ends so long before ours, ms, so that its roll-back is seen within the time. */
const MARGIN_MS = 10;
/** Longest CLIENT PAUSE of the master, ms. */
const PAUSE_MOST_MS = 5_000;
/** It ends so long after the time to promote in, ms: what is sent at the last moment happens within it. */
const PAUSE_MARGIN_MS = 100;
/** After the time is over, how long to wait for the end of an attempt before it is called open, ms. */
const ABORT_MS = 2_000;
/** How long the others may take to follow before the answer is given, ms; and before it is given up. */
const SETTLE_MS = 2_000;
const DUTY_MS = 30_000;

export function onAsked(draft: Draft, ticket: number, request: SwitchoverRequest): void {
  const { group, job } = draft.state;
  const refuse = (reason: string): void => {
    draft.tell("switchover-refused", request.to, reason);
    answer(draft, ticket, { kind: "refused", reason });
  };
  if (job.kind === "switchover") return refuse("another switch is under way");
  if (job.kind !== "none") return refuse("a promotion is under way");
  const planned = planSwitchover(group, request, draft.settings.mode);
  if (planned.kind === "refused") return refuse(planned.reason);
  const { from, to, via } = planned.plan;
  // It would end the pause of this one, too.
  if (draft.state.pauses.has(from)) return refuse("the pause of the switch before is being ended");
  const { nowMs } = draft;
  const deadlineMs = nowMs + request.timeoutMs;
  draft.tell("switchover-begun", to, `from ${from} via ${via}`);
  draft.set({
    job: {
      ...{
        kind: "switchover",
        ticket,
        request,
        from,
        to,
        via,
        phase: "draining",
        heldAtMs: nowMs,
        deadlineMs,
      },
      ...{ command: null, endedAtMs: nowMs, nudgeAtMs: nowMs, nudge: null, isHolding: true, stallMs: 0 },
      ...{ lostBytes: null, repointed: [] },
    },
  });
  draft.emit({ kind: "hold" });
  draft.wake(deadlineMs);
}

function jobOf(draft: Draft): SwitchoverJob | null {
  const { job } = draft.state;
  return job.kind === "switchover" ? job : null;
}

function change(draft: Draft, job: SwitchoverJob, changes: Partial<SwitchoverJob>): SwitchoverJob {
  const next = { ...job, ...changes };
  draft.set({ job: next });
  return next;
}

/** Enters a phase that waits for the end of a command. */
function begin(draft: Draft, job: SwitchoverJob, phase: SwitchoverPhase, command: number): void {
  change(draft, job, { phase, command, endedAtMs: Number.POSITIVE_INFINITY });
}

export function onDrained(draft: Draft): void {
  const job = jobOf(draft);
  if (job === null || job.phase !== "draining") return;
  const leftMs = Math.max(1, Math.round(job.deadlineMs - draft.nowMs - MARGIN_MS));
  if (job.via === "failover" && job.to !== null) {
    const command = draft.run(job.from, { kind: "failover", to: job.to, timeoutMs: leftMs });
    return begin(draft, job, "handing-over", command);
  }
  // A pause outlives a proxy that dies: it is never longer than a replica needs that is fit to take over.
  const forMs = Math.min(leftMs, PAUSE_MOST_MS);
  const paused = change(draft, job, { deadlineMs: Math.min(job.deadlineMs, draft.nowMs + forMs) });
  draft.wake(paused.deadlineMs);
  begin(draft, paused, "pausing", pause(draft, job.from, forMs + PAUSE_MARGIN_MS));
}

export function onSwitchoverCommandEnded(draft: Draft, id: number, result: CommandResult): void {
  const job = jobOf(draft);
  if (job?.nudge === id) change(draft, job, { nudge: null });
  if (job === null || job.command !== id) return;
  const ended = change(draft, job, { command: null, endedAtMs: draft.nowMs, nudgeAtMs: draft.nowMs });
  if (result.kind === "done" || result.kind === "unknown") {
    // An unknown end is found out by looking; of a pause nothing can be seen, so it must have been answered.
    if (job.phase === "pausing" && result.kind === "unknown") return rollBack(draft, ended, result.error);
    if (job.phase === "pausing") change(draft, ended, { phase: "comparing" });
    if (job.phase === "promoting" && job.isHolding && result.kind === "done") stayPaused(draft, job);
    return watchSwitchover(draft);
  }
  // A server that does not know FAILOVER, or does not let us: the other way needs no such right.
  const isNoFailover = job.phase === "handing-over" && /unknown command|NOPERM/i.test(result.error);
  if (isNoFailover && job.to !== null) {
    const other = change(draft, ended, { via: "promote", phase: "draining" });
    if (other.phase === "draining") return onDrained(draft);
  }
  if (job.phase === "aborting") return;
  rollBack(draft, ended, result.error);
}

/** What others write to the former master until it follows would be lost. */
function stayPaused(draft: Draft, job: SwitchoverJob): void {
  // Sentinel takes its time before it promotes.
  const leftMs = job.via === "sentinel" ? Math.max(0, Math.round(job.deadlineMs - draft.nowMs)) : 0;
  pause(draft, job.from, Math.min(leftMs + SETTLE_MS, PAUSE_MOST_MS));
}

export function onSwitched(draft: Draft, lostBytes: number | null): void {
  const job = jobOf(draft);
  if (job !== null && job.phase !== "settling") change(draft, job, { lostBytes });
}

/** Looks where it stands, at every sight of the group and at every tick. */
export function watchSwitchover(draft: Draft): void {
  const job = jobOf(draft);
  const { group } = draft.state;
  if (job === null || group === null) return;
  if (job.phase === "settling") return settle(draft, job, group);
  const { master, holdCause } = group.epoch;
  if (master !== job.from) return onOtherMaster(draft, job, master);
  if (draft.nowMs >= job.deadlineMs) return onTimeOver(draft, job, group);
  draft.wake(job.deadlineMs);
  const notWell = holdCause === null ? null : `the master is not well any more: ${holdCause}`;
  // Its port refuses connections: writes need not wait for the end of the time.
  const heirGone = job.to !== null && isLost(group, job.to) ? `${job.to} is gone` : null;
  const why = notWell ?? heirGone;
  switch (job.phase) {
    case "draining":
      return why === null ? undefined : rollBack(draft, job, why);
    case "handing-over":
      if (job.command !== null) return;
      if (isBackAsBefore(group, job)) return rollBack(draft, job, "the servers gave FAILOVER up");
      // With its process FAILOVER has ended: whoever the heir is now, it will stay that.
      if (isLost(group, job.from)) {
        return conclude(draft, release(draft, job), "open", "the master was lost while it handed over");
      }
      return heirGone === null ? nudge(draft, job) : abort(draft, job);
    case "aborting":
      if (isBackAsBefore(group, job)) return rollBack(draft, job, heirGone ?? "FAILOVER was given up");
      return nudge(draft, job);
    case "promoting":
      if (job.command !== null || heirGone === null) return nudge(draft, job);
      return giveUpPromotion(draft, job, heirGone);
    case "pausing":
      return why === null ? undefined : rollBack(draft, job, why);
    case "comparing":
      return why === null ? compare(draft, job, group) : rollBack(draft, job, why);
  }
}

/** To whom the master was told to hand over, and may do so yet when it wakes up; null = to nobody. */
export function heirOf({ job, heir }: State): NodeId | null {
  return (isHandingOver(job) ? job.to : heir?.to) ?? null;
}

/** @returns null when the master hands over to nobody any more, or is another one. */
export function heirLeft(heir: Heir | null, group: GroupSight): Heir | null {
  if (heir === null || group.epoch.master !== heir.from) return null;
  return isBackAsBefore(group, heir) ? null : heir;
}

function isHandingOver(job: Job): job is SwitchoverJob {
  return job.kind === "switchover" && (job.phase === "handing-over" || job.phase === "aborting");
}

type Past = Pick<SwitchoverJob, "from" | "endedAtMs">;

/** The former master says, after the command, that it is the master and hands nothing over. */
function isBackAsBefore(group: GroupSight, { from: former, endedAtMs }: Past): boolean {
  if (group.epoch.holdCause !== null) return false;
  const from = liveAt(group.nodes, former);
  if (from === undefined || from.report.sentAtMs <= endedAtMs) return false;
  return from.report.role === "master" && from.report.failoverState === "no-failover";
}

function isLost(group: GroupSight, node: NodeId): boolean {
  return group.nodes.some(({ id, contact }) => id === node && contact === "unreachable");
}

/** Speeds up what is on its way: the replica's word to its master, and our own look at both. */
function nudge(draft: Draft, job: SwitchoverJob): void {
  if (draft.nowMs < job.nudgeAtMs) return draft.wake(job.nudgeAtMs);
  const { to } = job;
  const isAwaited = job.phase === "handing-over" && job.nudge === null;
  const nudge = isAwaited && to !== null ? draft.run(to, { kind: "acknowledge" }) : job.nudge;
  if (to === null) draft.look(...(draft.state.group?.nodes.map(({ id }) => id) ?? []));
  else draft.look(to, job.from);
  change(draft, job, { nudge, nudgeAtMs: draft.nowMs + NUDGE_MS });
  draft.wake(draft.nowMs + NUDGE_MS);
}

/** Whether the heir, or all that may become it, have everything the paused master has. */
function compare(draft: Draft, job: SwitchoverJob, group: GroupSight): void {
  const live = group.nodes.filter(isLive);
  const from = live.find(({ id }) => id === job.from)?.report;
  const replid = group.master?.replid;
  const awaited = live.filter(({ id, report }) =>
    job.to === null ? id !== job.from && report.replid === replid : id === job.to,
  );
  // The master may have been restarted meanwhile: an offset counts within a history only.
  const isEqual =
    from !== undefined &&
    from.sentAtMs > job.endedAtMs &&
    [from, ...awaited.map(({ report }) => report)].every((report) => report.replid === replid) &&
    awaited.length > 0 &&
    awaited.every(({ report }) => report.appliedOffset >= from.masterReplOffset);
  if (!isEqual) return nudge(draft, job);
  if (job.via === "sentinel") {
    const command = draft.nextId();
    draft.emit({ kind: "ask-sentinel", id: command });
    return begin(draft, job, "promoting", command);
  }
  const [heir] = awaited;
  if (heir !== undefined) begin(draft, job, "promoting", draft.run(heir.id, { kind: "promote" }));
}

function onOtherMaster(draft: Draft, job: SwitchoverJob, master: NodeId | null): void {
  if (master === null) return;
  if (job.to !== null && master !== job.to) {
    release(draft, job);
    // A pause of the former master ends by itself: what waits there must not run there.
    return conclude(draft, job, "open", `${master} became the master instead of ${job.to}`);
  }
  // Without a hold nor FAILOVER's own pause the former master may have answered what nobody has seen.
  const isSealed = job.isHolding || job.via === "failover";
  const released = release(draft, job);
  // The servers have changed their roles by themselves: a restart must not undo it.
  if (job.via === "failover") for (const node of [master, job.from]) draft.run(node, { kind: "keep-role" });
  const others = draft.state.group?.nodes.filter(({ id }) => id !== master).map(({ id }) => id) ?? [];
  draft.set({ duty: { nodes: new Set(others), untilMs: draft.nowMs + DUTY_MS } });
  const settling = change(draft, released, {
    ...{ to: master, phase: "settling", command: null, deadlineMs: draft.nowMs + SETTLE_MS },
    lostBytes: job.lostBytes === 0 && !isSealed ? null : job.lostBytes,
  });
  draft.wake(settling.deadlineMs);
}

/** Waits for the others to follow, not for long, so that the answer can say who was told to. */
function settle(draft: Draft, job: SwitchoverJob, group: GroupSight): void {
  const left = strays(group, draft.state);
  const isFenced = job.via === "failover" || isReplica(group, job.from);
  const isDone = group.epoch.holdCause === null && left.length === 0 && isFenced;
  const isOver = draft.nowMs >= job.deadlineMs || isDone;
  if (isOver || group.epoch.master !== job.to) endSettling(draft);
  else draft.wake(job.deadlineMs);
}

function isReplica(group: GroupSight, node: NodeId): boolean {
  return liveAt(group.nodes, node)?.report.role === "replica";
}

/** The switch is made: it is answered whether all others follow or not. Nothing happens in other phases. */
export function endSettling(draft: Draft): void {
  const job = jobOf(draft);
  if (job?.phase !== "settling" || job.to === null) return;
  const { from, to, via, stallMs, lostBytes, repointed } = job;
  const { group } = draft.state;
  const master = group?.epoch.master;
  // As long as it is a master, what waits there would run there, and be lost. The pause ends by itself, too.
  if (via !== "failover" && group !== null && isReplica(group, from)) lift(draft, from);
  if (master !== to) return conclude(draft, job, "open", `${to} was the master, and ${master} followed it`);
  draft.tell(
    "switchover-done",
    to,
    `from ${from} via ${via}, writes stood still for ${Math.round(stallMs)} ms`,
  );
  answer(draft, job.ticket, { kind: "done", report: { from, to, via, stallMs, lostBytes, repointed } });
  draft.set({ job: { kind: "none" } });
}

/** Writes were held for as long as they may be. */
function onTimeOver(draft: Draft, job: SwitchoverJob, group: GroupSight): void {
  const why = `not done within ${job.request.timeoutMs} ms`;
  if (job.phase === "draining") {
    return rollBack(draft, job, `${why}: the master still owes answers to what was sent before`);
  }
  if (job.phase === "pausing" || job.phase === "comparing") return rollBack(draft, job, why);
  if (job.phase === "promoting" && job.via === "promote") return giveUpPromotion(draft, job, why);
  if (job.phase === "promoting" && job.isHolding) lift(draft, job.from);
  const released = release(draft, job);
  if (job.phase === "handing-over") {
    // It may be carried out still: nothing is rolled back before that is known.
    return job.command === null ? abort(draft, released) : nudge(draft, released);
  }
  if (job.phase === "aborting" && isBackAsBefore(group, job)) return rollBack(draft, released, why);
  if (draft.nowMs < job.deadlineMs + ABORT_MS) return nudge(draft, released);
  leaveOpen(draft, released, `${why}, and it may still happen`);
}

/** If the master is lost before its end is known, the heir comes first, and is waited for. */
function leaveOpen(draft: Draft, job: SwitchoverJob, why: string): void {
  const { from, to } = job;
  if (isHandingOver(job) && to !== null) draft.set({ heir: { from, to, endedAtMs: draft.nowMs } });
  conclude(draft, job, "open", why);
}

function release(draft: Draft, job: SwitchoverJob): SwitchoverJob {
  if (!job.isHolding) return job;
  draft.emit({ kind: "release" });
  return change(draft, job, { isHolding: false, stallMs: draft.nowMs - job.heldAtMs });
}

/** Nothing was changed, or it was taken back: the master of before goes on. */
function rollBack(draft: Draft, job: SwitchoverJob, why: string): void {
  const released = release(draft, job);
  unpause(draft, job);
  conclude(draft, released, "rolled-back", why);
}

function abort(draft: Draft, job: SwitchoverJob): void {
  begin(draft, job, "aborting", draft.run(job.from, { kind: "abort-failover" }));
}

/** Whatever the heir makes of the order is taken back: nothing is lost that the master takes from here on. */
function giveUpPromotion(draft: Draft, job: SwitchoverJob, why: string): void {
  if (job.to !== null) renounce(draft, job.to);
  unpause(draft, job);
  const late = `if ${job.to} becomes a master yet, it is made to follow ${job.from}`;
  conclude(draft, release(draft, job), "open", `${why}: ${late}`);
}

/**
 * The master is gone, and a promotion comes instead. What was asked for may be carried out yet:
 * - a FAILOVER that nobody knows the end of ends with its master's process, or when that one wakes up, by its
 *   own time-out or by handing over; both are found out by looking, and it loses nothing;
 * - an heir that was told is the candidate of the promotion, with the order that it has.
 */
export function giveUpSwitch(draft: Draft, why: string): void {
  const job = jobOf(draft);
  if (job === null) return;
  switch (job.phase) {
    case "draining":
    case "pausing":
    case "comparing":
      return rollBack(draft, job, why);
    case "handing-over":
    case "aborting":
      return leaveOpen(draft, release(draft, job), `${why} while it handed over`);
    case "promoting":
      return leaveToPromotion(draft, job, why);
    case "settling":
      return;
  }
}

function leaveToPromotion(draft: Draft, job: SwitchoverJob, why: string): void {
  const { from: former, to: candidate, command, heldAtMs: sinceMs } = job;
  const reason = `${why}, and ${candidate} was told to become the master`;
  if (candidate === null) return conclude(draft, release(draft, job), "open", reason);
  conclude(draft, job, "open", reason);
  if (!job.isHolding) draft.emit({ kind: "hold" });
  const endedAtMs = command === null ? job.endedAtMs : null;
  draft.set({ job: { kind: "promoting", candidate, former, command, sinceMs, endedAtMs } });
}

function unpause(draft: Draft, job: SwitchoverJob): void {
  const isPaused = job.via !== "failover" && job.phase !== "draining";
  if (isPaused) lift(draft, job.from);
}

function conclude(draft: Draft, job: SwitchoverJob, kind: "rolled-back" | "open", reason: string): void {
  draft.tell(kind === "open" ? "switchover-open" : "switchover-rolled-back", job.to, reason);
  answer(draft, job.ticket, { kind, reason });
  const none: Job = { kind: "none" };
  draft.set({ job: none });
}

function answer(draft: Draft, ticket: number, what: SwitchoverAnswer): void {
  draft.emit({ kind: "answer", ticket, answer: what });
}
