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

/** Addresses and the run ids of who was met there, by the word of Sentinels. */
export type MetThere = ReadonlyMap<NodeId, string>;

/**
 * One running instance has one run id, so two addresses with the same one are the same node. The address
 * known first (that of the epoch's master before all) keeps standing for it, also while only the other one
 * answers: changing over would look like a switch.
 *
 * Sentinels may know the nodes by addresses that lead nowhere from here (behind a translation of addresses,
 * in a network of containers): whom they have met there counts where nobody has ever answered us.
 */
export function findAliases(views: readonly NodeView[], master: NodeId | null, met: MetThere): Aliases {
  const firstByRunId = new Map<string, NodeId>();
  const aliases = new Map<NodeId, NodeId>();
  const order = [...views.filter(({ id }) => id === master), ...views.filter(({ id }) => id !== master)];
  const heard = new Set<NodeId>();
  for (const { id, report } of order) {
    if (report === null) continue;
    heard.add(id);
    const first = firstByRunId.get(report.runId);
    if (first === undefined) firstByRunId.set(report.runId, id);
    else aliases.set(id, first);
  }
  for (const [address, runId] of met) {
    const first = firstByRunId.get(runId);
    if (first !== undefined && !heard.has(address)) aliases.set(address, first);
  }
  return aliases;
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
