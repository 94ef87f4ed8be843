/**
 * PURE. Addresses that servers announce, which are untrusted, and what to dial for them.
 */

import { type Address, addressOf, nodeIdOf, parseAddress } from "../config/address.ts";
import type { NodeId } from "./epoch.ts";

const MAX_HOST_LENGTH = 253;
const HOST = /^[A-Za-z0-9._:%-]+$/;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+)$/i;

/** A NodeId for a host and a port, or null when they cannot be dialled. */
export function toNodeId(host: string, port: number): NodeId | null {
  if (host.length === 0 || host.length > MAX_HOST_LENGTH || !HOST.test(host)) return null;
  if (!Number.isInteger(port) || port < 1 || port > 65535) return null;
  return nodeIdOf({ host: host.toLowerCase(), port });
}

/** Reads "host:port" or "[v6]:port". */
export function parseNodeId(text: string): NodeId | null {
  const parsed = parseAddress(text, "dial");
  return parsed.ok ? toNodeId(parsed.value.host, parsed.value.port) : null;
}

/** Whether it means the machine of whoever says or dials it. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host);
}

/**
 * The address to dial for one that a node announced. A node that says "127.0.0.1" means its own machine, so
 * when we reached it under another host, that host is meant; dialling our own loopback could reach a
 * stranger.
 */
export function announcedAddress(announcedBy: NodeId, address: Address): NodeId | null {
  const own = addressOf(announcedBy).host;
  const host = isLoopback(address.host) && !isLoopback(own) ? own : address.host;
  return toNodeId(host, address.port);
}
