/**
 * PURE. The right to promote (`failover.promote: self`), so that two proxies on one group do not promote two
 * nodes.
 *
 * A proxy that means to promote keeps a marker on every node it knows: a connection that is subscribed to a
 * channel named after it. The marker is there exactly as long as the node has that connection. A look asks a
 * node for all markers (PUBSUB CHANNELS, which the node answers at one moment); it counts only when our own
 * marker is in the same answer. The rules:
 *
 * 1. A proxy looks before it marks: where another one is, whichever, it does not begin to mark.
 * 2. A proxy that marks and sees an older one (smaller id) takes its markers away and is refused.
 * 3. A proxy that marks and sees a younger one is refused until that one has stepped back by rule 2: it may
 *    have looked before our marker was there, and may be promoting now. "The oldest promotes" alone would let
 *    both promote.
 * 4. It is sole when it sees nobody else on any node, and its looks count on a majority of all known nodes.
 *    On one of two nodes too, for only the one that is not the master can be promoted. And on any one, when
 *    looks on all known nodes counted at the same time before: a sole proxy must be able to promote when two
 *    of three nodes are down.
 *
 * What follows: on a node where looks of two proxies count, the later marker's look saw the earlier marker.
 * So two proxies are never sole at the same time as long as there is a node that has the markers of both, and
 * two majorities always share one. It is not guaranteed
 * - when nodes forget the markers of a living proxy that is cut off from them: they are restarted, or notice
 *   by TCP keep-alive (tcp-keepalive, 300 s) that its connections are dead. A proxy that had seen all nodes
 *   and now reaches fewer than half of them is then still sole, beside another one that is so on the others;
 * - between the last look and the promotion: it is sent at once after `confirm`, and markers are kept for
 *   KEEP_MS; a node that hangs and carries it out later than that may do so beside another promotion; and so
 *   may one that carries it out when the proxy has ended meanwhile, or nodes have forgotten its markers;
 * - when a proxy ends, or steps back, before those who follow it have seen what it promoted;
 * - with two nodes, when one proxy takes for the master what the other one takes for the replica;
 * - against proxies that know disjoint sets of nodes, and people who promote by hand.
 * An address that was announced and never answered counts as a node, also where it is a second one of a node
 * that we reach (behind a translation of addresses): nothing proves that. A master lists its replicas by
 * address and without run ids, a replica without `replica-announce-ip` does not know by which one, and to
 * count them (as many listed as we know) compares what two nodes said at two times: one replica that leaves
 * while another one, which only others reach, joins would be taken for one. Then we would need one node less
 * than a majority, and the other side could have one, too. Counted twice it can only keep us from promoting,
 * and that is said ("could be asked on 3 of 5 nodes"). Known by its run id, from its own word or from that of
 * Sentinels that met it there (rules/aliases.ts), it counts once.
 * The other way round, nothing is promoted while the marker of a proxy that is gone, or stands still, is
 * there: nodes notice the end of a process at once, that of a machine or a cable by TCP keep-alive only.
 * Whoever may subscribe to such a channel can keep all proxies from promoting; an ACL keeps others from it.
 */

import type { NodeId } from "../../topology/epoch.ts";
import type { Standing } from "../model.ts";

/** Another proxy's marker, or our own. */
export interface Marker {
  /** Smaller = older. */
  readonly id: string;
  /** Where the proxy can be found, for people; null = it does not say. */
  readonly label: string | null;
}

/** What is known of the markers on one node. */
export type Look =
  | { readonly kind: "pending" } // it just became known and was not asked yet
  | { readonly kind: "unseen"; readonly why: string } // nothing is known now
  | {
      readonly kind: "seen";
      /** Our own marker was confirmed before it was asked, and stood in the answer. */
      readonly marked: boolean;
      readonly others: readonly Marker[];
    }
  /** It does not let us mark or look. */
  | { readonly kind: "forbidden"; readonly error: string };

export interface Lease {
  readonly id: string;
  /** Whether our markers are to stand. */
  readonly marks: boolean;
  readonly looks: ReadonlyMap<NodeId, Look>;
  /** Looks on all known nodes counted at the same time, and nobody else was seen since. */
  readonly sawAll: boolean;
  /** Monotonic ms: markers are not taken away before, because a promotion may be under way. */
  readonly keepUntilMs: number;
}

export const MARKER_PREFIX = "__holdfast__:promoter:";
/** What the user that promotes must be allowed besides the rest. */
export const NEEDED_ACL = "&__holdfast__:* &__sentinel__:hello +subscribe +pubsub";
/** How long markers stay after the last confirmation, ms. */
export const KEEP_MS = 10_000;
/** Markers looked at in one answer at most. */
const MAX_MARKERS = 64;
const MAX_ID = 64;
const MAX_LABEL = 100;

/** Ids sort by the wall clock, then by chance. `random` is at least 16 hex digits. */
export function markerId(wallMs: number, random: string): string {
  return `${String(Math.max(0, Math.floor(wallMs))).padStart(15, "0")}-${random}`;
}

/** A label that can stand in a channel's name; null when nothing is left of it. */
export function labelOf(text: string): string | null {
  const label = text.replaceAll(/[^\w.:[\]-]/g, "_").slice(0, MAX_LABEL);
  return label === "" ? null : label;
}

export function markerChannel({ id, label }: Marker): string {
  return `${MARKER_PREFIX}${id}${label === null ? "" : `@${label}`}`;
}

/**
 * Reads an answer of PUBSUB CHANNELS, which is untrusted: whoever may subscribe can make a marker, and one of
 * an unknown form counts as one. Null when it is no list.
 */
