/**
 * PURE. Sentinels that watch the group although the proxy was not told of them. They promote, too, without
 * any regard to our markers (lease.ts), and a planned switch they undo by promoting a third node: while one
 * is heard, the proxy does neither.
 *
 * A Sentinel subscribes to HELLO_CHANNEL on the master and on all replicas that it knows, and says there
 * every 2 s who it is and what it watches (sentinel.c: sentinelReconnectInstance, sentinelSendHello,
 * sentinel_publish_period). Others may subscribe there; only Sentinels have a reason to publish. So where
 * nobody but us subscribes there is none, which is known at once; where somebody does, it is known after a
 * hello, or after LISTEN_MS without one. A start beside no Sentinel is not delayed by that.
 *
 * Sentinels that are cut off from all nodes that we reach are not noticed. Whoever may publish on this
 * channel can keep the proxy from promoting; an ACL keeps others from it.
 */

import type { NodeId } from "../../topology/epoch.ts";

export const HELLO_CHANNEL = "__sentinel__:hello";
/** A Sentinel not heard for so long is gone, ms: five of its periods, which no setting of it changes. */
export const HEARD_MS = 10_000;
/** Who subscribes and says nothing for so long is no Sentinel, ms: its period, and what may delay it. */
export const LISTEN_MS = 3_000;
/** Sentinels remembered at most; of a message at most so many characters are looked at. */
const MAX_SENTINELS = 64;
const MAX_HELLO = 1_024;
/** sentinelSendHello: ip, port, runid, current epoch, name, and the master's ip, port, epoch. */
const HELLO_FIELDS = 8;
const MAX_HOST = 255;
const MAX_NAME = 100;

/** What a Sentinel says of itself. */
export interface Hello {
  /** host:port; for people, nobody dials it. */
  readonly sentinel: string;
  /** The name under which it knows the group. */
  readonly group: string;
}

/** What is known on one node of who listens there. */
export interface Ear {
  /** Monotonic ms: since when we hear what is said there; null = we do not. */
  readonly listensSinceMs: number | null;
  /** Subscribers to the channel besides us. */
  readonly others: number;
}

interface Heard extends Hello {
  readonly atMs: number;
}

export interface Earshot {
  readonly ears: ReadonlyMap<NodeId, Ear>;
  readonly heard: ReadonlyMap<string, Heard>;
}

export const SILENCE: Earshot = { ears: new Map(), heard: new Map() };

/** Reads a message on the channel, which is untrusted; null = it is no Sentinel's. */
export function readHello(text: string): Hello | null {
  if (text.length > MAX_HELLO) return null;
  const [host = "", port = "", runId = "", , group = "", ...rest] = text.split(",");
  if (rest.length < HELLO_FIELDS - 5) return null;
  const isWhole = isHost(host) && isPort(port) && /^[0-9a-f]{40}$/.test(runId) && group !== "";
  if (!isWhole) return null;
  return { sentinel: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`, group: shown(group) };
}

/** An address or, where Sentinel announces them, a name. */
function isHost(text: string): boolean {
  return text.length <= MAX_HOST && /^[\w.:%-]+$/.test(text);
}

function isPort(text: string): boolean {
  return /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535;
}

/** Sentinel takes any name; this one is to be read in a line. */
function shown(name: string): string {
  return name.slice(0, MAX_NAME).replaceAll(/[^\w./:@-]/g, "?");
}

/** Reads an answer of PUBSUB NUMSUB: how many subscribe to the channel; null = it is no such answer. */
export function readSubscribers(answer: unknown): number | null {
  if (!Array.isArray(answer) || answer[0] !== HELLO_CHANNEL) return null;
  const count = Number(answer[1]);
  return Number.isSafeInteger(count) && count >= 0 ? count : null;
}

/** @param ear null = nothing is known there now. */
export function withEar(earshot: Earshot, node: NodeId, ear: Ear | null): Earshot {
  const ears = new Map(earshot.ears);
  if (ear === null) ears.delete(node);
  else ears.set(node, ear);
  return { ...earshot, ears };
}

export function withHello(earshot: Earshot, hello: Hello, nowMs: number): Earshot {
  const heard = new Map([...earshot.heard].filter(([, { atMs }]) => isRecent(atMs, nowMs)));
  const key = `${hello.sentinel} ${hello.group}`;
  if (heard.size < MAX_SENTINELS || heard.has(key)) heard.set(key, { ...hello, atMs: nowMs });
  return { ...earshot, heard };
}

function isRecent(atMs: number, nowMs: number): boolean {
  return nowMs - atMs < HEARD_MS;
}

/** Why the proxy may not promote beside those who are heard; null = nobody is, as far as it is known. */
export function objectionOf(earshot: Earshot, nowMs: number): string | null {
  const heard = [...earshot.heard.values()].filter(({ atMs }) => isRecent(atMs, nowMs));
  const [first, ...more] = heard.sort((a, b) => (a.sentinel < b.sentinel ? -1 : 1));
  if (first !== undefined) return `${whoWatches(first, more.length)} and promotes too: ${whatToDo(first)}`;
  for (const [node, { listensSinceMs, others }] of earshot.ears) {
    if (others > 0 && !isSettled(listensSinceMs, nowMs)) {
      return (
        `somebody subscribes to ${HELLO_CHANNEL} on ${node}, as Sentinels do: ` +
        `that it is none is known when it has said nothing for ${LISTEN_MS} ms`
      );
    }
  }
  return null;
}

function isSettled(listensSinceMs: number | null, nowMs: number): boolean {
  return listensSinceMs !== null && nowMs - listensSinceMs >= LISTEN_MS;
}

function whoWatches({ sentinel, group }: Hello, more: number): string {
  const others = more === 0 ? "" : ` (and ${more} more)`;
  return `Sentinel ${sentinel}${others} watches this group as "${group}"`;
}

function whatToDo({ group }: Hello): string {
  return `use failover.promote: sentinel, or remove the group there (SENTINEL REMOVE ${group})`;
}
