/**
 * PURE. A master that hands over (FAILOVER, typed by anybody) or shuts down (SIGTERM, SHUTDOWN) waits, with
 * its writers paused, for the replicas' word that they have applied everything. They give it once a second;
 * asked by REPLCONF GETACK they give it at once, so that writers stand still for milliseconds instead of most
 * of a second. It changes nothing on any node, so it is done whoever may promote.
 */

import type { NodeId } from "../topology/epoch.ts";
import { followedBy } from "../topology/rules/aliases.ts";
import { isLive, type LiveView } from "../topology/rules/scene.ts";
import type { GroupSight } from "../topology/watcher.ts";
import type { CommandResult } from "./model.ts";
import { type Draft, isSwitching } from "./state.ts";

/** Between two questions to one replica, ms; and after one that was refused or lost. */
const PAUSE_MS = 20;
const AFTER_FAILURE_MS = 5_000;

/** How far the machine got with asking a replica. */
export interface Asking {
  /** The question under way; null = none. */
  readonly command: number | null;
  /** Monotonic ms before which it is not asked again. */
  readonly nextAtMs: number;
}

export function hasten(draft: Draft): void {
  const { group, job } = draft.state;
  // A planned switch of our own asks by itself.
  if (group === null || isSwitching(job)) return;
  for (const node of awaited(group)) ask(draft, node);
}

/** Replicas whose word their master waits for. */
export function awaited(group: GroupSight): NodeId[] {
  const live = group.nodes.filter(isLive);
  const waiting = live.filter(isWaiting).map(({ id }) => id);
  if (waiting.length === 0) return [];
  return live
    .filter(({ report }) => report.role === "replica" && report.linkUp)
    .filter(({ report }) => waiting.some((id) => id === followedBy(group, report)))
    .map(({ id }) => id);
}

function isWaiting({ report }: LiveView): boolean {
  if (report.role !== "master") return false;
  return report.failoverState === "waiting-for-sync" || report.shutdownInMs !== null;
}

function ask(draft: Draft, node: NodeId): void {
  const asking = draft.state.asking.get(node);
  if (asking !== undefined && asking.command !== null) return;
  const nextAtMs = asking?.nextAtMs ?? draft.nowMs;
  if (draft.nowMs < nextAtMs) return draft.wake(nextAtMs);
  const command = draft.run(node, { kind: "acknowledge" });
  draft.set({ asking: new Map(draft.state.asking).set(node, { command, nextAtMs }) });
}

export function onAskingEnded(draft: Draft, id: number, result: CommandResult): void {
  for (const [node, { command }] of draft.state.asking) {
    if (command !== id) continue;
    const nextAtMs = draft.nowMs + (result.kind === "done" ? PAUSE_MS : AFTER_FAILURE_MS);
    draft.set({ asking: new Map(draft.state.asking).set(node, { command: null, nextAtMs }) });
    draft.look(...(draft.state.group?.nodes.map((view) => view.id) ?? []));
  }
}
