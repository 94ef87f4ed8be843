/**
 * PURE. The epoch rules: from what is believed and what the probes saw to what is believed next. Nothing here
 * reads a clock, keeps state or does anything; the watcher carries it out.
 *
 *   decide  a batch of probe results has come in
 *   suspect traffic noticed something (rules/suspicion.ts)
 *   adopt   an operator decides what the rules refuse to
 *   renounce the order to become the master was given up (rules/renounced.ts)
 */

import { type Epoch, type History, type HoldCause, isSameRouting, type NodeId } from "./epoch.ts";
import type { NodeReport } from "./report.ts";
import { firstAddress } from "./rules/aliases.ts";
import { judgeFirst } from "./rules/first-master.ts";
import { judgeFitness } from "./rules/fitness.ts";
import { lineageOf } from "./rules/lineage.ts";
import {
  type AcceptReason,
  addBounded,
  type Belief,
  MAX_INSTANCES,
  MAX_REFUSED_CLAIMS,
  type MasterBelief,
  type MasterChange,
  type NodeView,
  type Problem,
} from "./rules/model.ts";
import { withoutFollowers, withoutMaster } from "./rules/renounced.ts";
import { addSample, provenAt } from "./rules/samples.ts";
import { describeScene, isClaimant, type Scene } from "./rules/scene.ts";
import { NO_SENTINELS, type SentinelWord } from "./rules/sentinel.ts";
import { bytesLost, judgeSuccession } from "./rules/succession.ts";

export { renounce } from "./rules/renounced.ts";
export { suspect } from "./rules/suspicion.ts";

export interface Moment {
  /** Monotonic ms. */
  readonly nowMs: number;
  /** A replica further behind is not fit. */
  readonly maxLagMs: number;
  /** Neither is one that lacks more bytes of the history; 0 = no bound, the default. */
  readonly maxLagBytes?: number;
  /** How far back the master's offsets are remembered at least; default twice that. */
  readonly rememberMs?: number;
  /** What the Sentinels say together; none by default. */
  readonly sentinels?: SentinelWord;
}

/** A Sentinel learns of a promotion within seconds: for that long it may name another master, ms. */
const DISSENT_MS = 5_000;

export interface Decision {
  readonly belief: Belief;
  /** Another master, or the same node with a new history. */
  readonly change: MasterChange | null;
  readonly problems: readonly Problem[];
}

/** `views` are all known addresses, in the order in which they became known. */
export function decide(belief: Belief, views: readonly NodeView[], moment: Moment): Decision {
  const scene = describeScene(belief, views, moment.sentinels ?? NO_SENTINELS);
  if (belief.master === null) {
    const verdict = judgeFirst(scene);
    switch (verdict.kind) {
      case "wait": {
        const epoch: Epoch = { ...belief.epoch, holdCause: verdict.cause };
        return finish({ ...belief, epoch }, belief, scene, moment, null, verdict.problems);
      }
      case "take": {
        const how = { ...verdict, reason: "first", lostBytes: 0 } as const;
        return accept(belief, belief, scene, moment, verdict.report, how);
      }
    }
  }
  const seen = observe(belief, belief.master, scene, moment);
  const verdict = judgeSuccession(seen, seen.master, scene);
  switch (verdict.kind) {
    case "stay": {
      const next: Belief = {
        ...seen,
        epoch: {
          ...seen.epoch,
          holdCause: verdict.cause,
          stoppedAtMs: stoppedAt(seen, scene, verdict.cause),
        },
        gone: verdict.cause === null ? null : (seen.gone ?? { sinceMs: moment.nowMs, by: "probe" }),
        refusedClaims: addBounded(seen.refusedClaims, verdict.refused, MAX_REFUSED_CLAIMS),
      };
      return finish(next, belief, scene, moment, null, verdict.problems);
    }
    case "take": {
      return accept(seen, belief, scene, moment, verdict.report, verdict);
    }
  }
}

export type AdoptRefusal =
  | "unknown-node"
  | "alias" // use the address known first
  | "not-answering"
  | "not-a-master"
  | "loading"
  | "already-master"
  | "master-is-well"; // promote a replica instead: that loses nothing

export type AdoptResult =
  | { readonly ok: true; readonly decision: Decision }
  | { readonly ok: false; readonly reason: AdoptRefusal };

