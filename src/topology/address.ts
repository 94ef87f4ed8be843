/**
 * PURE. Node addresses: between text, (host, port) and NodeId. What servers announce is untrusted.
 */

import type { NodeId } from "./epoch.ts";

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

const MAX_HOST_LENGTH = 253;
const HOST = /^[A-Za-z0-9._:%-]+$/;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+)$/i;

/** A NodeId for a host and a port, or null when they cannot be dialled. */
export function toNodeId(host: string, port: number): NodeId | null {
  if (host.length === 0 || host.length > MAX_HOST_LENGTH || !HOST.test(host)) return null;
  if (!Number.isInteger(port) || port < 1 || port > 65535) return null;
  return (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`) as NodeId;
}

/** Reads "host:port" or "[v6]:port". */
export function parseNodeId(text: string): NodeId | null {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  return toNodeId(match[1] ?? match[2] ?? "", Number(match[3]));
}

export function splitNodeId(id: NodeId): HostPort {
  const colon = id.lastIndexOf(":");
  const host = id.slice(0, colon);
  return {
    host: host.startsWith("[") ? host.slice(1, -1) : host,
    port: Number(id.slice(colon + 1)),
  };
}

/**
 * The address to dial for one that a node announced. A node that says "127.0.0.1" means its own machine, so
 * when we reached it under another host, that host is meant; dialling our own loopback could reach a
 * stranger.
 */
export function announcedAddress(announcedBy: NodeId, address: HostPort): NodeId | null {
  const own = splitNodeId(announcedBy).host;
  const host = LOOPBACK.test(address.host) && !LOOPBACK.test(own) ? own : address.host;
  return toNodeId(host, address.port);
}
