/**
 * PURE. The first master after the start. There is no history yet that a claim could be checked against, so
 * it is taken only when the nodes do not contradict each other.
 */

import type { HoldCause } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
import { firstAddress, followedBy } from "./aliases.ts";
import { edgeOf, lineageOf } from "./lineage.ts";
import type { Problem } from "./model.ts";
import { follows, isClaimant, type LiveView, namedBySentinels, type Scene } from "./scene.ts";

export type FirstVerdict =
  | { readonly kind: "wait"; readonly cause: HoldCause; readonly problems: readonly Problem[] }
  | { readonly kind: "take"; readonly report: NodeReport; readonly detail: string };

/**
 * Waits until every seed has answered or failed once. Then
 * - of several claims the one wins whose history continues that of all others (it was promoted last), or the
 *   only one that any reachable replica follows, if they all follow it: the others serve nobody;
 * - a single claim is taken, unless no replica follows it and (a) another master is still loading, or (b) a
 *   replica with data belongs to a history that the claimant does not continue: the true master may be one
 *   that we cannot reach, or (c) the Sentinels name another one.
 * - where claims contradict each other, a live master that a majority of the Sentinels names is taken, unless
 *   it is empty while another claimant is not.
 */
export function judgeFirst(scene: Scene): FirstVerdict {
  const seeds = scene.all.some((view) => view.seed) ? scene.all.filter((view) => view.seed) : scene.all;
  if (seeds.length === 0 || seeds.some((view) => view.contact === "never")) return wait("no-master-yet");
  if (!scene.sentinels.settled) return wait("no-master-yet");
  const claimants = scene.live.filter((view) => isClaimant(scene, view));
  const loading =
    scene.all.some((view) => view.contact === "loading") ||
    scene.live.some((view) => view.report.role === "master" && view.report.loading);
  const [only] = claimants;
  if (only === undefined) return wait(loading ? "loading" : "no-master-yet");
  if (claimants.length === 1) return judgeSingle(scene, only, loading);

  const newest = claimants.find((claimant) =>
    claimants.every((other) => other === claimant || continuesOther(claimant, other, claimants)),
  );
  if (newest !== undefined) return take(newest, "its history continues that of all other claimants");
  const followed = claimants.filter((claimant) => followers(scene, claimant).length > 0);
  const replicas = scene.live.filter((view) => view.report.role === "replica");
  const [sole] = followed;
  if (sole !== undefined && followed.length === 1 && followers(scene, sole).length === replicas.length) {
    return take(sole, "all reachable replicas follow it and none follows another claimant");
  }
  const names = claimants.map((view) => view.id).join(", ");
  const named = judgeNamed(scene);
  if (named !== null) return named;
  return contradiction(`${names} claim to be master and none continues the history of the others`);
}

function judgeSingle(scene: Scene, claimant: LiveView, loading: boolean): FirstVerdict {
  if (followers(scene, claimant).length > 0) return take(claimant, "the only claimant, and followed");
  if (loading) return wait("loading");
  const { agreed } = scene.sentinels;
  if (agreed !== null && firstAddress(scene, agreed) !== claimant.id) {
    return contradiction(`${claimant.id} claims to be master, but the Sentinels name ${agreed}`);
  }
  const { replid, replid2 } = claimant.report;
  const stranger = scene.live.find(
    ({ report }) =>
      report.role === "replica" &&
      report.keys > 0 &&
      report.replid !== replid &&
      report.replid !== replid2 &&
      followedBy(scene, report) !== claimant.id,
  );
  if (stranger === undefined) return take(claimant, "the only claimant");
  const named = judgeNamed(scene);
  if (named !== null) return named;
  return contradiction(
    `${claimant.id} claims to be master, but ${stranger.id} is a replica of a history it does not continue`,
  );
}

/** There is no history of ours yet that it could have lost; but an empty master is never chosen over data. */
function judgeNamed(scene: Scene): FirstVerdict | null {
  const named = namedBySentinels(scene);
  if (named === null) return null;
  if (named.report.keys === 0 && scene.live.some(({ report }) => report.keys > 0)) return null;
  const { agreeing, known } = scene.sentinels;
  return take(named, `${agreeing} of ${known} Sentinels name it`);
}

function continuesOther(claimant: LiveView, other: LiveView, claimants: readonly LiveView[]): boolean {
  const edges = claimants.map(({ report }) => edgeOf(report)).filter((edge) => edge !== null);
  return lineageOf(claimant.report, other.report.replid, edges) !== null;
}

function followers(scene: Scene, claimant: LiveView): readonly LiveView[] {
  return scene.live.filter((view) => follows(view.report, claimant.report));
}

function take(view: LiveView, detail: string): FirstVerdict {
  return { kind: "take", report: view.report, detail };
}

function wait(cause: HoldCause, problems: readonly Problem[] = []): FirstVerdict {
  return { kind: "wait", cause, problems };
}

function contradiction(detail: string): FirstVerdict {
  return wait("no-common-truth", [{ kind: "no-common-truth", node: null, detail }]);
}