/** An operator says that `node` is the master, whatever its history. */
export function adopt(belief: Belief, views: readonly NodeView[], node: NodeId, moment: Moment): AdoptResult {
  const scene = describeScene(belief, views, moment.sentinels ?? NO_SENTINELS);
  if (!views.some(({ id }) => id === node)) return { ok: false, reason: "unknown-node" };
  if (scene.aliases.has(node)) return { ok: false, reason: "alias" };
  const view = scene.live.find(({ id }) => id === node);
  if (view === undefined) return { ok: false, reason: "not-answering" };
  if (view.report.role !== "master") return { ok: false, reason: "not-a-master" };
  if (view.report.loading) return { ok: false, reason: "loading" };
  // Traffic failed on it since it answered: ask again after the next probe.
  if (!isClaimant(scene, view)) return { ok: false, reason: "not-answering" };
  if (belief.epoch.master !== null && belief.epoch.holdCause === null) {
    return { ok: false, reason: belief.epoch.master === node ? "already-master" : "master-is-well" };
  }
  const line = belief.master === null ? null : lineageOf(view.report, belief.master.replid, []);
  const decision = accept(belief, belief, scene, moment, view.report, {
    reason: "operator",
    lostBytes: belief.master === null ? null : bytesLost(view.report, belief.master, line),
    detail: "an operator adopted it",
  });
  return { ok: true, decision };
}

/** When the master was last asked and said that it has stopped writing; it stays so until it writes again. */
function stoppedAt(belief: Belief, scene: Scene, cause: HoldCause | null): number | null {
  const { master, stoppedAtMs } = belief.epoch;
  switch (cause) {
    case null:
      return null;
    case "shutting-down":
      return scene.live.find(({ id }) => id === master)?.report.sentAtMs ?? stoppedAtMs;
    case "no-master-yet":
    case "connection-lost":
    case "silent":
    case "loading":
    case "role-changed":
    case "history-refused":
    case "no-common-truth":
    case "switchover":
      return stoppedAtMs;
  }
}

/** Takes in what the reports say within our history, before anything is judged. */
function observe(
  belief: Belief,
  master: MasterBelief,
  scene: Scene,
  moment: Moment,
): Belief & { master: MasterBelief } {
  let { lastSeenOffset, keys, samples } = master;
  const witnessed: NodeReport[] = [];
  for (const { id, report } of scene.live) {
    if (report.replid !== master.replid || report.loading) continue;
    if (report.role === "replica") {
      witnessed.push(report);
    } else if (id === master.id && report.runId === master.runId) {
      ({ keys } = report);
      const sample = { atMs: report.sentAtMs, offset: report.masterReplOffset };
      samples = addSample(samples, sample, Math.max(2 * moment.maxLagMs, moment.rememberMs ?? 0));
    } else {
      continue;
    }
    lastSeenOffset = Math.max(lastSeenOffset, report.appliedOffset);
  }
  return {
    ...belief,
    master: { ...master, lastSeenOffset, keys, samples },
    instances: addBounded(
      belief.instances,
      witnessed.map(({ runId }) => runId),
      MAX_INSTANCES,
    ),
    renounced: withoutFollowers(belief.renounced, witnessed),
  };
}

interface Acceptance {
  readonly reason: AcceptReason;
  readonly lostBytes: number | null;
  readonly detail: string;
}

/**
 * Makes the node of `report` the master with its history: the next epoch, unless it was the master before.
 */
function accept(
  belief: Belief,
  before: Belief,
  scene: Scene,
  moment: Moment,
  report: NodeReport,
  { reason, lostBytes, detail }: Acceptance,
): Decision {
  const { epoch } = belief;
  const isReturn = epoch.master === report.node;
  const master = newMaster(belief, report, lostBytes);
  const next: Belief = {
    ...belief,
    epoch: {
      number: isReturn ? epoch.number : epoch.number + 1,
      master: report.node,
      history: { replid: report.replid, offset: report.masterReplOffset },
      holdCause: null,
      stoppedAtMs: null,
      readable: [],
    },
    master,
    instances: addBounded(belief.instances, [report.runId], MAX_INSTANCES),
    renounced: withoutMaster(belief.renounced, report),
    gone: null,
    proofs: new Map(),
  };
  const change: MasterChange = {
    kind: isReturn ? "return" : "switch",
    from: epoch.master,
    to: report.node,
    reason,
    detail,
    lostBytes,
    keptUntilMs: keptUntil(belief.master, reason, lostBytes),
    seenBy: belief.gone?.by ?? "probe",
    goneSinceMs: belief.gone?.sinceMs ?? null,
  };
  return finish(observe(next, master, scene, moment), before, scene, moment, change, []);
}