export function readMarkers(
  answer: unknown,
  ownId: string,
): { readonly own: boolean; readonly others: readonly Marker[] } | null {
  if (!Array.isArray(answer)) return null;
  const markers = answer
    .filter((channel) => typeof channel === "string" && channel.startsWith(MARKER_PREFIX))
    .map((channel) => readMarker(String(channel).slice(MARKER_PREFIX.length)));
  const others = markers.filter(({ id }) => id !== ownId);
  others.sort((a, b) => (a.id < b.id ? -1 : 1));
  return { own: others.length < markers.length, others: others.slice(0, MAX_MARKERS) };
}

function readMarker(text: string): Marker {
  const [id = "", ...rest] = text.split("@");
  return { id: id.slice(0, MAX_ID), label: labelOf(rest.join("@")) };
}

export function firstLease(id: string): Lease {
  return { id, marks: false, looks: new Map(), sawAll: false, keepUntilMs: Number.NEGATIVE_INFINITY };
}

/** All known nodes, second addresses left out: each of them would count twice. */
export function withNodes(lease: Lease, nodes: readonly NodeId[]): Lease {
  const looks = new Map<NodeId, Look>();
  for (const node of nodes) looks.set(node, lease.looks.get(node) ?? { kind: "pending" });
  const isNew = nodes.some((node) => !lease.looks.has(node));
  return { ...lease, looks, sawAll: lease.sawAll && !isNew };
}

/** What came of a look at a node, or of the end of a marker's connection; of a node that is known. */
export function withLook(lease: Lease, node: NodeId, look: Look, nowMs: number): Lease {
  if (!lease.looks.has(node)) return lease;
  return settle({ ...lease, looks: new Map(lease.looks).set(node, look) }, nowMs);
}

/** It was sole, and the promotion is sent now. */
export function confirmed(lease: Lease, nowMs: number): Lease {
  return { ...lease, keepUntilMs: nowMs + KEEP_MS };
}

/** As if only these nodes had been looked at. */
export function freshOnly(lease: Lease, fresh: ReadonlySet<NodeId>): Lease {
  const looks = new Map<NodeId, Look>();
  for (const [node, look] of lease.looks) {
    const isStale = look.kind === "seen" && !fresh.has(node);
    looks.set(node, isStale ? { kind: "unseen", why: "it did not answer in time" } : look);
  }
  return { ...lease, looks };
}

function settle(lease: Lease, nowMs: number): Lease {
  const looks = [...lease.looks.values()];
  const others = strangers(lease);
  if (lease.marks && others.some(({ id }) => id < lease.id) && nowMs >= lease.keepUntilMs) {
    return { ...lease, marks: false, looks: unmarked(lease.looks), sawAll: false };
  }
  const isFree = others.length === 0 && looks.some(({ kind }) => kind === "seen");
  const marks = lease.marks || (isFree && !looks.some(({ kind }) => kind === "pending"));
  const sawAll = others.length === 0 && (lease.sawAll || (marks && looks.every(counts)));
  return { ...lease, marks, sawAll };
}

function unmarked(looks: ReadonlyMap<NodeId, Look>): ReadonlyMap<NodeId, Look> {
  const changed = new Map<NodeId, Look>();
  for (const [node, look] of looks)
    changed.set(node, look.kind === "seen" ? { ...look, marked: false } : look);
  return changed;
}

/** All other proxies that are seen anywhere, the oldest first. */
function strangers(lease: Lease): readonly Marker[] {
  const found = [...lease.looks.values()].flatMap((look) => (look.kind === "seen" ? look.others : []));
  return found.sort((a, b) => (a.id < b.id ? -1 : 1));
}

function counts(look: Look): boolean {
  return look.kind === "seen" && look.marked && look.others.length === 0;
}

/** @param must nodes on which a look must count, whatever it is on the others: those that answer. */
export function standingOf(lease: Lease, must: readonly NodeId[] = []): Standing {
  const looks = [...lease.looks];
  for (const [node, look] of looks)
    if (look.kind === "forbidden") return refused(forbidden(node, look.error));
  const [oldest] = strangers(lease);
  if (oldest !== undefined) return refused(oldest.id < lease.id ? elder(oldest) : younger(oldest));
  const missing = must.find((node) => !counts(lease.looks.get(node) ?? { kind: "pending" }));
  if (missing !== undefined) {
    const why = whyNot(lease.looks.get(missing));
    return refused(`whether another proxy promotes could not be asked on ${missing}: ${why}`);
  }
  const counting = looks.filter(([, look]) => counts(look)).length;
  const needed = lease.sawAll || looks.length <= 2 ? 1 : Math.floor(looks.length / 2) + 1;
  if (counting >= needed) return { kind: "sole" };
  return refused(
    `whether another proxy promotes could be asked on ${counting} of ${looks.length} nodes, ` +
      `and ${needed} are needed until all have been asked at one time`,
  );
}

function refused(reason: string): Standing {
  return { kind: "refused", reason };
}

function forbidden(node: NodeId, error: string): string {
  return `${node} does not let the proxy look for others that promote (${error}); its user needs ${NEEDED_ACL}`;
}

function elder(other: Marker): string {
  return `${nameOf(other)} promotes in this group already; with more than one proxy use Sentinel`;
}

function younger(other: Marker): string {
  return `${nameOf(other)} has just come and means to promote too; with more than one proxy use Sentinel`;
}

function nameOf({ id, label }: Marker): string {
  return label === null ? `another proxy (${id})` : `the proxy at ${label}`;
}

function whyNot(look: Look | undefined): string {
  switch (look?.kind) {
    case undefined:
      return "it is not known";
    case "pending":
      return "it was not asked yet";
    case "unseen":
      return look.why;
    case "seen":
      return "our own marker is not there";
    case "forbidden":
      return look.error;
  }
}
