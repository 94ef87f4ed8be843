/**
 * PURE. Under which address a node is told to follow the master. We know the master by an address that is
 * good for us: "127.0.0.1" is another machine for every other node, and one behind a translation of addresses
 * leads nowhere from inside. A replica that is sent to a wrong address may find a stranger there, and copies
 * the stranger's data over its own.
 */

import { type Address, addressOf } from "../config/address.ts";
import { isLoopback, toNodeId } from "../topology/address.ts";
import type { NodeId } from "../topology/epoch.ts";
import type { NodeReport } from "../topology/report.ts";
import { announcedNode } from "../topology/rules/aliases.ts";
import type { GroupSight } from "../topology/watcher.ts";

/**
 * - our own address of the master where the nodes name each other by the addresses that we have for them, or
 *   where no other one is known of it;
 * - else the one that the nodes have for it: that its replicas name, or that a master lists it under;
 * - null where there is only one that means another machine to `node`.
 */
export function addressFor(group: GroupSight, node: NodeId, master: NodeId): Address | null {
  const ours = addressOf(master);
  const isUsable = !isLoopback(ours.host) || isLoopback(addressOf(node).host);
  const [theirs] = namesOf(group, master);
  if (isUsable && (theirs === undefined || namesAreOurs(group))) return ours;
  return theirs ?? null;
}

/** What the nodes call the master, as far as it means the same to all of them; replicas of it come first. */
function namesOf(group: GroupSight, master: NodeId): Address[] {
  const reports = reportsOf(group);
  const followed = reports.flatMap((report) => pairs(report, report.masterAddress));
  const listed = reports.flatMap((report) => report.replicas.flatMap((replica) => pairs(report, replica)));
  const named = [...followed, ...listed].filter(
    ([by, address]) => announcedNode(group, by, address) === master,
  );
  const others = [...group.aliases].filter(([, first]) => first === master).map(([id]) => addressOf(id));
  const found = [...named.map(([, { host, port }]) => ({ host, port })), ...others];
  return found.filter(({ host }) => !isLoopback(host));
}

/** Some replica follows a node by the very address that we have for that one. */
function namesAreOurs(group: GroupSight): boolean {
  return reportsOf(group).some(({ masterAddress }) => {
    if (masterAddress === null || isLoopback(masterAddress.host)) return false;
    const id = toNodeId(masterAddress.host, masterAddress.port);
    return group.nodes.some((view) => view.id === id && view.report !== null);
  });
}

/** The last word of every node: also a master that is gone has listed its replicas. */
function reportsOf(group: GroupSight): NodeReport[] {
  return group.nodes.flatMap(({ report }) => (report === null ? [] : [report]));
}

function pairs({ node }: NodeReport, address: Address | null): (readonly [NodeId, Address])[] {
  return address === null ? [] : [[node, address]];
}