/** What was answered until the newest offset that is known to survive was reported, survives. */
function keptUntil(master: MasterBelief | null, reason: AcceptReason, lostBytes: number | null): number {
  if (master === null || lostBytes === null) return Number.NEGATIVE_INFINITY;
  // The same process goes on with the same data, also with what it answered since it was last asked.
  if (reason === "renamed") return Number.POSITIVE_INFINITY;
  return provenAt(master.samples, master.lastSeenOffset - lostBytes);
}

function newMaster(belief: Belief, report: NodeReport, lostBytes: number | null): MasterBelief {
  const { master } = belief;
  const forkedFrom =
    master === null || lostBytes === null
      ? null
      : { replid: master.replid, offset: master.lastSeenOffset - lostBytes };
  const sample = { atMs: report.sentAtMs, offset: report.masterReplOffset };
  return {
    id: report.node,
    runId: report.runId,
    replid: report.replid,
    lastSeenOffset: report.masterReplOffset,
    keys: report.keys,
    samples: addSample(sharedSamples(master, report, forkedFrom), sample, Number.POSITIVE_INFINITY),
    forkedFrom,
  };
}

/**
 * Offsets go on counting: up to where the new history leaves the old one, what was said of the old one holds
 * for it, too. Not where it is the one that the old one had left: that has writes believed to be lost.
 */
function sharedSamples(master: MasterBelief | null, { replid }: NodeReport, fork: History | null) {
  if (master === null || fork === null || replid === master.forkedFrom?.replid) return [];
  return master.samples.filter(({ offset }) => offset <= fork.offset);
}

/** Judges the readers, and keeps the epoch object of `before` when nothing in it has changed. */
function finish(
  belief: Belief,
  before: Belief,
  scene: Scene,
  moment: Moment,
  change: MasterChange | null,
  problems: readonly Problem[],
): Decision {
  const { readable, fitness, proofs } = judgeFitness(belief, scene, moment);
  const epoch: Epoch = { ...belief.epoch, readable };
  const kept = isSameEpoch(epoch, before.epoch) ? before.epoch : epoch;
  const { suspicions } = scene;
  const dissent = listDissent(kept, before.dissent, scene, moment);
  return {
    belief: { ...belief, suspicions, epoch: kept, fitness, proofs, dissent },
    change,
    problems: [...problems, ...dissentProblems(kept, dissent, scene, moment)],
  };
}

/** Sentinels that name another master than this one, which is well. They change nothing. */
function listDissent(
  epoch: Epoch,
  before: Belief["dissent"],
  scene: Scene,
  { nowMs }: Moment,
): Belief["dissent"] {
  if (epoch.holdCause !== null) return new Map();
  const others = [...scene.sentinels.named].filter(([, node]) => firstAddress(scene, node) !== epoch.master);
  return new Map(others.map(([sentinel]) => [sentinel, before.get(sentinel) ?? nowMs]));
}

function dissentProblems(
  epoch: Epoch,
  dissent: Belief["dissent"],
  { sentinels }: Scene,
  { nowMs }: Moment,
): Problem[] {
  return [...dissent]
    .filter(([, sinceMs]) => nowMs - sinceMs >= DISSENT_MS)
    .map(([sentinel]) => {
      const detail = `it names ${sentinels.named.get(sentinel)}; ${epoch.master} is verified and well`;
      return { kind: "sentinel-disagrees", node: sentinel, detail };
    });
}

/** Whether routing has no reason to tell them apart. */
export function isSameEpoch(a: Epoch, b: Epoch): boolean {
  return (
    isSameRouting(a, b) &&
    a.readable.every(({ provenAtMs }, index) => provenAtMs === b.readable[index]?.provenAtMs)
  );
}
