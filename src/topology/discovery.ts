/**
 * PURE. Which addresses to watch: the configured ones, and what the nodes of the group say of each other.
 */

import { announcedAddress } from "./address.ts";
import type { NodeId } from "./epoch.ts";
import type { NodeView } from "./rules/model.ts";
import { isLive, type LiveView } from "./rules/scene.ts";

/** All addresses that answering nodes name as their master or their replicas. */
export function mentioned(views: readonly NodeView[]): ReadonlySet<NodeId> {
  const found = new Set<NodeId>();
  for (const view of views) {
    if (!isLive(view)) continue;
    for (const id of mentionedBy(view)) found.add(id);
  }
  return found;
}

/**
 * Addresses named by nodes of our group that are not watched yet. A node that is neither configured nor part
 * of our history is not asked for more: a stranger does not bring its own group along.
 */
export function discover(views: readonly NodeView[], replid: string | null): readonly NodeId[] {
  const known = new Set(views.map(({ id }) => id));
  const found = new Set<NodeId>();
  for (const view of views) {
    if (!isLive(view) || !(view.seed || view.report.replid === replid)) continue;
    for (const id of mentionedBy(view)) if (!known.has(id)) found.add(id);
  }
  return [...found];
}

function mentionedBy(view: LiveView): NodeId[] {
  const { masterAddress, replicas } = view.report;
  const addresses = masterAddress === null ? replicas : [masterAddress, ...replicas];
  return addresses.map((address) => announcedAddress(view.id, address)).filter((id) => id !== null);
}
