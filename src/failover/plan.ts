/**
 * PURE. Whether a planned switch can be made, to whom and how: the checks of PROXY SWITCHOVER, and all that
 * its DRYRUN says.
 */

import type { NodeId } from "../topology/epoch.ts";
import { firstAddress, followedBy } from "../topology/rules/aliases.ts";
import { lagMs } from "../topology/rules/samples.ts";
import { isLive, type LiveView, liveAt } from "../topology/rules/scene.ts";
import type { GroupSight } from "../topology/watcher.ts";
import { byFitness, type Unfit, unfitness } from "./candidate.ts";
import { isHandingOver } from "./diagnosis.ts";
import type { CommandResult, PromoteMode, SwitchoverRequest, SwitchVia } from "./model.ts";

export interface Plan {
  readonly from: NodeId;
  /** Null: Sentinel chooses. */
  readonly to: NodeId | null;
  readonly via: SwitchVia;
  /** What would be done, a line each. */
  readonly steps: readonly string[];
}

export type Planned =
  | { readonly kind: "plan"; readonly plan: Plan }
  | { readonly kind: "refused"; readonly reason: string };

/** The first server version, as [major, minor], that knows FAILOVER. */
const FAILOVER_SINCE = [6, 2] as const;

export function planSwitchover(
  group: GroupSight | null,
  request: SwitchoverRequest,
  mode: PromoteMode,
): Planned {
  if (group === null || group.master === null || group.epoch.master === null) {
    return refused("no master has been found yet");
  }
  const { epoch, master } = group;
  if (epoch.holdCause !== null) return refused(`the master ${master.id} is not well: ${epoch.holdCause}`);
  const from = liveAt(group.nodes, master.id);
  if (from === undefined) return refused(`the master ${master.id} does not answer`);
  if (isHandingOver(group)) return refused("a FAILOVER is under way on the servers already");
  const fit = group.nodes
    .filter(isLive)
    .filter((view) => obstacleOf(view, group, request) === null)
    .map(({ report }) => report)
    .sort(byFitness);
  const via = mode === "sentinel" ? "sentinel" : knowsFailover(from) ? "failover" : "promote";
  if (request.to === null) {
    const [best] = fit;
    if (best === undefined) return refused(`no replica can take over: ${allObstacles(group, request)}`);
    return planned(from.id, via === "sentinel" ? null : best.node, via);
  }
  const to = firstAddress(group, request.to);
  const view = group.nodes.find(({ id }) => id === to);
  if (view === undefined) return refused(`${to} is not a node of this group`);
  const why = isLive(view) ? obstacleOf(view, group, request) : "it does not answer";
  if (why !== null) return refused(`${to} cannot take over: ${why}`);
  if (via === "sentinel" && fit.length > 1) {
    return refused(
      `Sentinel chooses the new master itself: leave out TO (${fit.length} replicas can take over)`,
    );
  }
  return planned(from.id, to, via);
}

function allObstacles(group: GroupSight, request: SwitchoverRequest): string {
  const others = group.nodes.filter(({ id }) => id !== group.master?.id);
  const reasons = others.map((view) => {
    const why = isLive(view) ? obstacleOf(view, group, request) : "it does not answer";
    return `${view.id}: ${why ?? "fit"}`;
  });
  return reasons.join("; ") || "there is no other node";
}

/** Why a node that answers cannot take over now; null = it can. */
function obstacleOf(view: LiveView, group: GroupSight, request: SwitchoverRequest): string | null {
  const { master } = group;
  if (master === null) return "no master has been found yet";
  const why = unfitness(view, master);
  if (why !== null) return inWords(why);
  const { report } = view;
  if (followedBy(group, report) !== master.id) return "it follows another node";
  if (!report.linkUp) return "its link to the master is down";
  const lag = lagMs(master.samples, report.appliedOffset);
  if (lag === null || lag > request.timeoutMs / 2) {
    return `it lags behind by ${lag === null ? "an unknown time" : `${Math.round(lag)} ms`}`;
  }
  return null;
}

function inWords(why: Unfit): string {
  switch (why) {
    case "master":
      return "it is the master already";
    case "unreachable":
      return "it does not answer";
    case "no-replica":
      return "it claims to be a master itself";
    case "other-history":
      return "it is not in sync with the master's history";
    case "loading":
      return "it is loading its data";
    case "syncing":
      return "it is being synchronised";
    case "never-promote":
      return "its replica-priority is 0: never promote";
  }
}

/**
 * Why a switch without FAILOVER is not to be begun, from the answer to `CLIENT PAUSE 0 WRITE`; null = no
 * reason is known. Before Redis 6.2 CLIENT PAUSE knows no WRITE (networking.c, clientCommand): it stops
 * all commands, our own questions too, and nothing ends it early. What others have waiting there at its
 * end runs before the node can be told to follow the new master, is acknowledged, and is lost.
 */
export function objectionToPause(master: NodeId, result: CommandResult): string | null {
  if (result.kind !== "refused") return null;
  const why = `writes cannot be paused on ${master}, and those of others would be lost (${result.error})`;
  const isOld = /unknown subcommand|wrong number of arguments|syntax error/i.test(result.error);
  return isOld ? `${why}: FAILOVER and CLIENT PAUSE … WRITE need Redis 6.2` : why;
}

function knowsFailover({ report }: LiveView): boolean {
  const [major = 0, minor = 0] = report.version.split(".").map(Number);
  const [sinceMajor, sinceMinor] = FAILOVER_SINCE;
  return major > sinceMajor || (major === sinceMajor && minor >= sinceMinor);
}

function refused(reason: string): Planned {
  return { kind: "refused", reason };
}

function planned(from: NodeId, to: NodeId | null, via: SwitchVia): Planned {
  return { kind: "plan", plan: { from, to, via, steps: stepsOf(from, to, via) } };
}

function stepsOf(from: NodeId, to: NodeId | null, via: SwitchVia): readonly string[] {
  const hold = "hold writes, wait until the master has answered all that was sent to it";
  const release = "verify the new master's history, release writes";
  switch (via) {
    case "failover":
      return [
        hold,
        `FAILOVER TO ${to} on ${from}, REPLCONF GETACK on ${to}`,
        release,
        "REPLICAOF on the other replicas",
      ];
    case "promote":
      return [
        hold,
        `CLIENT PAUSE … WRITE on ${from}, wait until ${to} has all of it`,
        `REPLICAOF NO ONE on ${to}`,
        release,
        "REPLICAOF on the others, CLIENT UNPAUSE",
      ];
    case "sentinel":
      return [
        hold,
        `CLIENT PAUSE … WRITE on ${from}, wait until the replicas have all of it`,
        "SENTINEL FAILOVER",
        release,
        `REPLICAOF on ${from}, CLIENT UNPAUSE`,
      ];
  }
}
