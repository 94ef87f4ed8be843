/**
 * PURE. Addresses as "host:port": parsing, one canonical spelling, and whether two of them can collide.
 *
 * IPv6 hosts stand in brackets in text ("[::1]:6379") and without them in `host`. Hosts are lower case, so
 * that one node has one spelling.
 */

import type { NodeId } from "../topology/epoch.ts";
import { type Parsed, typeName } from "./units.ts";

export interface Address {
  /** Host name or IP address; IPv6 without brackets. */
  readonly host: string;
  /** 0–65535; 0 (any free port) only where something listens. */
  readonly port: number;
}

/** Whether port 0 (any free port) makes sense: it does for listening, not for dialling. */
export type AddressUse = "listen" | "dial";

/** Parses "host:port". A text that could carry a password (it has an @) is never repeated in the problem. */
export function parseAddress(input: unknown, use: AddressUse): Parsed<Address> {
  if (typeof input !== "string") return { ok: false, problem: `${typeName(input)} is not host:port` };
  const text = input.trim();
  if (text === "") return { ok: false, problem: "it is empty" };
  if (text.includes("@")) {
    return { ok: false, problem: "it carries a user or password (there is an @); these go under upstream" };
  }
  if (text.includes("://")) return { ok: false, problem: `"${text}" has a scheme: leave it out` };
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(text);
  if (match === null) return { ok: false, problem: addressProblem(text) };
  const host = (match[1] ?? match[2] ?? "").toLowerCase();
  const port = Number(match[3]);
  const lowest = use === "listen" ? 0 : 1;
  if (port < lowest || port > 65_535) {
    return { ok: false, problem: `the port in "${text}" is not between ${lowest} and 65535` };
  }
  const known = match[1] === undefined ? isHostName(host) : isIpv6(host);
  if (!known) return { ok: false, problem: `"${text}" has no valid host before the port` };
  return { ok: true, value: { host, port } };
}

/** The canonical text of an address; the way a node is named everywhere. */
export function formatAddress(address: Address): string {
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

export function nodeIdOf(address: Address): NodeId {
  return formatAddress(address) as NodeId;
}

/** The host and port of a node id made by this file. */
export function addressOf(node: NodeId): Address {
  const colon = node.lastIndexOf(":");
  const host = node.slice(0, colon);
  const bare = host.startsWith("[") ? host.slice(1, -1) : host;
  return { host: bare, port: Number(node.slice(colon + 1)) };
}

/** Whether two listeners would ask for the same port: the same host, or one of them takes every host. */
export function listenersCollide(one: Address, other: Address): boolean {
  if (one.port !== other.port || one.port === 0) return false;
  return isWildcard(one.host) || isWildcard(other.host) || sameHost(one.host, other.host);
}

/** Whether dialling `node` would reach the listener, as far as the texts tell (no name is resolved). */
export function reachesListener(listener: Address, node: Address): boolean {
  if (listener.port !== node.port) return false;
  if (isWildcard(listener.host)) return isLoopback(node.host) || isWildcard(node.host);
  return sameHost(listener.host, node.host);
}

function sameHost(one: string, other: string): boolean {
  return (
    one === other || (isLoopback(one) && isLoopback(other) && plainLoopback(one) === plainLoopback(other))
  );
}

/** "localhost" may be either loopback; for a collision check it counts as 127.0.0.1. */
function plainLoopback(host: string): string {
  return host === "localhost" ? "127.0.0.1" : host;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host);
}

function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function isHostName(host: string): boolean {
  if (/^[\d.]+$/.test(host)) return isIpv4(host);
  return host.length <= 253 && /^[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?$/.test(host);
}

function isIpv4(host: string): boolean {
  const parts = host.split(".");
  return parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) <= 255);
}

function isIpv6(host: string): boolean {
  return host.includes(":") && URL.canParse(`http://[${host}]/`);
}

function addressProblem(text: string): string {
  if (/^\d+$/.test(text)) return `"${text}" has no host`;
  if ((text.match(/:/g) ?? []).length > 1 && !text.startsWith("[")) {
    return `"${text}" has several colons: an IPv6 address stands in brackets, "[::1]:6379"`;
  }
  return `"${text}" has no port`;
}
