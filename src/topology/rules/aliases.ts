/**
 * PURE. A node that is reached under several addresses stands for itself once: under the address that was
 * known first. All its other ones are aliases.
 */

import type { Address } from "../../config/address.ts";
import { announcedAddress } from "../address.ts";
import type { NodeId } from "../epoch.ts";
import type { NodeReport } from "../report.ts";
import type { NodeView } from "./model.ts";

/** Second addresses of known nodes, to the first. */
export type Aliases = ReadonlyMap<NodeId, NodeId>;

interface HasAliases {
  readonly aliases: Aliases;
}

/**
 * One running instance has one run id, so two addresses with the same one are the same node. The address
 * known first (that of the epoch's master before all) keeps standing for it, also while only the other one
 * answers: changing over would look like a switch.
 */
export function findAliases(views: readonly NodeView[], master: NodeId | null): Aliases {
  const firstByRunId = new Map<string, NodeId>();
  const aliases = new Map<NodeId, NodeId>();
  const order = [...views.filter(({ id }) => id === master), ...views.filter(({ id }) => id !== master)];
  for (const view of order) {
    if (view.report === null) continue;
    const first = firstByRunId.get(view.report.runId);
    if (first === undefined) firstByRunId.set(view.report.runId, view.id);
    else aliases.set(view.id, first);
  }
  return aliases;
}

/**
 * Sentinels may know the nodes by addresses that lead nowhere from here (behind a translation of addresses,
 * in a network of containers): whom they have met there is known by its run id. Where somebody has answered
 * us, that one's own word counts.
 */
export function withNamed(
  aliases: Aliases,
  views: readonly NodeView[],
  runIds: ReadonlyMap<NodeId, string>,
): Aliases {
  const all = new Map(aliases);
  for (const [address, runId] of runIds) {
    if (views.some(({ id, report }) => id === address && report !== null)) continue;
    const met = views.find(({ report }) => report?.runId === runId);
    if (met !== undefined) all.set(address, firstAddress({ aliases }, met.id));
  }
  return all;
}

/** The address that stands for the node at `id`: another one when `id` is an alias. */
export function firstAddress({ aliases }: HasAliases, id: NodeId): NodeId {
  return aliases.get(id) ?? id;
}

/** The node that another one announced, by the address known first; null when it cannot be dialled. */
export function announcedNode(scene: HasAliases, announcedBy: NodeId, address: Address): NodeId | null {
  const id = announcedAddress(announcedBy, address);
  return id === null ? null : firstAddress(scene, id);
}

/** The node that a replica names as its master, by the address known first; null = none. */
export function followedBy(scene: HasAliases, { node, masterAddress }: NodeReport): NodeId | null {
  return masterAddress === null ? null : announcedNode(scene, node, masterAddress);
}
